"""WebSocket for plain threads."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from iokernel import _core
from iokernel.bodies import is_over
from iokernel.errors import Error
from iokernel.http import Headers
from iokernel.sync.client import Lease
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
    """A WebSocket, by ``web.websocket(target)``; an iterator of its messages.

    It belongs to one thread. Messages wait in the kernel, a bounded number of them, and then at the
    server. Left before its end, it closes.
    """

    __slots__ = ("_lease", "_stream")

    def __init__(
        self, lease: Lease, stream: _core.Stream, headers: Headers, protocol: str | None
    ) -> None:
        super().__init__(headers, protocol)
        self._lease = lease
        self._stream = stream

    def recv(self, timeout: float | None = None) -> str | bytes:
        """Give the next message, str or bytes; WebSocketClosed when there are no more."""
        early: Any = self._take_early()
        if early is not None:
            return early  # type: ignore[no-any-return]
        while True:
            part = self._stream.next(timeout=timeout)
            message: Any = self._take(part, self._stream.result)
            if message is not None:
                return message  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str | bytes]:
        return self

    def __next__(self) -> str | bytes:
        try:
            return self.recv()
        except WebSocketClosed as closed:
            if closed.clean and closed.close_code in (1000, 1001, 1005):
                raise StopIteration from None
            raise

    def send(self, message: Data) -> None:
        """Send text (str) or bytes; done when the system has taken it."""
        self._send(message_part(message))

    def ping(self, payload: Data = b"") -> None:
        """Send a ping; recv() sees the answer in passing, see ``last_pong``."""
        self._send(ping_part(payload))

    def _send(self, part: bytes) -> None:
        if self._end is not None:
            raise self._closed()
        try:
            self._stream.send(part)
        except Error as error:
            if is_over(error):
                self._find_end()
            raise

    def _find_end(self) -> None:
        """Raise WebSocketClosed for a send that came too late, or what else has ended it."""
        while (part := self._stream.next()) is not None:
            self._early.append(part)
        self._note_end(self._stream.result)
        raise self._closed() from None

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it, and wait for the other side, at most ten seconds; again is harmless.

        Messages that still come are dropped.
        """
        part = close_part(code, reason)
        try:
            # It may not answer, or be gone: an end all the same.
            with contextlib.suppress(WebSocketClosed, OSError):
                if self._end is None:
                    self._finish(part)
        finally:
            self._stream.close()
            self._lease.close()

    def _finish(self, part: bytes) -> None:
        self._send(part)
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        while True:
            self.recv(timeout=max(deadline - time.monotonic(), 0.001))

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        self.close(1000 if kind is None else 1011)
