"""What PostgreSQL clients offer beyond ``call()``: records, and exceptions by SQLSTATE; shared by
iokernel.sync and iokernel.asyncio.

``call(sql, *args)`` gives the reply as it is: ``[names, type OIDs, rows, command tag]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from iokernel._core import Record
from iokernel._core import records as make_records
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
Isolation: TypeAlias = Literal[
    "read uncommitted", "read committed", "repeatable read", "serializable"
]

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


class _RejectedReadOnlyError(ReadOnlyTransaction, Rejected):
    """The same, as no host writes although the URL's wish is one that does."""


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
        kind = _RejectedReadOnlyError if kind is ReadOnlyTransaction else _RejectedError
    error = kind(
        text,
        outcome="rejected" if outcome == "rejected" else "done",
        service=service,
        endpoint=endpoint,
    )
    error.fields = fields
    return error


# ---- records ------------------------------------------------------------------------------------


plain.register(Record, composite_text)


def records(
    reply: list[Any], decoders: Mapping[int, Callable[[Any], Any]] | None = None
) -> list[Record]:
    """Give the rows of a reply of call(), with a client's decoders as fetch() has them."""
    names, types, rows, _ = reply
    makers = [decoders.get(oid) for oid in types] if decoders else []
    if any(makers):
        rows = [
            [
                value if make is None or value is None else make(value)
                for make, value in zip(makers, row, strict=True)
            ]
            for row in rows
        ]
    return make_records(names, rows)


# ---- transactions -------------------------------------------------------------------------------

_ISOLATIONS = ("read uncommitted", "read committed", "repeatable read", "serializable")


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
