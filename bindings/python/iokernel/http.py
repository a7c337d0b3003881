"""What HTTP clients offer beyond ``call()``: responses and their headers; shared by iokernel.sync
and iokernel.asyncio.

``call(method, target, body, name, value, ...)`` gives the reply as it is:
``[status, reason, [name, value, ...], body, [name, value, ...]]``, the last for the trailer.
"""

from __future__ import annotations

import io
import json as json_module
from collections.abc import Iterable, Iterator, Mapping
from email.message import Message
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlencode

from iokernel import _core
from iokernel.errors import Error

__all__ = ["Headers", "Response", "StatusError"]

SCHEMES = ("http", "https")
Pairs: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]

H = TypeVar("H", bound="Head")

_USER_AGENT = f"iokernel/{_core.version}"


class StatusError(Error):
    """A status from 400 on, by ``Response.raise_for_status()``; ``response`` is what came."""

    response: Head


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
    """What an answer begins with: ``status``, ``reason``, ``headers``."""

    __slots__ = ("_parts",)

    def __init__(self, parts: list[Any]) -> None:
        self._parts = parts

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

    __slots__ = ()

    @property
    def body(self) -> bytes:
        """The body as it came."""
        return bytes(self._parts[3])

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


def _pairs(given: Pairs) -> Iterable[tuple[str, Any]]:
    return given.items() if isinstance(given, Mapping) else given


def body_length(source: Any) -> int | None:
    """Give how many bytes a body in parts has left, if that is known: of a binary file it is."""
    if isinstance(source, (str, bytes, bytearray, memoryview)):
        return len(source.encode() if isinstance(source, str) else memoryview(source).cast("B"))
    if isinstance(source, io.TextIOBase):
        return None
    try:
        here = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(here)
    except (AttributeError, OSError, ValueError):
        return None
    return int(end - here)


def request_arguments(
    method: str,
    target: str,
    params: Pairs | None,
    headers: Pairs | None,
    body: Any,
    json: Any,
    expect: bool,
) -> tuple[list[Any], Any]:
    """The arguments of ``call()`` for a request; and the body, where it follows in parts."""
    if params is not None:
        query = urlencode(list(_pairs(params)), doseq=True)
        target += ("&" if "?" in target else "?") + query if query else ""
    fields: list[Any] = []
    names = set()
    for name, value in _pairs(headers or ()):
        fields += (name, value)
        names.add(name.lower())
    if json is not None:
        if body is not None:
            raise TypeError("a request has body= or json=, not both")
        body = json_module.dumps(json, separators=(",", ":"))
        if "content-type" not in names:
            fields += ("content-type", "application/json")
    if "user-agent" not in names:
        fields += ("user-agent", _USER_AGENT)
    if not expect and (body is None or isinstance(body, (str, bytes, bytearray, memoryview))):
        return [method, target, body, *fields], None
    if body is None:
        raise TypeError("expect= is for a request that has a body")
    length = body_length(body)
    if length is not None and "content-length" not in names:
        fields += ("content-length", length)
    if expect:
        fields += ("expect", "100-continue")
    return [method, target, None, *fields], body
