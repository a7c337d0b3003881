"""aiohttp: one session, without a limit of connections, and without cookies, which it offers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import aiohttp


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    target = f"http://127.0.0.1:{port}/item"
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def get() -> int:
            async with session.get(target) as response:
                return len(await response.read())

        yield get


def version() -> str:
    return f"aiohttp {aiohttp.__version__}"
