"""The exceptions of PEP 249, and which of them an exception of iokernel becomes."""

from __future__ import annotations

import builtins
from typing import Any

from iokernel import errors
from iokernel.postgres import PostgresError

__all__ = [
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
]


class Warning(builtins.Exception):  # noqa: A001 (the name is PEP 249's)
    """Something important that is no error. Never raised: notices of the server are dropped."""


class Error(Exception):
    """The base of all errors.

    ``sqlstate`` is the server's code, such as ``"23505"``, or None if it was not the server that
    said no; ``fields`` what else the server sent, as of iokernel.postgres.PostgresError;
    ``outcome`` what became of the statement, as of iokernel.Error. The exception of iokernel is the
    ``__cause__``.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.sqlstate: str | None = None
        self.outcome = "never-sent"
        self.fields: dict[str, Any] = {}


class InterfaceError(Error):
    """The module was used in a way that cannot be."""


class DatabaseError(Error):
    """Related to the database."""


class DataError(DatabaseError):
    """A value that is not right."""


class OperationalError(DatabaseError):
    """The database's operation, not necessarily under the program's control."""


class IntegrityError(DatabaseError):
    """A constraint was violated."""


class InternalError(DatabaseError):
    """The state of the session or the transaction does not allow it."""


class ProgrammingError(DatabaseError):
    """The statement, or its parameters, cannot be right."""


class NotSupportedError(DatabaseError):
    """The database does not have that."""


# By the first two characters of the SQLSTATE; all others are OperationalError.
_BY_CLASS: dict[str, type[DatabaseError]] = {
    "0A": NotSupportedError,
    "20": ProgrammingError,
    "21": ProgrammingError,
    "22": DataError,
    "23": IntegrityError,
    "24": InternalError,
    "25": InternalError,
    "26": ProgrammingError,
    "2B": InternalError,
    "2D": InternalError,
    "2F": InternalError,
    "38": InternalError,
    "39": InternalError,
    "3B": InternalError,
    "3D": ProgrammingError,
    "3F": ProgrammingError,
    "42": ProgrammingError,
    "44": ProgrammingError,
    "P0": InternalError,
    "XX": InternalError,
}
_BY_KIND: tuple[tuple[type[errors.Error], type[Error]], ...] = (
    (errors.TypeRefused, ProgrammingError),
    (errors.Unsafe, ProgrammingError),
    (errors.WrongThread, InterfaceError),
    (errors.Forked, InterfaceError),
    (errors.DecodeError, DataError),
)


def _kind(error: errors.Error) -> type[Error]:
    if isinstance(error, PostgresError):
        return _BY_CLASS.get(error.sqlstate[:2], OperationalError)
    for ours, theirs in _BY_KIND:
        if isinstance(error, ours):
            return theirs
    return OperationalError


def translated(error: errors.Error) -> Error:
    """Give what PEP 249 calls an error of iokernel; the caller makes that its cause."""
    made = _kind(error)(str(error))
    made.outcome = error.outcome
    if isinstance(error, PostgresError):
        made.sqlstate = error.sqlstate
        made.fields = error.fields
    return made
