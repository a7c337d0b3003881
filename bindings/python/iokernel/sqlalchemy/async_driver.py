"""The same as iokernel.sqlalchemy.driver on an event loop: what waits there, awaits here.

SQLAlchemy runs its own code, and so these methods, in a greenlet, and ``await_only`` hands what is
to be awaited to the task around it. The lease belongs to the loop that it was opened on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy.engine import AdaptedConnection
from sqlalchemy.util import await_only

from iokernel import _core, errors
from iokernel.asyncio import Postgres, PostgresLease, Reply
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
from iokernel.dbapi.postgresql import find
from iokernel.sqlalchemy import driver
from iokernel.sqlalchemy.driver import Binary, __version__, apilevel, paramstyle, threadsafety

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
    "__version__",
    "apilevel",
    "connect",
    "paramstyle",
    "threadsafety",
]


class _Turn:
    """A lock between tasks, in the form of one between threads."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    def __enter__(self) -> None:
        await_only(self._lock.acquire())

    def __exit__(self, *exc: object) -> None:
        self._lock.release()


async def _settled(replies: list[Reply[Any]]) -> list[Any]:
    """Wait for all; a failed one's exception stands in its place.

    They come in their order, so who waits for the last one is woken once.
    """
    settled: list[Any] = []
    try:
        for reply in reversed(replies):
            try:
                settled.append(await reply)
            except errors.Error as error:
                settled.append(error)
    except BaseException:
        for reply in replies:
            reply.cancel()
        raise
    settled.reverse()
    return settled


class Connection(driver.Connection, AdaptedConnection):
    """A session with the server. ``driver_connection`` is its lease, of iokernel.asyncio."""

    _lease: PostgresLease
    _lock: Any

    def __init__(self, client: Any, lease: PostgresLease, timeout: float | None) -> None:
        super().__init__(client, lease, timeout)
        self._connection: Any = lease
        self._lock = _Turn()

    def _call_many(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        return await_only(_settled(self._lease.call_many(commands, timeout=self._timeout)))

    def close(self) -> None:
        """Give the lease back. Nothing is awaited, so the garbage collector may do it, too."""
        self._lease.close()
        self._plans.ended(undone=True)


def connect(
    service: str | _core.Client = "postgresql://",
    *,
    wait: float = 30.0,
    async_creator_fn: Callable[..., Awaitable[PostgresLease]] | None = None,
    **options: object,
) -> Connection:
    """Give a connection: to a service, or on the lease that a function of the program gives."""
    lease: PostgresLease | None = None
    try:
        if async_creator_fn is not None:
            client, timeout = None, None
            lease = await_only(async_creator_fn())
        else:
            client, timeout = find(service, options)
            lease = PostgresLease(Postgres(client, mode="asyncio"))
        await_only(lease.call("SELECT", timeout=wait))
    except BaseException as error:
        if lease is not None:
            lease.close()
        if isinstance(error, errors.Error):
            raise translated(error) from error
        raise
    return Connection(client, lease, timeout)
