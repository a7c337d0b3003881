"""What cursors, COPY and LISTEN of PostgreSQL have in common, however a program waits for them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from iokernel.errors import Error, ReplyError

__all__ = ["Notification"]

BATCH_ROWS = 100
"""Rows that a cursor asks for at a time."""
PART_BYTES = 65536
"""Small pieces of a body are put together up to this size; larger ones go as they are."""
RETRY_S_MIN = 0.05
RETRY_S_MAX = 2.0

_numbers = itertools.count(1)


class Notification(NamedTuple):
    """A message of NOTIFY: what was sent, to which channel, by the server process of which number.

    A gap has channel and payload None: the connection was lost, and messages may be missing. One
    of which only the channel is None tells how many were dropped, in ``pid``.
    """

    channel: str | None
    payload: str | None
    pid: int = 0


GAP = Notification(None, None)


def cursor_name() -> str:
    """Give a name that no other cursor of this process has."""
    return f"iok_c{next(_numbers)}"


def check_batch(batch: int) -> int:
    """Refuse what is no number of rows."""
    if not 1 <= batch <= 0x7FFFFFFF:
        raise ValueError("batch must be a number of rows, 1 or more")
    return batch


def quote(name: str) -> str:
    """Give a name as SQL writes it in quotes: any text without NUL is one."""
    if not name or "\0" in name:
        raise ValueError("a name has one character or more, and no NUL")
    return '"' + name.replace('"', '""') + '"'


def quote_table(name: str | tuple[str, ...]) -> str:
    """Give a table's name, or (schema, name), in quotes."""
    return quote(name) if isinstance(name, str) else ".".join(map(quote, name))


def copy_statement(table: str | tuple[str, ...], columns: Iterable[str] | None) -> str:
    """Give the COPY that takes records."""
    names = "" if columns is None else f" ({', '.join(map(quote, columns))})"
    return f"COPY {quote_table(table)}{names} FROM STDIN"


# ---- the text format: https://www.postgresql.org/docs/current/sql-copy.html ----------------------

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_UNESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _element(value: Any) -> str:
    """Give an element of an array's literal."""
    if value is None:
        return "NULL"
    if isinstance(value, (list, tuple)):
        return _plain(value)
    return '"' + _plain(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _plain(value: Any) -> str:
    """Give a value as the server reads it in quotes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, (list, tuple)):
        return "{" + ",".join(map(_element, value)) + "}"
    return str(value)


def encode_record(record: Iterable[Any]) -> bytes:
    """Give a row in COPY's text format."""
    fields = ("\\N" if value is None else _plain(value).translate(_ESCAPES) for value in record)
    return ("\t".join(fields) + "\n").encode()


def _field(text: str) -> str | None:
    if text == "\\N":
        return None
    if "\\" not in text:
        return text
    out: list[str] = []
    parts = iter(text)
    for one in parts:
        out.append(one if one != "\\" else (lambda c: _UNESCAPES.get(c, c))(next(parts)))
    return "".join(out)


def decode_records(lines: Iterable[bytes]) -> Iterator[tuple[str | None, ...]]:
    """Give the rows of whole lines in COPY's text format."""
    for line in lines:
        yield tuple(map(_field, line.decode().split("\t")))


# ---- notifications ------------------------------------------------------------------------------


def notification(message: Any) -> Notification | None:
    """Give the notification in a stream's message; None for a notice."""
    if isinstance(message, int):
        return Notification(None, "dropped", message)
    return Notification(*message[1:4]) if message[0] == "notification" else None


def is_passing(error: Error) -> bool:
    """Whether what was lost may come back by itself: not if we are refused."""
    return not isinstance(error, ReplyError) and error.code not in (
        "IOK_EAUTH",
        "IOK_ETLS",
        "IOK_EFORKED",
        "IOK_ETHREAD",
    )
