"""psqlpy: a pool and a protocol in Rust. Its results become Python values by result()."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as package_version
from typing import Any

from loads import READ, WRITE
from psqlpy import ConnectionPool


class Pool:
    def __init__(self, pool: Any) -> None:
        self.pool = pool

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        async with self.pool.acquire() as connection:
            return (await connection.fetch(sql, args)).result()

    async def execute(self, sql: str, *args: Any) -> None:
        async with self.pool.acquire() as connection:
            await connection.execute(sql, args)

    async def transact(self, key: int) -> None:
        async with self.pool.acquire() as connection, connection.transaction() as transaction:
            balance = await transaction.fetch_val(READ, [key])
            await transaction.execute(WRITE, [balance + 1, key])


@asynccontextmanager
async def asyncio_client(port: int, connections: int) -> AsyncIterator[Pool]:
    pool = ConnectionPool(dsn=f"postgres://app@127.0.0.1:{port}/app", max_db_pool_size=connections)
    yield Pool(pool)


def version() -> str:
    return f"psqlpy {package_version('psqlpy')}"
