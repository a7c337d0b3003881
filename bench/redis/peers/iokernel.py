"""iokernel: one connection for all callers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import iokernel


def url(port: int) -> str:
    return f"redis://127.0.0.1:{port}"


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[Any]:
    from iokernel.asyncio import connect, task_factory

    asyncio.get_running_loop().set_task_factory(task_factory)
    client = connect(url(port))
    await client.ready(timeout=5)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[Any]:
    from iokernel.sync import connect

    client = connect(url(port))
    client.ready(timeout=5)
    try:
        yield client
    finally:
        client.close()


def key(text: str) -> str:
    return text


def version() -> str:
    return f"iokernel {iokernel.__version__}"


# Shown per request: how often the two sides woke each other, and how often a waiting thread did
# the kernel's work itself.
COUNTERS = ("wakeups", "port_wakeups", "polls_blocking", "leads", "rounds")


def stats() -> dict[str, int]:
    kernel = iokernel.stats()
    return {name: kernel[name] for name in COUNTERS}
