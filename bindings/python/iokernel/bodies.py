"""Bodies of requests: what a program may give as one, and what is known of it beforehand."""

from __future__ import annotations

import io
from typing import Any

READ_BYTES = 65536
"""What is asked of a file at a time."""


class Body:
    """An iterable of pieces that knows about itself what others are asked for."""

    def length(self) -> int | None:
        """Tell how many bytes it has, if that is known."""
        raise NotImplementedError

    def position(self) -> Any:
        """Give what rewind() takes; None if it can be sent only once."""
        raise NotImplementedError

    def rewind(self, where: Any) -> None:
        """Put it back to there."""
        raise NotImplementedError


def is_whole(body: Any) -> bool:
    """Whether a body is all there."""
    return body is None or isinstance(body, (str, bytes, bytearray, memoryview))


def length(source: Any) -> int | None:
    """Give how many bytes a body has left, if that is known: of a binary file it is."""
    if isinstance(source, str):
        return len(source.encode())
    if isinstance(source, (bytes, bytearray, memoryview)):
        return memoryview(source).nbytes
    if isinstance(source, Body):
        return source.length()
    if isinstance(source, io.TextIOBase):
        return None
    try:
        here = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(here)
    except (AttributeError, OSError, ValueError):
        return None
    return int(end - here)


def position(source: Any) -> Any:
    """Give where a body begins, to send it again; None if it can be sent only once."""
    if is_whole(source):
        return 0
    if isinstance(source, Body):
        return source.position()
    try:
        return source.tell() if source.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None


def rewind(source: Any, where: Any) -> None:
    """Put a body back to where it began."""
    if isinstance(source, Body):
        source.rewind(where)
    elif not is_whole(source):
        source.seek(where)
