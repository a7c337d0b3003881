"""Bodies that go in parts, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.bodies import READ_BYTES, is_over
from iokernel.errors import Error

if TYPE_CHECKING:
    from iokernel.asyncio.client import Client


async def pieces(source: Any) -> AsyncGenerator[Any, None]:
    """Give what a source has: text or bytes, a file, or an iterator of them, which ends with us."""
    if isinstance(source, (str, bytes, bytearray, memoryview)):
        yield source
    elif hasattr(source, "read"):
        while True:
            piece = source.read(READ_BYTES)
            if inspect.isawaitable(piece):
                piece = await piece
            if not piece:
                return
            yield piece
    elif hasattr(source, "__aiter__"):
        iterator = aiter(source)
        try:
            async for piece in iterator:
                yield piece
        finally:
            if inspect.isasyncgen(iterator):
                await iterator.aclose()
    else:
        iterator = iter(source)
        try:
            for piece in iterator:
                yield piece
        finally:
            if inspect.isgenerator(iterator):
                iterator.close()


def lasting(piece: Any) -> Any:
    """Give a piece that stays as it is when its source goes on, before it is sent."""
    try:
        return piece if isinstance(piece, (str, bytes)) else memoryview(piece).tobytes()
    except TypeError:
        return piece  # none at all, as send() says


class Exchange:
    """A request whose body goes in parts, or whose reply is taken so; both go on side by side."""

    __slots__ = ("_closed", "_failure", "_sender", "_stream")

    def __init__(
        self, client: Client, args: list[Any], body: Any, *, parts: bool, timeout: float | None
    ) -> None:
        has_body = body is not None
        self._stream = _core.Stream(client, *args, parts=parts, body=has_body, timeout=timeout)
        self._closed = False
        self._failure: BaseException | None = None
        self._sender = asyncio.ensure_future(self._send(body)) if has_body else None

    async def _send(self, source: Any) -> None:
        """Send the body as its pieces come; if that fails, next() says so.

        If the call ends before its body does, that is all: its reply, or why it has none, tells
        more.
        """
        try:
            async with contextlib.aclosing(pieces(source)) as given:
                await self._send_pieces(given)
        except BaseException as failure:
            if self._closed:
                return
            self._failure = failure
            self._stream.close()
            if not isinstance(failure, (Exception, asyncio.CancelledError)):
                raise

    async def _send_pieces(self, given: AsyncIterator[Any]) -> None:
        pending = None
        try:
            async for piece in given:
                if pending is not None and not await self._is_sent(pending):
                    return
                pending = self._begin(lasting(piece))
                if pending is None:
                    return
            if pending is None or await self._is_sent(pending):
                await self._is_sent(self._begin(b"", end=True))
        finally:
            if pending is not None and not pending.cancel() and not pending.cancelled():
                pending.exception()  # of a part that nobody waits for any more

    def _begin(self, piece: Any, *, end: bool = False) -> Any:
        """Give what is to be waited for; None if the call has ended."""
        try:
            return self._stream.send(piece, end=end)
        except Error as error:
            if is_over(error):
                return None
            raise

    async def _is_sent(self, part: Any) -> bool:
        try:
            if part is not None:
                await part
        except Error as error:
            if is_over(error):
                return False
            raise
        return True

    async def next(self) -> Any:
        """Give the next part of the reply; None at its end, from when on there is its result."""
        try:
            return await self._stream.next()
        except Error:
            if self._failure is not None:
                raise self._failure from None
            raise

    @property
    def result(self) -> Any:
        """The reply proper; None before its end."""
        return self._stream.result

    def close(self) -> None:
        """End it, wherever it is; again is harmless."""
        self._closed = True
        if self._sender is not None:
            self._sender.cancel()
        self._stream.close()
