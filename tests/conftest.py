"""Fixtures for all tests: private servers."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from kit.postgres import PostgresServer
from kit.servers import RedisServer

if TYPE_CHECKING:
    from iokernel import sync

ROOT = pathlib.Path(__file__).parent.parent

# What whoever runs the tests has set for psql is not meant for them.
for name in [name for name in os.environ if name.startswith("PG")]:
    del os.environ[name]


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A redis-server for one test, which may stop and start it as it likes."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def start_redis() -> Iterator[Callable[..., RedisServer]]:
    """Starts servers with given config lines: start_redis("requirepass x", tls=True)."""
    with ExitStack() as stack:

        def start(*config: str, tls: bool = False) -> RedisServer:
            return stack.enter_context(RedisServer(config, tls=tls))

        yield start


@pytest.fixture(scope="session")
def shared_redis() -> Iterator[RedisServer]:
    """One redis-server for all tests that leave it as it is, but for its data."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def cache(shared_redis: RedisServer) -> Iterator[sync.Redis]:
    """A client for plain threads, of the shared server, which is empty."""
    from iokernel import sync  # here: tests in C do without the package

    with sync.connect(shared_redis.url) as client:
        client.flushall()
        yield client


@pytest.fixture(scope="session")
def shared_postgres() -> Iterator[PostgresServer]:
    """One postgres, with TLS, for all tests that leave it as it is; tables they name their own."""
    with PostgresServer(tls=True) as server:
        yield server


@pytest.fixture
def db(shared_postgres: PostgresServer) -> Iterator[sync.Postgres]:
    """A client for plain threads, of the shared server."""
    from iokernel import sync

    with sync.connect(shared_postgres.unix_url, kind=sync.Postgres) as client:
        yield client
