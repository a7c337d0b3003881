"""asyncpg: a pool, which for one connection would only cost time.

Its pool asks the server to reset each connection that is given back, which doubles the round trips;
asyncpg lets programs that change no session settings do without, and so do we.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from loads import READ, WRITE


class Pool:
    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.fetch = pool.fetch
        self.execute = pool.execute

    async def transact(self, key: int) -> None:
        async with self.pool.acquire() as connection:
            await transact(connection, key)


class Single:
    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.fetch = connection.fetch
        self.execute = connection.execute

    async def transact(self, key: int) -> None:
        await transact(self.connection, key)


async def transact(connection: Any, key: int) -> None:
    async with connection.transaction():
        balance = await connection.fetchval(READ, key)
        await connection.execute(WRITE, balance + 1, key)


async def no_reset(connection: Any) -> None:
    pass


@asynccontextmanager
async def asyncio_client(
    port: int, connections: int, **options: Any
) -> AsyncIterator[Pool | Single]:
    place = {"host": "127.0.0.1", "port": port, "user": "app", "database": "app", "ssl": False}
    if connections == 1:
        yield Single(await asyncpg.connect(**place, **options))
        return
    async with asyncpg.create_pool(
        min_size=connections, max_size=connections, reset=no_reset, **place, **options
    ) as pool:
        yield Pool(pool)


def version() -> str:
    return f"asyncpg {asyncpg.__version__}"
