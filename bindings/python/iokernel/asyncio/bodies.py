"""Bodies that go in parts, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.bodies import READ_BYTES
from iokernel.errors import Error

if TYPE_CHECKING:
    from iokernel.asyncio.client import Client


async def pieces(source: Any) -> AsyncIterator[Any]:
    """Give what a source has: text or bytes, a file, or an iterator of them."""
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
        async for piece in source:
            yield piece
    else:
        for piece in source:
            yield piece


class Exchange:
    """A request whose body goes in parts, or whose reply is taken so; both go on side by side."""

    __slots__ = ("_failure", "_sender", "_stream")

    def __init__(
        self, client: Client, args: list[Any], body: Any, *, parts: bool, timeout: float | None
    ) -> None:
        has_body = body is not None
        self._stream = _core.Stream(client, *args, parts=parts, body=has_body, timeout=timeout)
        self._failure: Exception | None = None
        self._sender = asyncio.ensure_future(self._send(body)) if has_body else None

    async def _send(self, source: Any) -> None:
        """Send the body as its pieces come.

        If the call ends before its body does, that is all: its reply, or why it has none, tells
        more.
        """
        stream = self._stream
        pending = None
        try:
            async for piece in pieces(source):
                try:
                    if pending is not None:
                        await pending
                    pending = stream.send(piece)
                except Error:
                    return
            with contextlib.suppress(Error):
                if pending is not None:
                    await pending
                await stream.send(b"", end=True)
        except Exception as failure:
            self._failure = failure
            with contextlib.suppress(Error):
                await stream.fail(f"the program's source failed: {type(failure).__name__}")
        finally:
            if pending is not None and not pending.cancel() and not pending.cancelled():
                pending.exception()  # of a part that nobody waits for any more

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
        if self._sender is not None:
            self._sender.cancel()
        self._stream.close()
