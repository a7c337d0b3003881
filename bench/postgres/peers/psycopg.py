"""psycopg 3 with its C extension: a pool, binary results, statements prepared at once."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any

import psycopg
from loads import READ, WRITE, formatted
from psycopg import pq

OPTIONS = {"autocommit": True, "prepare_threshold": 0}
form = cache(formatted)


def place(port: int) -> str:
    return f"host=127.0.0.1 port={port} user=app dbname=app sslmode=disable"


class Pool:
    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def fetch(self, sql: str, key: int) -> list[Any]:
        async with self.pool.connection() as connection:
            cursor = await connection.execute(form(sql), (key,), binary=True)
            return await cursor.fetchall()

    async def execute(self, sql: str, *args: Any) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(form(sql), args)

    async def transact(self, key: int) -> None:
        async with self.pool.connection() as connection:
            async with connection.transaction():
                cursor = await connection.execute(form(READ), (key,), binary=True)
                (balance,) = await cursor.fetchone()
                await connection.execute(form(WRITE), (balance + 1, key))


@asynccontextmanager
async def asyncio_client(port: int, connections: int) -> AsyncIterator[Pool]:
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(
        place(port), min_size=connections, max_size=connections, kwargs=OPTIONS, open=False,
        timeout=60,
    ) as pool:  # fmt: skip
        await pool.wait()
        yield Pool(pool)


class Single:
    """One connection, for one thread."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    def fetch(self, sql: str, key: int) -> list[Any]:
        return self.connection.execute(form(sql), (key,), binary=True).fetchall()

    def execute(self, sql: str, *args: Any) -> None:
        self.connection.execute(form(sql), args)


@contextmanager
def sync_client(port: int, connections: int) -> Iterator[Single]:
    with psycopg.connect(place(port), **OPTIONS) as connection:
        yield Single(connection)


def version() -> str:
    return f"psycopg {psycopg.__version__} ({pq.__impl__})"
