"""iokernel: connections by need, as many as there are callers at most."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import iokernel


def url(port: int, callers: int) -> str:
    return f"http://127.0.0.1:{port}?timeout=60s&connections={min(callers, 100)}"


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    from iokernel.asyncio import Http, connect, task_factory

    asyncio.get_running_loop().set_task_factory(task_factory)
    async with connect(url(port, callers), kind=Http) as web:
        request = web.get

        async def get() -> int:
            return len((await request("/item")).body)

        yield get


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[Callable[[], int]]:
    from iokernel.sync import Http, connect

    with connect(url(port, callers), kind=Http) as web:
        request = web.get
        yield lambda: len(request("/item").body)


def stats() -> dict[str, int]:
    return {name: iokernel.stats()[name] for name in ("wakeups", "port_wakeups")}


def version() -> str:
    return f"iokernel {iokernel.__version__}"
