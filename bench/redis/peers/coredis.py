"""coredis: multiplexes calls over a pool by itself, so the pool stays at its default size."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as package_version

import coredis


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator["coredis.Redis[bytes]"]:
    async with coredis.Redis(host="127.0.0.1", port=port) as client:
        yield client


def key(text: str) -> str:
    return text


def version() -> str:
    return f"coredis {package_version('coredis')}"
