"""PostgreSQL for plain threads: queries and transactions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.errors import Error
from iokernel.postgres import (
    Isolation,
    Record,
    begin_statement,
    check_committed,
)
from iokernel.postgres_types import ALL, BY_NAME, BY_OID, Decoders, learn, set_decoder
from iokernel.sync.client import Client, Lease
from iokernel.sync.postgres_streams import Listener, PostgresStreams


class PostgresQueries:
    """The queries that a client and a lease have in common."""

    __slots__ = ()

    if TYPE_CHECKING:

        def call(
            self, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> Any:
            """Run one statement: the SQL text, then its parameters."""

        def fetch(
            self, sql: str, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> list[Record]:
            """Give all rows."""

        def fetchrow(
            self, sql: str, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> Record | None:
            """Give the first row; None if there is none."""

        def fetchval(
            self,
            sql: str,
            *args: Any,
            column: int = 0,
            timeout: float | None = None,
            repeatable: bool | None = None,
        ) -> Any:
            """Give one value of the first row; None if there is no row."""

        def execute(
            self, sql: str, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> str:
            """Run a statement and give its command tag, such as ``"INSERT 0 1"``."""

    else:
        fetch = _core.fetch
        fetchrow = _core.fetchrow
        fetchval = _core.fetchval
        execute = _core.execute


class PostgresLease(PostgresQueries, PostgresStreams, Lease):
    """A connection to PostgreSQL of one's own."""

    __slots__ = ()

    def _places(self) -> tuple[None, PostgresLease]:
        return None, self


class PostgresTransaction:
    """A transaction for the ``with`` block, which gets the lease to run its statements on.

    Leaving the block commits; leaving it by an exception rolls back. If a statement of it failed
    and the exception was caught inside, there is nothing to commit, which is an error.
    """

    __slots__ = ("_begin", "_client", "_lease")

    def __init__(self, client: Postgres, begin: str) -> None:
        self._client = client
        self._begin = begin
        self._lease: PostgresLease | None = None

    def __enter__(self) -> PostgresLease:
        if self._lease is not None:
            raise RuntimeError("the transaction was begun already")
        self._lease = lease = self._client.lease()
        try:
            lease.call(self._begin)
        except BaseException:
            lease.close()
            raise
        return lease

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        lease = self._lease
        assert lease is not None
        try:
            if kind is None:
                check_committed(lease.call("COMMIT"), self._client.url)
            elif issubclass(kind, Exception):
                with contextlib.suppress(Error):
                    lease.call("ROLLBACK")
        finally:
            lease.close()  # in the midst of a statement, the kernel ends the connection


class Postgres(PostgresQueries, PostgresStreams, Client):
    """PostgreSQL, for plain threads; any number of them may use it at once."""

    __slots__ = ()

    def _places(self) -> tuple[Postgres, None]:
        return self, None

    def listen(
        self,
        *channels: str,
        gaps: bool = False,
        notices: Callable[[dict[str, Any]], object] | None = None,
    ) -> Listener:
        """Iterate over notifications; ``gaps=True`` also tells where some were, or may be, missed.

        ``notices`` is called with the fields of each notice that comes on its connection.
        """
        return Listener(self, channels, gaps, notices)

    def lease(self) -> PostgresLease:
        """Give a connection of one's own, for as long as the ``with`` block."""
        return PostgresLease(self)

    def replica(self) -> Postgres:
        """Give a client for reads from standbys, of the same URL and with connections of its own.

        While no standby can be reached, it reads from any host. Keep it, and close it like any
        other: ``with db.replica() as reads``.
        """
        return Postgres(self, mode="sync", replica=True)

    def learn_types(self) -> int:
        """Ask the database for the types that it has of its own, and give how many these are.

        From then on, for this client and its leases: composites come as Record, arrays as list,
        ranges as Range, hstore as Hstore, vector as Vector, instead of text. Again after more
        types were made, or another database was restored.
        """
        return learn(self._learned(), self.fetch(ALL))

    def set_type_codec(self, kind: str | int, *, decoder: Callable[[Any], Any] | None) -> None:
        """Let a function make the values of a type, by its name or OID; None: as without it.

        The function gets what would be given without it (of a type that is not known its text),
        but for NULL, also for each element of an array. It is called for fetch(), fetchrow() and
        fetchval() of this client and its leases. For the other way see iokernel.values.plain.
        """
        query = BY_NAME if isinstance(kind, str) else BY_OID
        set_decoder(self._learned(), kind, decoder, self.fetch(query, kind))

    def _learned(self) -> Decoders:
        assert self._decoders is not None
        return self._decoders

    def transaction(
        self,
        *,
        isolation: Isolation | None = None,
        readonly: bool = False,
        deferrable: bool = False,
    ) -> PostgresTransaction:
        """Run statements as one transaction: ``with db.transaction() as tx``."""
        return PostgresTransaction(self, begin_statement(isolation, readonly, deferrable))
