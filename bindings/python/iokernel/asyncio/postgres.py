"""PostgreSQL for asyncio: queries and transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from iokernel import _core
from iokernel._core import Reply
from iokernel.asyncio.client import Client, Lease, finish
from iokernel.asyncio.postgres_streams import Cursor, Listener, PostgresStreams
from iokernel.postgres import (
    Isolation,
    Record,
)
from iokernel.postgres_prepared import Column, Parameter, describe
from iokernel.postgres_steps import (
    TransactionSteps,
    execute_many,
    innermost,
    run_transaction,
)
from iokernel.postgres_streams import BATCH_ROWS
from iokernel.postgres_types import ALL, BY_NAME, BY_OID, Decoders, learn, set_decoder

T = TypeVar("T")


class PostgresQueries:
    """The queries that a client and a lease have in common."""

    __slots__ = ()

    if TYPE_CHECKING:

        def _places(self) -> tuple[Postgres | None, PostgresLease | None]:
            """Whose it is: a client's or a lease's; the other one is None."""

        def call(
            self, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> Reply[Any]:
            """Run one statement: the SQL text, then its parameters."""

        def call_many(
            self, commands: Sequence[tuple[Any, ...]], *, timeout: float | None = None
        ) -> list[Reply[Any]]:
            """Run many at once, each given as a tuple."""

        def fetch(
            self, sql: str, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> Reply[list[Record]]:
            """Give all rows."""

        def fetchrow(
            self, sql: str, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> Reply[Record | None]:
            """Give the first row; None if there is none."""

        def fetchval(
            self,
            sql: str,
            *args: Any,
            column: int = 0,
            timeout: float | None = None,
            repeatable: bool | None = None,
        ) -> Reply[Any]:
            """Give one value of the first row; None if there is no row."""

        def execute(
            self, sql: str, *args: Any, timeout: float | None = None, repeatable: bool | None = None
        ) -> Reply[str]:
            """Run a statement and give its command tag, such as ``"INSERT 0 1"``."""

    else:
        fetch = _core.fetch
        fetchrow = _core.fetchrow
        fetchval = _core.fetchval
        execute = _core.execute

    async def _call_all(self, commands: list[tuple[Any, ...]], timeout: float | None) -> list[Any]:
        """Give the replies; a failed one's exception stands in its place."""
        replies = self.call_many(commands, timeout=timeout)
        return await asyncio.gather(*replies, return_exceptions=True)

    async def prepare(self, sql: str, *, timeout: float | None = None) -> Prepared:
        """Let the server check a statement, and tell what it takes and gives; it does not run.

        What is wrong with it is raised here. ``timeout`` is for each of the two questions.
        """
        client, lease = self._places()
        on = client or lease
        assert on is not None
        return Prepared(on, sql, *await finish(describe(on, sql, timeout)))

    async def executemany(
        self, sql: str, rows: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run a statement for each row of parameters, 512 at a time without waiting in between.

        Each row is a statement of its own, with its own timeout: when one fails, those before it
        and some after it have been run. Its exception is raised and has its number, from 0, as
        ``row``. In a transaction all of them are undone, and only there, or on a lease, are they
        run in their order.
        """
        await finish(execute_many(self, sql, rows, timeout))


class Prepared:
    """A statement that was checked by the server: what it takes and gives, and ways to run it.

    It runs where it was prepared: on the client, or on the lease. Each connection that it comes to
    prepares it for itself, as it does with any statement, so it needs no closing, and outlives a
    lost connection.
    """

    __slots__ = ("_on", "columns", "parameters", "sql")

    def __init__(
        self,
        on: Postgres | PostgresLease,
        sql: str,
        parameters: tuple[Parameter, ...],
        columns: tuple[Column, ...],
    ) -> None:
        self._on = on
        self.sql = sql
        self.parameters = parameters
        self.columns = columns

    def fetch(
        self, *args: Any, timeout: float | None = None, repeatable: bool | None = None
    ) -> Reply[list[Record]]:
        """Give all rows."""
        return self._on.fetch(self.sql, *args, timeout=timeout, repeatable=repeatable)

    def fetchrow(
        self, *args: Any, timeout: float | None = None, repeatable: bool | None = None
    ) -> Reply[Record | None]:
        """Give the first row; None if there is none."""
        return self._on.fetchrow(self.sql, *args, timeout=timeout, repeatable=repeatable)

    def fetchval(
        self,
        *args: Any,
        column: int = 0,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> Reply[Any]:
        """Give one value of the first row; None if there is no row."""
        return self._on.fetchval(
            self.sql, *args, column=column, timeout=timeout, repeatable=repeatable
        )

    def execute(
        self, *args: Any, timeout: float | None = None, repeatable: bool | None = None
    ) -> Reply[str]:
        """Run it and give its command tag."""
        return self._on.execute(self.sql, *args, timeout=timeout, repeatable=repeatable)

    async def executemany(
        self, rows: Iterable[Sequence[Any]], *, timeout: float | None = None
    ) -> None:
        """Run it for each row of parameters, as executemany() of the client does."""
        await self._on.executemany(self.sql, rows, timeout=timeout)

    def cursor(self, *args: Any, batch: int = BATCH_ROWS) -> Cursor:
        """Iterate over rows in batches; on a lease within a transaction."""
        return self._on.cursor(self.sql, *args, batch=batch)


class PostgresTransaction(TransactionSteps):
    """A transaction for the ``async with`` block, which gets the lease to run its statements on.

    Leaving the block commits; leaving it by an exception rolls back. If a statement of it failed
    and the exception was caught inside, there is nothing to commit, which is an error.

    Made by a lease that is in a transaction already, it is a savepoint: rolling back undoes what
    was done since.

    Without a block: ``tx = await transaction.start()``, and ``commit()`` or ``rollback()``. Within
    one these end the transaction early.
    """

    __slots__ = ()

    async def start(self) -> PostgresLease:
        """Begin it, and give the lease."""
        lease: PostgresLease = await finish(self._start())
        return lease

    async def commit(self) -> None:
        """End it for good; of a savepoint: let what was done stay in its transaction."""
        await finish(self._commit())

    async def rollback(self) -> None:
        """End it and undo what was done in it."""
        await finish(self._rollback())

    async def __aenter__(self) -> PostgresLease:
        return await self.start()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await finish(self._leave(error))


class PostgresLease(PostgresQueries, PostgresStreams, Lease):
    """A connection to PostgreSQL of one's own."""

    __slots__ = ("_open",)

    def __init__(self, client: Client) -> None:
        self._open: list[PostgresTransaction] = []  # the innermost last

    def transaction(
        self,
        *,
        isolation: Isolation | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        timeout: float | None = None,
    ) -> PostgresTransaction:
        """Run statements as one transaction on this lease; within one, from a savepoint on."""
        return PostgresTransaction(self, True, isolation, readonly, deferrable, timeout)

    async def commit(self) -> None:
        """Commit the transaction that was begun last by ``transaction()``, and is open."""
        await finish(innermost(self)._commit())

    async def rollback(self) -> None:
        """Roll it back."""
        await finish(innermost(self)._rollback())

    def _places(self) -> tuple[None, PostgresLease]:
        return None, self


class Postgres(PostgresQueries, PostgresStreams, Client):
    """PostgreSQL, for asyncio."""

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
        """Give a connection of one's own, for as long as the ``async with`` block."""
        return PostgresLease(self)

    def replica(self) -> Postgres:
        """Give a client for reads from standbys, of the same URL and with connections of its own.

        While no standby can be reached, it reads from any host. Keep it, and close it like any
        other: ``async with db.replica() as reads``.
        """
        return Postgres(self, mode="asyncio", replica=True)

    async def learn_types(self) -> int:
        """Ask the database for the types that it has of its own, and give how many these are.

        From then on, for this client and its leases: composites come as Record, arrays as list,
        ranges as Range, hstore as Hstore, vector as Vector, instead of text. Again after more
        types were made, or another database was restored.
        """
        return learn(self._learned(), await self.fetch(ALL))

    async def set_type_codec(
        self, kind: str | int, *, decoder: Callable[[Any], Any] | None
    ) -> None:
        """Let a function make the values of a type, by its name or OID; None: as without it.

        The function gets what would be given without it (of a type that is not known its text),
        but for NULL, also for each element of an array. It is called for fetch(), fetchrow() and
        fetchval() of this client and its leases. For the other way see iokernel.values.plain.
        """
        query = BY_NAME if isinstance(kind, str) else BY_OID
        set_decoder(self._learned(), kind, decoder, await self.fetch(query, kind))

    def _learned(self) -> Decoders:
        assert self._decoders is not None
        return self._decoders

    def transaction(
        self,
        *,
        isolation: Isolation | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        timeout: float | None = None,
    ) -> PostgresTransaction:
        """Run statements as one transaction: ``async with db.transaction() as tx``.

        The timeout is for its beginning: that is where it waits its turn when all leases are taken.
        """
        return PostgresTransaction(self, False, isolation, readonly, deferrable, timeout)

    async def run_transaction(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        attempts: int = 5,
        isolation: Isolation | None = None,
        readonly: bool = False,
        deferrable: bool = False,
        timeout: float | None = None,
    ) -> T:
        """Call ``function(tx, *args)`` in a transaction, commit, and give what it returned.

        When the server ends the transaction because it collided with others (SerializationFailure,
        DeadlockDetected), it is rolled back and all is done again after a pause, up to so many
        attempts. So the function must do nothing outside the transaction that must not be repeated.
        """

        def begin() -> PostgresTransaction:
            return self.transaction(
                isolation=isolation, readonly=readonly, deferrable=deferrable, timeout=timeout
            )

        value: T = await finish(run_transaction(begin, function, args, attempts, asyncio.sleep))
        return value
