"""WebSocket for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from iokernel import _core
from iokernel.asyncio.client import Lease
from iokernel.bodies import is_over
from iokernel.errors import Error
from iokernel.http import Headers
from iokernel.websocket import (
    CLOSE_TIMEOUT_S,
    Data,
    WebSocketClosed,
    WebSocketState,
    close_part,
    message_part,
    ping_part,
)


class WebSocket(WebSocketState):
    """A WebSocket, by ``await web.websocket(target)``; an iterator of its messages.

    One task receives at a time, and others may send meanwhile. Messages wait in the kernel, a
    bounded number of them, and then at the server. Left before its end, it closes.
    """

    __slots__ = ("_finding", "_lease", "_receiving", "_stream")

    def __init__(
        self, lease: Lease, stream: _core.Stream, headers: Headers, protocol: str | None
    ) -> None:
        super().__init__(headers, protocol)
        self._lease = lease
        self._stream = stream
        self._receiving: asyncio.Future[None] | None = None
        self._finding: asyncio.Future[None] | None = None

    async def recv(self) -> str | bytes:
        """Give the next message, str or bytes; WebSocketClosed when there are no more."""
        while self._finding is not None:
            await asyncio.wait([self._finding])
        early: Any = self._take_early()
        if early is not None:
            return early  # type: ignore[no-any-return]
        if self._receiving is not None:
            raise RuntimeError("another task receives already")
        self._receiving = asyncio.get_running_loop().create_future()
        try:
            while True:
                part = await self._stream.next()
                message: Any = self._take(part, self._stream.result)
                if message is not None:
                    return message  # type: ignore[no-any-return]
        finally:
            self._receiving.set_result(None)
            self._receiving = None

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.recv()
        except WebSocketClosed as closed:
            if closed.clean and closed.close_code in (1000, 1001, 1005):
                raise StopAsyncIteration from None
            raise

    async def send(self, message: Data) -> None:
        """Send text (str) or bytes; done when the system has taken it."""
        await self._send(message_part(message))

    async def ping(self, payload: Data = b"") -> None:
        """Send a ping; recv() sees the answer in passing, see ``last_pong``."""
        await self._send(ping_part(payload))

    async def _send(self, part: bytes) -> None:
        if self._end is not None:
            raise self._closed()
        try:
            await self._stream.send(part)
        except Error as error:
            if is_over(error):
                await self._find_end()
            raise

    async def _find_end(self) -> None:
        """Raise WebSocketClosed for a send that came too late, or what else has ended it."""
        while (other := self._receiving or self._finding) is not None:  # which sees it first
            await asyncio.wait([other])
        self._finding = asyncio.get_running_loop().create_future()
        try:
            while self._end is None:
                part = await self._stream.next()
                if part is None:
                    self._note_end(self._stream.result)
                else:
                    self._early.append(part)
        finally:
            self._finding.set_result(None)
            self._finding = None
        raise self._closed() from None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it, and wait for the other side, at most ten seconds; again is harmless.

        Messages that still come are dropped.
        """
        part = close_part(code, reason)
        try:
            if self._end is None:
                await asyncio.wait_for(self._finish(part), CLOSE_TIMEOUT_S)
        except (asyncio.TimeoutError, OSError):
            pass  # it did not answer, or is gone: an end all the same
        finally:
            self._stream.close()
            self._lease.close()

    async def _finish(self, part: bytes) -> None:
        await self._send(part)
        while self._end is None:
            if self._receiving is not None:
                await asyncio.wait([self._receiving])
                continue
            try:
                await self.recv()
            except WebSocketClosed:
                return

    async def __aenter__(self) -> WebSocket:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        await self.close(1000 if kind is None else 1011)
