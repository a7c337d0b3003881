"""niquests: one session, with as many connections as callers."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import niquests


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    target = f"http://127.0.0.1:{port}/item"
    async with niquests.AsyncSession(pool_maxsize=callers) as session:
        session.trust_env = False

        async def get() -> int:
            response = await session.get(target)
            return len(response.content or b"")

        yield get


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[Callable[[], int]]:
    target = f"http://127.0.0.1:{port}/item"
    with niquests.Session(pool_maxsize=callers) as session:
        session.trust_env = False
        yield lambda: len(session.get(target).content or b"")


def version() -> str:
    return f"niquests {niquests.__version__}"
