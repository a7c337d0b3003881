"""asyncpg through pgbouncer in transaction mode, without prepared statements as pgbouncer's and
asyncpg's manuals ask for; the pool is that of asyncpg, the server's connections are pgbouncer's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from peers import asyncpg


@asynccontextmanager
async def asyncio_client(
    port: int, connections: int
) -> AsyncIterator["asyncpg.Pool | asyncpg.Single"]:
    async with asyncpg.asyncio_client(port, connections, statement_cache_size=0) as client:
        yield client


def version() -> str:
    return f"{asyncpg.version()} through pgbouncer"
