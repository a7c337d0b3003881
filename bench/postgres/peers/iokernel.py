"""iokernel: a few connections for all callers, and as many again for transactions."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import iokernel
from loads import READ, WRITE


def url(port: int, connections: int) -> str:
    return f"postgresql://app@127.0.0.1:{port}/app?connections={connections}&leases={connections}&timeout=60s"


class Client:
    def __init__(self, db: Any) -> None:
        self.db = db
        self.fetch = db.fetch
        self.execute = db.execute

    async def transact(self, key: int) -> None:
        async with self.db.transaction() as tx:
            balance = await tx.fetchval(READ, key)
            await tx.execute(WRITE, balance + 1, key)


@asynccontextmanager
async def asyncio_client(port: int, connections: int) -> AsyncIterator[Client]:
    from iokernel.asyncio import connect, task_factory

    asyncio.get_running_loop().set_task_factory(task_factory)
    db = connect(url(port, connections))
    await db.ready(timeout=5)
    try:
        yield Client(db)
    finally:
        db.close()


@contextmanager
def sync_client(port: int, connections: int) -> Iterator[Any]:
    from iokernel.sync import connect

    db = connect(url(port, connections))
    db.ready(timeout=5)
    try:
        yield db
    finally:
        db.close()


def version() -> str:
    return f"iokernel {iokernel.__version__}"


# Shown per request: how often the two sides woke each other, and how often a waiting thread did
# the kernel's work itself.
COUNTERS = ("wakeups", "port_wakeups", "polls_blocking", "leads")


def stats() -> dict[str, int]:
    kernel = iokernel.stats()
    return {name: kernel[name] for name in COUNTERS}
