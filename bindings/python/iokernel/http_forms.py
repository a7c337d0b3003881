"""Forms of HTTP: urlencoded, and multipart/form-data (RFC 7578) with files that go in pieces."""

from __future__ import annotations

import mimetypes
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import urlencode

from iokernel.bodies import READ_BYTES, Body, is_whole, length, position, rewind

Pairs: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]


def pairs(given: Pairs) -> Iterable[tuple[str, Any]]:
    """Give names and values, however they were given."""
    return given.items() if isinstance(given, Mapping) else given


def _bytes(value: Any) -> Any:
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value


def _value(one: Any) -> str | bytes:
    one = _bytes(one)
    return one if isinstance(one, (str, bytes)) else str(one)


def encode(given: Pairs) -> str:
    """Give pairs as a query has them; a value may be a list of several."""
    values: list[tuple[str, Any]] = []
    for name, value in pairs(given):
        several = isinstance(value, (list, tuple))
        values.append((name, [_value(one) for one in value] if several else _bytes(value)))
    return urlencode(values, doseq=True)


def _quoted(text: str) -> str:
    """As browsers have it: HTML, 4.10.21.8."""
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


class Multipart(Body):
    """A form with files: an iterable of the pieces that it is made of."""

    def __init__(self, data: Pairs | None, files: Pairs) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self._parts: list[Any] = []
        for name, value in pairs(data or ()):
            for one in value if isinstance(value, (list, tuple)) else [value]:
                text = _value(one)
                self._add(boundary, f'form-data; name="{_quoted(name)}"', None, text)
        for name, value in pairs(files):
            self._add_file(boundary, name, value)
        self._parts.append(f"--{boundary}--\r\n".encode())

    def _add_file(self, boundary: str, name: str, value: Any) -> None:
        """Take a file; or (its name, file or content), and perhaps its type as a third."""
        kind = None
        if isinstance(value, tuple):
            filename, content, *rest = value
            kind = rest[0] if rest else None
        else:
            content = value
            named = getattr(value, "name", None)
            filename = os.path.basename(named) if isinstance(named, str) else name
        if hasattr(content, "__aiter__"):
            raise TypeError("files= takes files, bytes and text: asynchronous ones only as body=")
        kind = kind or mimetypes.guess_type(filename)[0] or "application/octet-stream"
        if "\r" in kind or "\n" in kind:
            raise ValueError("a line break in a file's content type")
        place = f'form-data; name="{_quoted(name)}"; filename="{_quoted(filename)}"'
        self._add(boundary, place, kind, content)

    def _add(self, boundary: str, place: str, kind: str | None, content: Any) -> None:
        head = f"--{boundary}\r\nContent-Disposition: {place}\r\n"
        head += f"Content-Type: {kind}\r\n\r\n" if kind else "\r\n"
        self._parts += (head.encode(), content.encode() if isinstance(content, str) else content)
        self._parts.append(b"\r\n")

    def length(self) -> int | None:
        """Tell how many bytes it has, if that is known."""
        sizes = [length(part) for part in self._parts]
        return None if None in sizes else sum(size for size in sizes if size)

    def whole(self) -> bytes | None:
        """Give it in one, if it has no file that is to be read."""
        return b"".join(self._parts) if all(is_whole(part) for part in self._parts) else None

    def position(self) -> list[Any] | None:
        """Give where its files stand; None if one of them can be read only once."""
        places = [position(part) for part in self._parts]
        return None if None in places else places

    def rewind(self, where: list[Any]) -> None:
        """Put its files back to there."""
        for part, place in zip(self._parts, where, strict=True):
            rewind(part, place)

    def __iter__(self) -> Iterator[Any]:
        for part in self._parts:
            if is_whole(part):
                yield part
            elif hasattr(part, "read"):
                while piece := part.read(READ_BYTES):
                    yield piece
            else:
                yield from part


def form(data: Pairs | None, files: Pairs | None) -> tuple[Any, str]:
    """Give a form's body, and its type."""
    if files is None:
        return encode(data or ()), "application/x-www-form-urlencoded"
    multipart = Multipart(data, files)
    whole = multipart.whole()
    return (multipart if whole is None else whole), multipart.content_type
