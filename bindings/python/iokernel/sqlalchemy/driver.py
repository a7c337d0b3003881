"""PostgreSQL by PEP 249 as SQLAlchemy's dialect uses it, for plain threads.

iokernel.dbapi.postgresql with statements as the server has them (``$1``), a transaction's
characteristics, and cursors whose rows stay at the server until they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from iokernel import _core, errors
from iokernel.dbapi import postgresql
from iokernel.dbapi.exceptions import (
    DatabaseError,
    DataError,
    Error,
    IntegrityError,
    InterfaceError,
    InternalError,
    NotSupportedError,
    OperationalError,
    ProgrammingError,
    Warning,  # noqa: A004 (the name is PEP 249's)
    translated,
)
from iokernel.postgres_streams import BATCH_ROWS, cursor_name

__all__ = [
    "Binary",
    "DataError",
    "DatabaseError",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Warning",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]

apilevel = postgresql.apilevel
threadsafety = postgresql.threadsafety
paramstyle = "numeric_dollar"
"""``$1``, ``$2`` and so on, with a sequence."""
Binary = postgresql.Binary
__version__ = _core.version

REST_ROWS = 10_000
"""Of a cursor at the server all rows are wished for: so many come in one reply."""


class Connection(postgresql.Connection):
    """A session with the server."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction was begun and has not ended."""
        return self._in_transaction

    def cursor(self, rows: int = 0) -> Cursor:
        """Give a new cursor; with a number of rows one that has no more than these at a time."""
        if self.closed:
            raise InterfaceError("the connection was closed")
        return ServerCursor(self, rows) if rows else Cursor(self)

    def ping(self) -> None:
        """Ask the server for a sign of life; no transaction is begun."""
        with self._lock:
            if self.closed:
                raise InterfaceError("the connection was closed")
            try:
                (reply,) = self._call_many([("SELECT",)])
                if isinstance(reply, BaseException):
                    raise reply
            except errors.Error as error:
                raise translated(error) from error


class Cursor(postgresql.Cursor):
    """Statements with ``$1``, and their results, of which it has the whole."""

    def _words(
        self, operation: str, parameters: Sequence[Any] | Mapping[str, Any] | None
    ) -> tuple[Any, ...]:
        return (operation, *parameters) if parameters else (operation,)

    async def _async_soft_close(self) -> None:
        """Do nothing: on asyncio SQLAlchemy asks for it when the rows are here."""


class ServerCursor(Cursor):
    """A statement whose rows are taken from the server a number at a time, in a transaction."""

    connection: Connection

    def __init__(self, connection: Connection, rows: int = BATCH_ROWS) -> None:
        super().__init__(connection)
        self._batch = rows

    def _clear(self) -> None:
        super()._clear()
        self._name = ""
        self._more = False
        self._buffer: deque[list[Any]] = deque()

    def execute(
        self, operation: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> ServerCursor:
        """Run a statement, and take the first rows."""
        self._check_open()
        self._clear()
        self._name = cursor_name()
        self._ask(self._batch, *self._words(operation, parameters))
        return self

    def _ask(self, count: int, *words: Any) -> None:
        (reply,) = self.connection._ask([(["cursor", self._name, count], *words)])
        if words:
            self._take_reply(reply)
        self._buffer.extend(reply[2])
        self._more = reply[3] is None

    def _take(self, count: int | None) -> list[tuple[Any, ...]]:
        self._check_open()
        if self.description is None:
            raise ProgrammingError("no statement was run that gives rows")
        while self._more and (count is None or len(self._buffer) < count):
            if not self.connection.in_transaction:
                raise ProgrammingError("the cursor ended with its transaction")
            wanted = REST_ROWS if count is None else count - len(self._buffer)
            self._ask(max(wanted, self._batch))
        buffer = self._buffer
        size = len(buffer) if count is None else min(count, len(buffer))
        rows = [tuple(buffer.popleft()) for _ in range(size)]
        self._at += size
        return rows

    def close(self) -> None:
        """Drop what is left, at the server, too. Again is harmless."""
        connection = self.connection
        if self._more and connection.in_transaction and not connection.closed:
            self._more = False
            connection._ask([(["cursor", self._name, 0],)])
        super().close()


def connect(
    service: str | _core.Client = "postgresql://", *, wait: float = 30.0, **options: Any
) -> Connection:
    """Give a connection, as iokernel.dbapi.postgresql.connect() does."""
    made = postgresql.connect(service, wait=wait, **options)
    return Connection(made._client, made._lease, made._timeout)
