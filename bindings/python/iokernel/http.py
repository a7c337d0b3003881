"""What HTTP clients offer beyond ``call()``: responses and their headers; shared by iokernel.sync
and iokernel.asyncio.

``call(method, target, body, name, value, ...)`` gives the reply as it is:
``[status, reason, [name, value, ...], body, [name, value, ...]]``, the last for the trailer.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator, Mapping
from email.message import Message
from typing import Any, TypeVar

from iokernel.errors import Error
from iokernel.http_coding import CodingError, decoding_of

__all__ = ["CodingError", "Headers", "RedirectError", "Response", "StatusError", "UpgradeError"]

SCHEMES = ("http", "https")
H = TypeVar("H", bound="Head")


class StatusError(Error):
    """A status from 400 on, by ``Response.raise_for_status()``; ``response`` is what came."""

    response: Head


class RedirectError(Error):
    """An answer leads on, but not to where we can go; ``response`` is that answer."""

    response: Head


class UpgradeError(Error):
    """The server does not change the protocol; ``response`` is what it answered instead."""

    response: Response


class Headers(Mapping[str, str]):
    """The fields of a message, in their order; names compare without case.

    Of a field that came several times ``headers[name]`` has all values, joined by a comma as
    RFC 9110 has it (5.3); ``get_all(name)`` has them apart, as Set-Cookie needs it.
    """

    __slots__ = ("_parts",)

    def __init__(self, parts: list[bytes]) -> None:
        """Take names, in small letters, and values in turn."""
        self._parts = parts

    def get_all(self, name: str) -> list[str]:
        """Give the values of all fields of that name."""
        parts = self._parts
        wanted = name.lower().encode("latin-1", "replace")
        return [
            parts[i + 1].decode("latin-1") for i in range(0, len(parts), 2) if parts[i] == wanted
        ]

    def pairs(self) -> list[tuple[str, str]]:
        """Give every field as it came: its name, in small letters, and its value."""
        parts = [part.decode("latin-1") for part in self._parts]
        return list(zip(parts[::2], parts[1::2], strict=True))

    def __getitem__(self, name: str) -> str:
        found = self.get_all(name)
        if not found:
            raise KeyError(name)
        return ", ".join(found)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.get_all(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name.decode("latin-1") for name in self._parts[::2]))

    def __len__(self) -> int:
        return len(set(self._parts[::2]))

    def __repr__(self) -> str:
        """Names only: values may be secrets."""
        return f"<Headers {', '.join(self)}>"


class Head:
    """What an answer begins with: ``status``, ``reason``, ``headers``.

    Of a request that may be redirected ``history`` has the answers that led here, and ``url`` the
    place that this one came from.
    """

    __slots__ = ("_parts", "history", "url")

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts
        self.history: tuple[Head, ...] = ()
        self.url = ""

    @property
    def status(self) -> int:
        """The status code, such as 200."""
        return int(self._parts[0])

    @property
    def reason(self) -> str:
        """The words behind it, which mean nothing."""
        return str(self._parts[1], "latin-1")

    @property
    def headers(self) -> Headers:
        """The fields before the body."""
        return Headers(self._parts[2])

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    def raise_for_status(self: H) -> H:
        """Raise StatusError if the status is 400 or more, else give itself."""
        if not self.ok:
            error = StatusError(
                f"the server answered {self.status} {self.reason}".rstrip(), outcome="done"
            )
            error.response = self
            raise error
        return self

    def _charset(self) -> str:
        kind = Message()
        kind["Content-Type"] = self.headers.get("content-type", "")
        return kind.get_content_charset("utf-8")


class Response(Head):
    """An answer, whole: ``status``, ``reason``, ``headers``, ``body``, ``trailers``."""

    __slots__ = ("_body", "_limit")

    def __init__(self, parts: list[Any], limit: int = 0) -> None:
        """Take a reply; what Content-Encoding says is undone up to limit bytes, or if 0 left so."""
        super().__init__(parts)
        self._limit = limit
        self._body: bytes | None = None

    @property
    def body(self) -> bytes:
        """The body, without its Content-Encoding, unless compression=False."""
        body = self._body
        if body is None:
            body = self._parts[3]
            if self._limit and body and b"content-encoding" in self._parts[2]:
                decoding = decoding_of(self.headers, self.status, self._limit)
                if decoding is not None:
                    body = decoding.feed(body)
                    decoding.end()
            self._body = body
        return bytes(body)

    @property
    def trailers(self) -> Headers:
        """The fields behind a body in chunks."""
        return Headers(self._parts[4])

    def text(self, encoding: str | None = None) -> str:
        """Give the body as text, by Content-Type's charset, or else as UTF-8."""
        return self.body.decode(encoding or self._charset())

    def json(self) -> Any:
        """Give the body as what JSON says that it is."""
        return json_module.loads(self.body)

    def __repr__(self) -> str:
        return f"<Response {self.status}, {len(self._parts[3])} bytes>"
