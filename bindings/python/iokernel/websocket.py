"""What WebSocket clients have in common; shared by iokernel.sync and iokernel.asyncio.

The kernel thread does frames, masks, compression, pings and the closing. A part that goes out is a
frame's first byte and its payload; what comes is str, bytes, or a list: ``["pong", payload]``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from iokernel.errors import Error
from iokernel.http import Headers

__all__ = ["WebSocketClosed"]

Data = str | bytes | bytearray | memoryview

TEXT, BINARY, CLOSE, PING = b"\x81", b"\x82", b"\x88", b"\x89"
CONTROL_BYTES_MAX = 125
OFFER = "permessage-deflate; client_max_window_bits"
NO_CODE, ABNORMAL = 1005, 1006
CLOSE_TIMEOUT_S = 10.0
"""How long close() waits for the other side."""


class WebSocketClosed(Error):
    """There are no messages any more. ``close_code`` and ``reason`` are those of the other side's
    close, or of ours if it broke the protocol; 1005 stands for none, 1006 for an end without a
    close. ``clean`` says that both sides sent one.
    """

    close_code: int
    reason: str
    clean: bool


def opening_fields(
    headers: Any, protocols: Iterable[str], compression: bool
) -> list[tuple[str, str]]:
    """Give the fields of the request, as pairs."""
    given = headers.items() if hasattr(headers, "items") else headers or ()
    fields = [(str(name), str(value)) for name, value in given]
    offered = ", ".join(protocols)
    if offered:
        fields.append(("sec-websocket-protocol", offered))
    if compression:
        fields.append(("sec-websocket-extensions", OFFER))
    return fields


def chosen_protocol(headers: Headers, protocols: Iterable[str]) -> str | None:
    """Give the subprotocol that the server has chosen, or None."""
    chosen = headers.get("sec-websocket-protocol")
    if chosen is not None and chosen not in protocols:
        raise Error("the server chose a subprotocol that it was not offered", code="IOK_EPROTO")
    return chosen


def message_part(message: Data) -> bytes:
    """Give the frame of a message."""
    if isinstance(message, str):
        return TEXT + message.encode()
    return BINARY + bytes(message)


def ping_part(payload: Data) -> bytes:
    """Give the frame of a ping."""
    data = payload.encode() if isinstance(payload, str) else bytes(payload)
    if len(data) > CONTROL_BYTES_MAX:
        raise ValueError(f"a ping has at most {CONTROL_BYTES_MAX} bytes")
    return PING + data


def close_part(code: int, reason: str) -> bytes:
    """Give the frame of a close."""
    valid = 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999
    if not valid and (code != NO_CODE or reason):
        raise ValueError(f"{code} is no code that a close may have, or has no reason with it")
    data = reason.encode()
    if len(data) > CONTROL_BYTES_MAX - 2:
        raise ValueError(f"a reason has at most {CONTROL_BYTES_MAX - 2} bytes")
    return CLOSE if code == NO_CODE else CLOSE + code.to_bytes(2, "big") + data


class WebSocketState:
    """What is known of a connection."""

    __slots__ = ("_early", "_end", "headers", "last_pong", "protocol")

    def __init__(self, headers: Headers, protocol: str | None) -> None:
        self.headers = headers
        """What the server answered."""
        self.protocol = protocol
        """The subprotocol that it has chosen, or None."""
        self.last_pong: bytes | None = None
        """The payload of the latest pong that recv() came across."""
        self._end: list[Any] | None = None
        self._early: deque[Any] = deque()
        """What had come before an end that send() found, and recv() has not given yet."""

    @property
    def close_code(self) -> int | None:
        """How it was closed, once recv(), send() or close() has seen it: see WebSocketClosed."""
        return None if self._end is None else self._end[1]

    @property
    def close_reason(self) -> str:
        """What the other side said about it."""
        return "" if self._end is None else self._end[2]

    def _take(self, part: Any, result: Any) -> Data | None:
        """Give the message, or None if it was none; raises at the end."""
        if part is None:
            self._note_end(result)
            raise self._closed()
        if isinstance(part, list):
            self.last_pong = part[1]
            return None
        message: Data = part
        return message

    def _note_end(self, result: Any) -> None:
        self._end = result or ["close", ABNORMAL, "", False]

    def _take_early(self) -> Data | None:
        """Give what came before the end was seen; raises behind that, None if it was not."""
        while self._early:
            message = self._take(self._early.popleft(), None)
            if message is not None:
                return message
        if self._end is not None:
            raise self._closed()
        return None

    def _closed(self) -> WebSocketClosed:
        assert self._end is not None
        _, code, reason, clean = self._end
        error = WebSocketClosed(
            f"the WebSocket is closed: {code}" + (f" ({reason})" if reason else ""),
            code="IOK_ECLOSED",
            outcome="done",
        )
        error.close_code, error.reason, error.clean = code, reason, clean
        return error
