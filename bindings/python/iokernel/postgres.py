"""What PostgreSQL clients offer beyond ``call()``: records, and exceptions by SQLSTATE; shared by
iokernel.sync and iokernel.asyncio.

``call(sql, *args)`` gives the reply as it is: ``[names, type OIDs, rows, command tag]``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, SupportsIndex, TypeAlias, TypeVar, overload

from iokernel.errors import Rejected, ReplyError
from iokernel.values import (
    Composite,
    Hstore,
    Interval,
    Json,
    Multirange,
    Range,
    Vector,
    composite_text,
    plain,
)

__all__ = [
    "CheckViolation",
    "Composite",
    "DataError",
    "DeadlockDetected",
    "ExclusionViolation",
    "ForeignKeyViolation",
    "Hstore",
    "InFailedTransaction",
    "InsufficientPrivilege",
    "IntegrityError",
    "Interval",
    "Isolation",
    "Json",
    "Multirange",
    "NotNullViolation",
    "OperatorIntervention",
    "PostgresError",
    "QueryCanceled",
    "Range",
    "ReadOnlyTransaction",
    "Record",
    "ResourceError",
    "SQLSyntaxError",
    "SerializationFailure",
    "StatementError",
    "TransactionError",
    "TransactionRollback",
    "UndefinedColumn",
    "UndefinedTable",
    "UniqueViolation",
    "Vector",
]

SCHEMES = ("postgresql", "postgres")
Isolation: TypeAlias = Literal["read committed", "repeatable read", "serializable"]
D = TypeVar("D")

# ---- exceptions ---------------------------------------------------------------------------------


class PostgresError(ReplyError):
    """The server answered with an error; the message is what it said.

    ``sqlstate`` is its code of five characters, such as ``"23505"``; ``fields`` has all that the
    server sent: severity, sqlstate, detail, hint, position (an int, from 1), context, schema,
    table, column, data_type, constraint, file, line, routine. Those that it left out are absent.
    """

    fields: dict[str, Any]

    @property
    def kind(self) -> str:
        """The SQLSTATE."""
        return self.sqlstate

    @property
    def sqlstate(self) -> str:
        """The error's code."""
        return str(self.fields.get("sqlstate", ""))

    @property
    def severity(self) -> str:
        """ERROR, FATAL or PANIC."""
        return str(self.fields.get("severity", ""))

    @property
    def detail(self) -> str | None:
        """More about it."""
        return self.fields.get("detail")

    @property
    def hint(self) -> str | None:
        """What to do about it."""
        return self.fields.get("hint")

    @property
    def position(self) -> int | None:
        """Where in the SQL text, in characters from 1."""
        return self.fields.get("position")


class DataError(PostgresError):
    """Class 22: a value that is not right."""


class IntegrityError(PostgresError):
    """Class 23: a constraint was violated; ``fields`` names it and its table."""


class NotNullViolation(IntegrityError):
    """23502."""


class ForeignKeyViolation(IntegrityError):
    """23503."""


class UniqueViolation(IntegrityError):
    """23505."""


class CheckViolation(IntegrityError):
    """23514."""


class ExclusionViolation(IntegrityError):
    """23P01."""


class TransactionError(PostgresError):
    """Class 25: not possible in the state of the transaction."""


class ReadOnlyTransaction(TransactionError):
    """25006: the server, or the transaction, does not write."""


class InFailedTransaction(TransactionError):
    """25P02: an earlier statement of the transaction failed."""


class TransactionRollback(PostgresError):
    """Class 40: the transaction was rolled back; to run all of it again may succeed."""


class SerializationFailure(TransactionRollback):
    """40001."""


class DeadlockDetected(TransactionRollback):
    """40P01."""


class StatementError(PostgresError):
    """Class 42: the statement cannot be right, or may not be run."""


class InsufficientPrivilege(StatementError):
    """42501."""


class SQLSyntaxError(StatementError):
    """42601."""


class UndefinedColumn(StatementError):
    """42703."""


class UndefinedTable(StatementError):
    """42P01."""


class ResourceError(PostgresError):
    """Class 53: the server lacks memory, disk space or connections."""


class OperatorIntervention(PostgresError):
    """Class 57: cancelled, or the server shuts down."""


class QueryCanceled(OperatorIntervention):
    """57014: by a timeout of the server, or by somebody's wish."""


class _RejectedError(PostgresError, Rejected):
    """The server answered that it did not run the statement."""


# The five characters, or the first two.
_KINDS: dict[str, type[PostgresError]] = {
    "22": DataError,
    "23": IntegrityError,
    "23502": NotNullViolation,
    "23503": ForeignKeyViolation,
    "23505": UniqueViolation,
    "23514": CheckViolation,
    "23P01": ExclusionViolation,
    "25": TransactionError,
    "25006": ReadOnlyTransaction,
    "25P02": InFailedTransaction,
    "40": TransactionRollback,
    "40001": SerializationFailure,
    "40P01": DeadlockDetected,
    "42": StatementError,
    "42501": InsufficientPrivilege,
    "42601": SQLSyntaxError,
    "42703": UndefinedColumn,
    "42P01": UndefinedTable,
    "53": ResourceError,
    "57": OperatorIntervention,
    "57014": QueryCanceled,
}


def make_error(
    outcome: str, text: str, service: str, endpoint: str, fields: dict[str, Any]
) -> PostgresError:
    """Make the exception for an error that the server reports."""
    code = str(fields.get("sqlstate", ""))
    kind = _KINDS.get(code) or _KINDS.get(code[:2]) or PostgresError
    if outcome == "rejected":
        kind = _RejectedError
    error = kind(
        text,
        outcome="rejected" if outcome == "rejected" else "done",
        service=service,
        endpoint=endpoint,
    )
    error.fields = fields
    return error


# ---- records ------------------------------------------------------------------------------------


class Record(tuple[Any, ...]):
    """A row: a tuple whose values are also found by their columns' names, as of a mapping.

    Of columns with the same name the first is found. Iterating gives the values.
    """

    __slots__ = ()
    _index: dict[str, int] = {}
    _names: tuple[str, ...] = ()

    @overload
    def __getitem__(self, key: SupportsIndex | str, /) -> Any: ...
    @overload
    def __getitem__(self, key: slice, /) -> tuple[Any, ...]: ...
    def __getitem__(self, key: Any, /) -> Any:
        """Give the value by its column's number or name."""
        if type(key) is str:
            return tuple.__getitem__(self, self._index[key])
        return tuple.__getitem__(self, key)

    def get(self, name: str, default: D | None = None) -> Any | D | None:
        """Give the value of a column, or the default if there is no such column."""
        at = self._index.get(name)
        return default if at is None else tuple.__getitem__(self, at)

    def keys(self) -> tuple[str, ...]:
        """Give the columns' names."""
        return self._names

    def values(self) -> tuple[Any, ...]:
        """Give the values."""
        return tuple(self)

    def items(self) -> Iterator[tuple[str, Any]]:
        """Give the pairs of names and values."""
        return zip(self._names, self, strict=True)

    def __repr__(self) -> str:
        inside = " ".join(f"{name}={value!r}" for name, value in self.items())
        return f"<Record {inside}>"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self._names, tuple(self)))


plain.register(Record, composite_text)

_CLASSES_MAX = 1024  # then they are made anew: a program with more forms of rows makes them up
_classes: dict[tuple[str, ...], type[Record]] = {}


def record_class(names: tuple[str, ...]) -> type[Record]:
    """Give the class of records with these columns."""
    found = _classes.get(names)
    if found is None:
        index: dict[str, int] = {}
        for at, name in enumerate(names):
            index.setdefault(name, at)
        found = type("Record", (Record,), {"__slots__": (), "_index": index, "_names": names})
        if len(_classes) >= _CLASSES_MAX:
            _classes.clear()
        _classes[names] = found
    return found


def _rebuild(names: tuple[str, ...], values: tuple[Any, ...]) -> Record:
    """Make a record again from its pickle."""
    return record_class(names)(values)


def records(reply: list[Any]) -> list[Record]:
    """Give the rows of a reply."""
    return list(map(record_class(tuple(reply[0])), reply[2]))


def first_record(reply: list[Any]) -> Record | None:
    """Give the first row of a reply."""
    return record_class(tuple(reply[0]))(reply[2][0]) if reply[2] else None


def first_value(reply: list[Any], column: int) -> Any:
    """Give a value of the first row of a reply; None if there is no row."""
    return reply[2][0][column] if reply[2] else None


# ---- transactions -------------------------------------------------------------------------------

_ISOLATIONS = ("read committed", "repeatable read", "serializable")


def begin_statement(isolation: Isolation | None, readonly: bool, deferrable: bool) -> str:
    """Give the statement that begins a transaction."""
    words = ["BEGIN"]
    if isolation is not None:
        if isolation not in _ISOLATIONS:
            raise ValueError(f"isolation must be one of {', '.join(_ISOLATIONS)}")
        words.append(f"ISOLATION LEVEL {isolation.upper()}")
    if readonly:
        words.append("READ ONLY")
    if deferrable:
        words.append("DEFERRABLE")
    return " ".join(words)


def check_committed(reply: list[Any], service: str) -> None:
    """Raise if a COMMIT was answered by ROLLBACK, as it is after a statement failed."""
    if reply[3] == "ROLLBACK":
        raise make_error(
            "done",
            "the transaction was rolled back instead of committed, since a statement in it failed",
            service,
            "",
            {"severity": "ERROR", "sqlstate": "25P02"},
        )
