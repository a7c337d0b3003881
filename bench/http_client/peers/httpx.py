"""httpx: one client that keeps all of its 100 connections; without a limit it is far slower."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx

LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=100)


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    target = f"http://127.0.0.1:{port}/item"
    async with httpx.AsyncClient(limits=LIMITS, timeout=60, trust_env=False) as client:

        async def get() -> int:
            return len((await client.get(target)).content)

        yield get


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[Callable[[], int]]:
    target = f"http://127.0.0.1:{port}/item"
    with httpx.Client(limits=LIMITS, timeout=60, trust_env=False) as client:
        yield lambda: len(client.get(target).content)


def version() -> str:
    return f"httpx {httpx.__version__}"
