"""What a connection's transactions are like, and those in two phases: the part of PEP 249's
connections that is not asking the server.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple, cast, get_args

from iokernel.dbapi.exceptions import InternalError, ProgrammingError
from iokernel.postgres import Isolation, begin_statement

__all__ = ["Transactions", "Xid"]

_ISOLATIONS: tuple[str, ...] = get_args(Isolation)
_FORMAT_MAX = 0x7FFFFFFF  # X/Open XA: a 32-bit number that is not negative
_PART_MAX = 64  # characters of each part, the same


class Xid(NamedTuple):
    """The name of a transaction in two phases.

    One that somebody else named has the format None; then all of its name is the second part.
    """

    format_id: int | None
    global_transaction_id: str
    branch_qualifier: str | None

    @property
    def gid(self) -> str:
        """As the server has it; written as psycopg does, so each can end what the other began."""
        if self.format_id is None:
            return self.global_transaction_id
        parts = (self.global_transaction_id, self.branch_qualifier or "")
        return "_".join([str(self.format_id), *map(_encode, parts)])

    @classmethod
    def of(cls, gid: str) -> Xid:
        """Read what the server has."""
        try:
            number, first, second = gid.split("_")
            xid = cls(int(number), _decode(first), _decode(second))
        except (ValueError, binascii.Error):
            return cls(None, gid, None)
        return xid if xid.gid == gid else cls(None, gid, None)


def _encode(text: str) -> str:
    return base64.b64encode(text.encode()).decode("ascii")


def _decode(text: str) -> str:
    return base64.b64decode(text, validate=True).decode()


def _quoted(xid: Any) -> str:
    if not isinstance(xid, Xid):
        raise ProgrammingError("a transaction's name has to come from xid() or tpc_recover()")
    return "'" + xid.gid.replace("'", "''") + "'"


class Transactions:
    """Of a Connection."""

    _in_transaction: bool
    _autocommit: bool

    def __init__(self) -> None:
        self._isolation_level: Isolation | None = None
        self._readonly = False
        self._deferrable = False
        self._xid: Xid | None = None
        self._prepared = False

    def _ask(self, commands: list[tuple[Any, ...]], *, outside: bool = False) -> list[list[Any]]:
        raise NotImplementedError

    def _end(self, sql: str) -> None:
        raise NotImplementedError

    def _check_open(self) -> None:
        raise NotImplementedError

    def _check_idle(self, what: str) -> None:
        self._check_open()
        if self._in_transaction or self._xid is not None:
            raise ProgrammingError(f"{what}: not within a transaction")

    def _check_unprepared(self) -> None:
        if self._prepared:
            raise ProgrammingError("prepared: tpc_commit() or tpc_rollback() has to come first")

    def _begin(self) -> str:
        """Give the statement that begins a transaction."""
        return begin_statement(self._isolation_level, self._readonly, self._deferrable)

    # ---- attributes -----------------------------------------------------------------------------

    @property
    def autocommit(self) -> bool:
        """Whether each statement is a transaction of its own. Not to be set within one."""
        return self._autocommit

    @autocommit.setter
    def autocommit(self, value: bool) -> None:
        self._check_idle("autocommit")
        self._autocommit = bool(value)

    @property
    def isolation_level(self) -> Isolation | None:
        """``"serializable"`` and so on, of the transactions from now on; None: the server's."""
        return self._isolation_level

    @isolation_level.setter
    def isolation_level(self, value: str | None) -> None:
        level = None if value is None else str(value).lower().replace("_", " ")
        if level is not None and level not in _ISOLATIONS:
            raise ProgrammingError(f"isolation_level is None or one of {', '.join(_ISOLATIONS)}")
        self._check_idle("isolation_level")
        self._isolation_level = cast("Isolation | None", level)

    @property
    def readonly(self) -> bool:
        """Whether the transactions from now on may not write."""
        return self._readonly

    @readonly.setter
    def readonly(self, value: bool) -> None:
        self._check_idle("readonly")
        self._readonly = bool(value)

    @property
    def deferrable(self) -> bool:
        """Whether a serializable, read-only one waits until it cannot fail, nor make others."""
        return self._deferrable

    @deferrable.setter
    def deferrable(self, value: bool) -> None:
        self._check_idle("deferrable")
        self._deferrable = bool(value)

    # ---- the usual ends -------------------------------------------------------------------------

    def commit(self) -> None:
        """Commit the transaction; without one nothing is done.

        If a statement of it failed there is nothing to commit: it is rolled back, and an error.
        """
        self._check_one_phase()
        self._end("COMMIT")

    def rollback(self) -> None:
        """Undo what was done in the transaction; without one nothing is done."""
        self._check_one_phase()
        self._end("ROLLBACK")

    def _check_one_phase(self) -> None:
        if self._xid is not None:
            raise ProgrammingError("within tpc_begin(): use tpc_commit() or tpc_rollback()")

    # ---- in two phases --------------------------------------------------------------------------

    def xid(self, format_id: int, global_transaction_id: str, branch_qualifier: str) -> Xid:
        """Give a name for a transaction: a number, and two texts of up to 64 characters."""
        if not 0 <= format_id <= _FORMAT_MAX:
            raise ProgrammingError(f"format_id is 0 to {_FORMAT_MAX}")
        for part in (global_transaction_id, branch_qualifier):
            if len(part) > _PART_MAX or not part.isascii() or not part.isprintable():
                raise ProgrammingError(
                    f"a part of a transaction's name has up to {_PART_MAX} printable characters"
                )
        return Xid(format_id, global_transaction_id, branch_qualifier)

    def tpc_begin(self, xid: Xid) -> None:
        """Begin a transaction that is to end in two phases."""
        _quoted(xid)
        self._check_idle("tpc_begin()")
        self._ask([(self._begin(),)], outside=True)
        self._xid = xid

    def tpc_prepare(self) -> None:
        """Do the first phase: from then on the server keeps the transaction, whatever comes."""
        self._check_open()
        if self._xid is None or self._prepared:
            raise ProgrammingError("tpc_prepare() goes behind tpc_begin(), and once")
        reply = self._ask([(f"PREPARE TRANSACTION {_quoted(self._xid)}",)])[0]
        if reply[3] == "ROLLBACK":
            self._xid = None
            raise InternalError("rolled back instead of prepared, since a statement failed")
        self._prepared = True

    def tpc_commit(self, xid: Xid | None = None) -> None:
        """Commit what was prepared, or all at once; or, by its name, what was left over."""
        self._tpc_end("COMMIT", xid)

    def tpc_rollback(self, xid: Xid | None = None) -> None:
        """Undo it, prepared or not; or, by its name, what was left over."""
        self._tpc_end("ROLLBACK", xid)

    def _tpc_end(self, how: str, xid: Xid | None) -> None:
        self._check_open()
        if xid is not None:
            name = _quoted(xid)
            self._check_idle(f"tpc_{how.lower()}() with a name")
            self._ask([(f"{how} PREPARED {name}",)], outside=True)
            return
        if self._xid is None:
            raise ProgrammingError(f"tpc_{how.lower()}() goes behind tpc_begin()")
        name, prepared = _quoted(self._xid), self._prepared
        self._xid, self._prepared = None, False  # if this fails, its name can still be used
        if prepared:
            self._ask([(f"{how} PREPARED {name}",)], outside=True)
        else:
            self._end(how)

    def tpc_recover(self) -> list[Xid]:
        """Give the names of all that are prepared in this database, by whomever."""
        self._check_open()
        sql = (
            "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() "
            "ORDER BY prepared"
        )
        (reply,) = self._ask([(sql,)], outside=True)
        return [Xid.of(row[0]) for row in reply[2]]
