"""PostgreSQL by the Python Database API 2.0 (PEP 249), for plain threads.

>>> from iokernel.dbapi import postgresql
>>> connection = postgresql.connect("postgresql://app@db.internal/orders")
>>> cursor = connection.cursor()
>>> cursor.execute("SELECT total FROM orders WHERE id = %s", (7,))

A connection is a lease: a session of one's own, in which settings and temporary tables stay. All
connections of a URL share a client, so one that is closed is made clean and used again.

Invariant: a connection's lock is held while it asks the server, since threads may share it.
"""

from __future__ import annotations

import datetime
import math
import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from iokernel import _core, errors
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
from iokernel.dbapi.placeholders import first_words, native
from iokernel.dbapi.plans import Plans
from iokernel.dbapi.transactions import Transactions, Xid
from iokernel.postgres_steps import ROWS_AT_ONCE
from iokernel.sync import Postgres

__all__ = [
    "BINARY",
    "DATETIME",
    "NUMBER",
    "ROWID",
    "STRING",
    "Binary",
    "Connection",
    "Cursor",
    "DataError",
    "DatabaseError",
    "Date",
    "DateFromTicks",
    "Error",
    "IntegrityError",
    "InterfaceError",
    "InternalError",
    "NotSupportedError",
    "OperationalError",
    "ProgrammingError",
    "Time",
    "TimeFromTicks",
    "Timestamp",
    "TimestampFromTicks",
    "Warning",
    "Xid",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]

apilevel = "2.0"
threadsafety = 2
"""Threads may share the module and connections, but not cursors."""
paramstyle = "pyformat"
"""``%(name)s`` with a mapping; and ``%s`` with a sequence."""

# ---- types --------------------------------------------------------------------------------------


class TypeObject:
    """Equal to the OIDs of its types, which ``Cursor.description`` gives."""

    def __init__(self, name: str, *oids: int) -> None:
        self.name = name
        self.oids = frozenset(oids)

    def __eq__(self, other: object) -> bool:
        return other is self or (isinstance(other, int) and self._has(other))

    def _has(self, oid: int) -> bool:
        return oid in self.oids

    def __hash__(self) -> int:
        return hash(self.oids)

    def __repr__(self) -> str:
        return self.name


class Rest(TypeObject):
    """Equal to all other OIDs: whatever its type, the server writes it as text."""

    def _has(self, oid: int) -> bool:
        return oid not in self.oids


BINARY = TypeObject("BINARY", 17)
NUMBER = TypeObject("NUMBER", 16, 20, 21, 23, 700, 701, 790, 1700)  # with boolean and money
DATETIME = TypeObject("DATETIME", 1082, 1083, 1114, 1184, 1186, 1266)  # with interval
ROWID = TypeObject("ROWID", 26)
STRING = Rest("STRING", *BINARY.oids, *NUMBER.oids, *DATETIME.oids, *ROWID.oids)

Date = datetime.date
Time = datetime.time
Timestamp = datetime.datetime
Binary = bytes


def DateFromTicks(ticks: float) -> datetime.date:  # noqa: N802 (PEP 249's names)
    """Give the local date of a moment in seconds since 1970."""
    return datetime.date(*time.localtime(ticks)[:3])


def TimeFromTicks(ticks: float) -> datetime.time:  # noqa: N802
    """Give the local time of day."""
    return datetime.time(*time.localtime(ticks)[3:6])


def TimestampFromTicks(ticks: float) -> datetime.datetime:  # noqa: N802
    """Give both."""
    return datetime.datetime(*time.localtime(ticks)[:6])


# ---- connections --------------------------------------------------------------------------------

# The URL's client lives as long as one of its connections does.
_clients: weakref.WeakValueDictionary[str, Postgres] = weakref.WeakValueDictionary()
_clients_lock = threading.Lock()


def _client_of(url: str) -> Postgres:
    with _clients_lock:
        client = _clients.get(url)
        if client is None or client.closed:
            try:
                client = _clients[url] = Postgres(url)
            except errors.URLError as error:
                raise InterfaceError(str(error)) from error
        return client


def _with_options(url: str, options: dict[str, object]) -> str:
    """Give the URL with these options, too; those that are None are left out."""
    given = {name: str(value) for name, value in options.items() if value is not None}
    if "database" in given:
        given["dbname"] = given.pop("database")
    if not given:
        return url
    return url + ("&" if "?" in url else "?") + urlencode(given, quote_via=quote)


def connect(
    dsn: str | _core.Client = "postgresql://",
    user: str | None = None,
    password: str | None = None,
    host: str | None = None,
    database: str | None = None,
    *,
    wait: float = 30.0,
    **options: object,
) -> Connection:
    """Give a connection to the service of a URL (docs/urls.md), or of a client of iokernel.

    Options may also be given by name, such as ``host``, ``port``, ``user``, ``password`` and
    ``dbname`` (or ``database``); one that the URL has already is an error.

    It waits so many seconds until one is free (``leases=`` in the URL is the limit). Statements
    have the deadline that ``timeout=`` in the URL says, and without that none.
    """
    named = {"user": user, "password": password, "host": host, "database": database}
    options |= {name: value for name, value in named.items() if value is not None}
    try:
        client, timeout = find(dsn, options)
        lease = _core.Lease(client, roams=True)
        try:
            lease.call("SELECT", timeout=wait)
        except BaseException:
            lease.close()
            raise
    except errors.Error as error:
        raise translated(error) from error
    return Connection(client, lease, timeout)


def find(service: str | _core.Client, options: dict[str, object]) -> tuple[Postgres, float | None]:
    """Give the client of what connect() was given, and the deadline of its statements."""
    if not isinstance(service, str):
        if options:
            raise InterfaceError("options go with a URL, not with a client that is there already")
        return Postgres(service), None
    service = _with_options(service, options)
    has_deadline = re.search(r"(?:^|&)timeout=", urlsplit(service).query) is not None
    return _client_of(service), None if has_deadline else math.inf


class Connection(Transactions):
    """A session with the server, and its transactions: the first statement begins one."""

    Warning = Warning
    Error = Error
    InterfaceError = InterfaceError
    DatabaseError = DatabaseError
    DataError = DataError
    OperationalError = OperationalError
    IntegrityError = IntegrityError
    InternalError = InternalError
    ProgrammingError = ProgrammingError
    NotSupportedError = NotSupportedError

    def __init__(self, client: Postgres, lease: _core.Lease, timeout: float | None) -> None:
        super().__init__()
        self._client = client
        self._lease = lease
        self._timeout = timeout
        self._lock = threading.RLock()
        self._autocommit = False
        self._in_transaction = False
        self._plans = Plans()

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._lease.closed

    def _check_open(self) -> None:
        if self.closed:
            raise InterfaceError("the connection was closed")

    def _ask(self, commands: list[tuple[Any, ...]], *, outside: bool = False) -> list[list[Any]]:
        """Run statements at once, in a transaction or outside; the first error is raised."""
        with self._lock:
            self._check_open()
            self._check_unprepared()
            begin = not (outside or self._autocommit or self._in_transaction)
            try:
                # Once sent, BEGIN may have been run, so a rollback is due whatever comes of it.
                self._in_transaction |= begin
                replies = self._run(commands, begin)
                for reply in replies:
                    if isinstance(reply, BaseException):
                        raise reply
                del replies[: int(begin)]
            except errors.Error as error:
                raise translated(error) from error
            for command, reply in zip(commands, replies, strict=True):
                self._note(command[0], reply[3])
            return replies

    def _run(self, commands: list[tuple[Any, ...]], begin: bool) -> list[Any]:
        """Send statements at once, BEGIN before them; a reply, or an exception, for each."""
        sent = [(self._begin(),), *commands] if begin else commands
        if self._plans.renew():
            replies = self._call_many([("DEALLOCATE ALL",), *sent])[1:]
        else:
            replies = self._call_many(sent)
        # The plan of a statement that was prepared earlier is out of date. If nothing but these was
        # done in the transaction, they can be run once more; the plan is made anew then.
        if any(isinstance(reply, errors.Rejected) for reply in replies):
            if begin:
                replies = self._call_many([("ROLLBACK",), *sent])[1:]
            elif not self._in_transaction and len(commands) == 1:
                replies = self._call_many(commands)
        return replies

    def _call_many(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        return self._lease.call_many(commands, timeout=self._timeout)

    def _note(self, sql: Any, tag: str | None) -> None:
        """See what a statement of the program's does to the transaction, and to tables."""
        if tag in ("BEGIN", "START TRANSACTION"):
            self._in_transaction = True
        elif tag in ("COMMIT", "PREPARE TRANSACTION"):
            self._ended(undone=False)
        elif tag == "ROLLBACK" and "TO" in first_words(sql, 3):
            self._in_transaction = True
            self._plans.undone()
        elif tag == "ROLLBACK":
            self._ended(undone=True)
        elif tag is not None:
            self._plans.note(tag)

    def _ended(self, undone: bool) -> None:
        self._in_transaction = False
        self._plans.ended(undone)

    def _end(self, sql: str) -> None:
        with self._lock:
            self._check_open()
            if not self._in_transaction:
                return
            try:
                (reply,) = self._call_many([(sql,)])
                if isinstance(reply, BaseException):
                    raise reply
            except errors.Error as error:
                if sql == "COMMIT":  # a failed one has rolled back
                    self._ended(undone=True)
                raise translated(error) from error
            self._ended(undone=reply[3] == "ROLLBACK")
            if reply[3] != sql:
                raise InternalError("rolled back instead of committed, since a statement failed")

    def cursor(self) -> Cursor:
        """Give a new cursor."""
        self._check_open()
        return Cursor(self)

    def close(self) -> None:
        """Give the connection back, rolled back and clean for the next. Again is harmless."""
        with self._lock:
            self._lease.close()
            self._plans.ended(undone=True)

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None and not self.closed:
                self.commit()
        finally:
            self.close()


# ---- cursors ------------------------------------------------------------------------------------

_COUNT = re.compile(r"(?:INSERT \d+|SELECT|UPDATE|DELETE|MERGE|FETCH|MOVE|COPY) (\d+)")
Column = tuple[str, int, None, None, None, None, None]


def _rows_of(tag: str) -> int:
    found = _COUNT.fullmatch(tag)
    return int(found[1]) if found else -1


class Cursor:
    """Statements and their results, of which it has the whole."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.arraysize = 1
        self.lastrowid = None  # PostgreSQL: use RETURNING
        self.closed = False
        self._clear()

    def _clear(self) -> None:
        self.description: list[Column] | None = None
        self.rowcount = -1
        self._rows: list[list[Any]] = []
        self._at = 0

    def _check_open(self) -> None:
        if self.closed or self.connection.closed:
            raise InterfaceError(f"the {'cursor' if self.closed else 'connection'} was closed")

    def execute(
        self, operation: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> Cursor:
        """Run a statement. Without parameters its percent signs are as they are."""
        self._check_open()
        self._clear()
        (reply,) = self.connection._ask([self._words(operation, parameters)])
        self._take_reply(reply)
        return self

    def _words(
        self, operation: str, parameters: Sequence[Any] | Mapping[str, Any] | None
    ) -> tuple[Any, ...]:
        """Give the words of a call."""
        return native(operation, parameters)

    def _take_reply(self, reply: list[Any]) -> None:
        names, types, self._rows, tag = reply
        if names:
            self.description = [
                (name, oid, None, None, None, None, None)
                for name, oid in zip(names, types, strict=True)
            ]
        self.rowcount = -1 if tag is None else _rows_of(tag)

    def executemany(
        self, operation: str, seq_of_parameters: Sequence[Sequence[Any] | Mapping[str, Any]]
    ) -> Cursor:
        """Run a statement for each set of parameters; many are under way at a time."""
        self._check_open()
        self._clear()
        commands = [self._words(operation, parameters) for parameters in seq_of_parameters]
        counts = [0]
        for at in range(0, len(commands), ROWS_AT_ONCE):
            for reply in self.connection._ask(commands[at : at + ROWS_AT_ONCE]):
                counts.append(_rows_of(reply[3]))
        self.rowcount = -1 if min(counts) < 0 else sum(counts)
        return self

    def callproc(self, procname: str, parameters: Sequence[Any] = ()) -> Sequence[Any]:
        """Call a function; what it gives is fetched as rows. Gives the parameters as they were."""
        marks = ", ".join(["%s"] * len(parameters))
        name = ".".join('"' + part.replace('"', '""') + '"' for part in procname.split("."))
        self.execute(f"SELECT * FROM {name.replace('%', '%%')}({marks})", parameters)
        return parameters

    def _take(self, count: int | None) -> list[tuple[Any, ...]]:
        self._check_open()
        if self.description is None:
            raise ProgrammingError("no statement was run that gives rows")
        end = len(self._rows) if count is None else self._at + count
        rows = [tuple(row) for row in self._rows[self._at : end]]
        self._at += len(rows)
        return rows

    def fetchone(self) -> tuple[Any, ...] | None:
        """Give the next row, None if there is no more."""
        rows = self._take(1)
        return rows[0] if rows else None

    def fetchmany(self, size: int | None = None) -> list[tuple[Any, ...]]:
        """Give so many rows, or ``arraysize``; fewer at the end."""
        return self._take(self.arraysize if size is None else size)

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Give all rows that are left."""
        return self._take(None)

    def nextset(self) -> None:
        """Drop the rows that are left: a statement has one result, so there is never another."""
        self._check_open()
        if self.description is None:
            raise ProgrammingError("no statement was run that gives rows")
        self._clear()

    def scroll(self, value: int, mode: str = "relative") -> None:
        """Go so many rows on, or back, or to a row's number; beyond the rows: IndexError."""
        self._check_open()
        if self.description is None:
            raise ProgrammingError("no statement was run that gives rows")
        if mode not in ("relative", "absolute"):
            raise ProgrammingError("mode is relative or absolute")
        at = value + (self._at if mode == "relative" else 0)
        if not 0 <= at < max(1, len(self._rows)):
            raise IndexError(f"row {at} of {len(self._rows)}")
        self._at = at

    @property
    def rownumber(self) -> int | None:
        """The number of the next row, from 0; None without a result."""
        return None if self.description is None else self._at

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return self

    def __next__(self) -> tuple[Any, ...]:
        row = self.fetchone()
        if row is None:
            raise StopIteration
        return row

    def setinputsizes(self, sizes: Sequence[Any]) -> None:
        """Do nothing, as PEP 249 allows: the server knows its parameters' types."""
        self._check_open()

    def setoutputsize(self, size: int, column: int | None = None) -> None:
        """Do nothing: columns come whole."""
        self._check_open()

    def close(self) -> None:
        """Drop the result. Again is harmless."""
        self._clear()
        self.closed = True

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
