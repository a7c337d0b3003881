"""Bodies of requests: what a program may give as one, and what is known of it beforehand."""

from __future__ import annotations

import inspect
import io
from typing import Any

from iokernel.errors import Error

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
    if isinstance(source, io.TextIOBase) or hasattr(source, "encoding"):
        return None
    try:
        here = _settled(source.tell())
        if not isinstance(here, int):
            return None
        end = source.seek(0, io.SEEK_END)
        end = source.tell() if end is None else end  # of mmap
        source.seek(here)
    except (AttributeError, OSError, ValueError):
        return None
    return int(end - here)


def _settled(value: Any) -> Any:
    """Give what a file's method gave; None of an asynchronous one, which is not waited for."""
    if inspect.iscoroutine(value):
        value.close()
    return None if inspect.isawaitable(value) else value


def position(source: Any) -> Any:
    """Give where a body begins, to send it again; None if it can be sent only once."""
    if is_whole(source):
        return 0
    if isinstance(source, Body):
        return source.position()
    try:
        return _settled(source.tell()) if _settled(source.seekable()) else None
    except (AttributeError, OSError, ValueError):
        return None


def is_over(error: Error) -> bool:
    """Whether a part was not taken as its call has ended, whose reply or error tells more; else it
    was refused alone.
    """
    return error.outcome != "never-sent" or error.code in ("IOK_ESTATE", "IOK_ECLOSED")


def rewind(source: Any, where: Any) -> None:
    """Put a body back to where it began."""
    if isinstance(source, Body):
        source.rewind(where)
    elif not is_whole(source):
        source.seek(where)
