"""A hand-written asyncio.Protocol on hiredis: about the most that pure Python can do.

One connection. Requests of one loop round go out in one write; replies resolve futures in order.
It has nothing of a client's duties: no reconnect, no deadline, no limits, no cancellation beyond
not crashing. It is the price of the event loop and its futures, not a product. Measured and not
faster: hiredis.pack_command, BufferedProtocol, methods kept in attributes.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version as package_version
from typing import Any

import hiredis


class Pipeline(asyncio.Protocol):
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.reader = hiredis.Reader(notEnoughData=self)
        self.waiting: deque[asyncio.Future[Any]] = deque()
        self.unsent: list[bytes] = []
        self.closed = self.loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def get(self, key: bytes) -> "asyncio.Future[Any]":
        unsent = self.unsent
        if not unsent:
            self.loop.call_soon(self.flush)
        unsent.append(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key))
        future = self.loop.create_future()
        self.waiting.append(future)
        return future

    def flush(self) -> None:
        self.transport.write(b"".join(self.unsent))  # type: ignore[attr-defined]
        self.unsent.clear()

    def data_received(self, data: bytes) -> None:
        reader, next_future = self.reader, self.waiting.popleft
        reader.feed(data)
        gets = reader.gets
        while (reply := gets()) is not self:
            future = next_future()
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_exception(error or ConnectionError("the server closed the connection"))
        self.closed.set_result(None)


@asynccontextmanager
async def asyncio_client(port: int, callers: int) -> AsyncIterator[Pipeline]:
    loop = asyncio.get_running_loop()
    transport, pipeline = await loop.create_connection(Pipeline, "127.0.0.1", port)
    try:
        yield pipeline
    finally:
        transport.close()
        await pipeline.closed


def key(text: str) -> bytes:
    return text.encode()


def version() -> str:
    return f"asyncio.Protocol on hiredis {package_version('hiredis')}"
