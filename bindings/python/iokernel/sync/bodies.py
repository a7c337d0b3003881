"""Bodies that go in parts, for plain threads."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.bodies import READ_BYTES, is_over
from iokernel.errors import Error

if TYPE_CHECKING:
    from iokernel.sync.client import Client


def pieces(source: Any) -> Generator[Any, None, None]:
    """Give what a source has: text or bytes, a file, or an iterator of them, which ends with us."""
    if isinstance(source, (str, bytes, bytearray, memoryview)):
        yield source
    elif hasattr(source, "read"):
        while piece := source.read(READ_BYTES):
            yield piece
    else:
        yield from source


def send_body(stream: _core.Stream, source: Any) -> None:
    """Send a body as its pieces come.

    If the call ends before its body does, that is all: its reply, or why it has none, tells more.
    """
    with contextlib.closing(pieces(source)) as given:
        for piece in given:
            if not _sent(stream, piece):
                return
    _sent(stream, b"", end=True)


def _sent(stream: _core.Stream, piece: Any, *, end: bool = False) -> bool:
    try:
        stream.send(piece, end=end)
    except Error as error:
        if is_over(error):
            return False
        raise
    return True


class Exchange:
    """A request whose body goes in parts, or whose reply is taken so; one after the other."""

    __slots__ = ("_stream",)

    def __init__(
        self, client: Client, args: list[Any], body: Any, *, parts: bool, timeout: float | None
    ) -> None:
        has_body = body is not None
        self._stream = _core.Stream(client, *args, parts=parts, body=has_body, timeout=timeout)
        if has_body:
            try:
                send_body(self._stream, body)
            except BaseException:
                self._stream.close()
                raise

    def next(self) -> Any:
        """Give the next part of the reply; None at its end, from when on there is its result."""
        return self._stream.next()

    @property
    def result(self) -> Any:
        """The reply proper; None before its end."""
        return self._stream.result

    def close(self) -> None:
        """End it, wherever it is; again is harmless."""
        self._stream.close()
