"""What transactions, savepoints and batches do, step by step, for plain threads and asyncio alike.

A step yields what a call gave and gets its value: on threads that is the value itself, on asyncio
an awaitable that iokernel.asyncio.postgres waits for. So the logic is written once, here, and the
two packages have only the forms that their programs see.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any, TypeAlias, TypeVar

from iokernel.errors import Error, Rejected, Timeout
from iokernel.postgres import (
    DeadlockDetected,
    Isolation,
    PostgresError,
    SerializationFailure,
    begin_statement,
    check_committed,
)

T = TypeVar("T")
Steps: TypeAlias = Generator[Any, Any, T]

ROWS_AT_ONCE = 512
"""Of executemany: so many are under way at a time; at 1 ms of distance that is 500,000 a second."""

PAUSE_MIN_S = 0.01
PAUSE_MAX_S = 1.0

# The server has rolled all back, and says that the same again may succeed. (Rejected: the plan of a
# prepared statement was out of date, within a transaction.)
RETRIED = (SerializationFailure, DeadlockDetected, Rejected)


def pause(attempt: int) -> float:
    """Give how long to wait after a failed attempt, by chance: two that collided must not again."""
    return random.uniform(0, min(PAUSE_MAX_S, PAUSE_MIN_S * 2.0**attempt))


class TransactionSteps:
    """A transaction, or within one a savepoint, from its beginning to its end.

    Invariant: ``_lease`` is there from the beginning to the end, and then the last of the lease's
    ``_open`` is the innermost.
    """

    __slots__ = ("_begin", "_lease", "_on_lease", "_owner", "_savepoint", "_timeout", "_used")

    def __init__(
        self,
        owner: Any,
        on_lease: bool,
        isolation: Isolation | None,
        readonly: bool,
        deferrable: bool,
        timeout: float | None,
    ) -> None:
        self._begin = begin_statement(isolation, readonly, deferrable)
        self._owner = owner  # the lease to run it on, or the client to take one from
        self._on_lease = on_lease
        self._timeout = timeout
        self._lease: Any = None
        self._savepoint = ""
        self._used = False

    @property
    def active(self) -> bool:
        """Whether it has begun and not ended."""
        return self._lease is not None

    def _start(self) -> Steps[Any]:
        if self._used:
            raise RuntimeError("the transaction was begun already")
        self._used = True
        begin = self._begin
        lease = self._owner
        if not self._on_lease:
            lease = self._owner.lease()
        elif lease._open:
            if begin != "BEGIN":
                raise ValueError("isolation, readonly and deferrable are for the outermost")
            self._savepoint = f"iok_{len(lease._open)}"
            begin = f"SAVEPOINT {self._savepoint}"
        try:
            yield lease.call(begin, timeout=self._timeout)
        except PostgresError:
            if not self._on_lease:
                lease.close()
            raise
        except BaseException:
            lease.close()  # whether it has begun nobody knows
            raise
        self._lease = lease
        lease._open.append(self)
        return lease

    def _check_innermost(self) -> Any:
        if self._lease is None:
            raise RuntimeError("the transaction has ended" if self._used else "it has not begun")
        if self._lease._open[-1] is not self:
            raise RuntimeError("a transaction within this one is still open")
        return self._lease

    def _end(self, close: bool) -> None:
        lease, self._lease = self._lease, None
        del lease._open[lease._open.index(self) :]
        if close or not self._on_lease:
            lease.close()  # in the midst of a statement, the kernel ends that, or the connection

    def _commit(self) -> Steps[None]:
        lease = self._check_innermost()
        if self._savepoint:
            try:
                yield lease.call(f"RELEASE SAVEPOINT {self._savepoint}")
            except PostgresError:  # a statement failed, and its error was caught: all of it is void
                yield from self._rollback()
                raise
            except BaseException:
                self._end(close=True)
                raise
            self._end(close=False)
            return
        close = True
        try:
            reply = yield lease.call("COMMIT")
            close = False
        except PostgresError:  # it is rolled back
            close = False
            raise
        finally:
            self._end(close)
        check_committed(reply, lease.url)

    def _rollback(self) -> Steps[None]:
        lease = self._check_innermost()
        close = True
        try:
            if self._savepoint:
                yield lease.call(f"ROLLBACK TO SAVEPOINT {self._savepoint}")
                yield lease.call(f"RELEASE SAVEPOINT {self._savepoint}")
            else:
                yield lease.call("ROLLBACK")
            close = False
        finally:
            self._end(close)

    def _leave(self, error: BaseException | None) -> Steps[None]:
        """End it as its block ended."""
        if self._lease is None:  # by hand, before
            return
        if error is None:
            yield from self._commit()
        elif isinstance(error, Exception) and not isinstance(error, Timeout):
            while self._lease._open[-1] is not self:  # whose end was not waited for
                self._lease._open[-1]._end(close=False)
            with contextlib.suppress(Error):
                yield from self._rollback()
        else:
            # Cancelled, interrupted, or a statement still runs: nothing waits for the server. The
            # kernel makes the connection clean before anyone else gets it.
            self._end(close=True)


def innermost(lease: Any) -> Any:
    """Give the transaction of a lease that was begun last."""
    if not lease._open:
        raise RuntimeError("no transaction is open on this lease")
    return lease._open[-1]


def run_transaction(
    begin: Callable[[], Any],
    function: Callable[..., Any],
    args: tuple[Any, ...],
    attempts: int,
    sleep: Callable[[float], Any],
) -> Steps[Any]:
    """Run a function in a transaction, and again when the server says that this may help."""
    if attempts < 1:
        raise ValueError("attempts must be 1 or more")
    for attempt in itertools.count(1):
        transaction = begin()
        try:
            lease = yield from transaction._start()
            try:
                value = yield function(lease, *args)
            except BaseException as error:
                yield from transaction._leave(error)
                raise
            yield from transaction._leave(None)
            return value
        except RETRIED:
            if attempt == attempts:
                raise
        yield sleep(pause(attempt))


def execute_many(
    caller: Any, sql: str, rows: Iterable[Sequence[Any]], timeout: float | None
) -> Steps[list[str]]:
    """Run a statement for each row; gives the command tags."""
    tags: list[str] = []
    left = iter(rows)
    while chunk := list(itertools.islice(left, ROWS_AT_ONCE)):
        replies = yield caller._call_all([(sql, *row) for row in chunk], timeout)
        for reply in replies:
            if isinstance(reply, BaseException):
                if isinstance(reply, Error):
                    reply.row = len(tags)
                raise reply
            tags.append(reply[3])
    return tags
