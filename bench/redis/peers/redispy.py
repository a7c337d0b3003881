"""redis-py with the hiredis parser: one connection per caller, from a pool of that size.

ConnectionPool, because BlockingConnectionPool was 10 to 20% slower at every number of callers.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version as package_version

import redis
import redis.asyncio
from redis.utils import HIREDIS_AVAILABLE


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[redis.asyncio.Redis]:
    pool = redis.asyncio.ConnectionPool(host="127.0.0.1", port=port, max_connections=callers)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        yield client


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[redis.Redis]:
    with redis.Redis(host="127.0.0.1", port=port, max_connections=callers) as client:
        yield client


def key(text: str) -> str:
    return text


def version() -> str:
    if not HIREDIS_AVAILABLE:
        raise RuntimeError("redis-py does not use hiredis; it would be measured too slow")
    return f"redis-py {package_version('redis')} with hiredis {package_version('hiredis')}"
