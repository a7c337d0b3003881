"""valkey-glide: a client core in Rust, all calls over one connection."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version as package_version
from typing import Any

# Well above any latency here: glide's own 250 ms would fail calls on a loaded machine.
TIMEOUT_MS = 10_000


def configured(module: Any, port: int, callers: int) -> Any:
    return module.GlideClientConfiguration(
        [module.NodeAddress("127.0.0.1", port)],
        request_timeout=TIMEOUT_MS,
        inflight_requests_limit=max(1000, 2 * callers),
    )


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[Any]:
    import glide

    client = await glide.GlideClient.create(configured(glide, port, callers))
    try:
        yield client
    finally:
        await client.close()


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[Any]:
    import glide_sync

    client = glide_sync.GlideClient.create(configured(glide_sync, port, callers))
    try:
        yield client
    finally:
        client.close()


def key(text: str) -> str:
    return text


def version() -> str:
    return f"valkey-glide {package_version('valkey-glide')}"
