"""The dialects, for plain threads and for asyncio.

What is PostgreSQL's SQLAlchemy knows; here is what is iokernel's: how to connect, what its errors
mean for a pool, and that a session's transactions begin as they are wished for.

Connections of an engine share a client of iokernel, which lives as long as the engine: a pool that
keeps no connection open would make a new one each time.
"""

# mypy: allow-untyped-calls
from __future__ import annotations

import re
from typing import Any

from sqlalchemy import event, pool
from sqlalchemy.dialects.postgresql.base import PGDialect, PGExecutionContext

from iokernel import errors
from iokernel.dbapi.exceptions import Error
from iokernel.postgres_streams import BATCH_ROWS
from iokernel.sqlalchemy.types import COLSPECS

# The lease's connection is lost, or the lease is another thread's or process's: no statement can
# succeed on it any more. (Not so when one was too large, say, or its deadline has passed. An error
# by which the server ends a session is told as a lost connection, so no SQLSTATE is asked for.)
_GONE = frozenset(
    (
        "IOK_ECANCELLED",
        "IOK_ECLOSED",
        "IOK_EFORKED",
        "IOK_EPROTO",
        "IOK_ERESET",
        "IOK_ESYSTEM",
        "IOK_ETHREAD",
        "IOK_ETLS",
    )
)


class _Context(PGExecutionContext):
    def create_server_side_cursor(self) -> Any:
        rows = self.execution_options.get("yield_per") or BATCH_ROWS
        return self._dbapi_connection.cursor(rows=rows)


class Dialect(PGDialect):
    """``postgresql+iokernel://`` for plain threads."""

    driver = "iokernel"
    supports_statement_cache = True
    supports_server_side_cursors = True
    supports_sane_multi_rowcount = True
    has_terminate = True
    default_paramstyle = "numeric_dollar"
    execution_ctx_cls = _Context
    colspecs = {**PGDialect.colspecs, **COLSPECS}

    _client: Any = None
    _pool_is_bound = False

    @classmethod
    def import_dbapi(cls) -> Any:
        """Give the module that connects."""
        from iokernel.sqlalchemy import driver

        return driver

    @classmethod
    def get_async_dialect_cls(cls, url: Any) -> type[Dialect]:
        """Give the dialect for create_async_engine."""
        return AsyncDialect

    @classmethod
    def load_provisioning(cls) -> None:
        """Load what the test suite of SQLAlchemy needs of PostgreSQL."""
        PGDialect.load_provisioning()

    def retrieve_dbapi_version(self, dbapi: Any) -> Any:
        """Give iokernel's version."""
        return tuple(map(int, re.findall(r"\d+", dbapi.__version__)[:3]))

    # ---- connections ----------------------------------------------------------------------------

    def create_connect_args(self, url: Any) -> Any:
        """Give the options of a URL of iokernel, by name."""
        options = url.translate_connect_args(username="user", database="dbname")
        hosts, ports = self._split_multihost_from_url(url)
        options.update(url.query)
        if hosts and ports:
            options["host"] = ",".join(host or "" for host in hosts)
            options.pop("port", None)
            if any(ports):
                options["port"] = ",".join(str(port or "") for port in ports)
        if "wait" in options:
            options["wait"] = float(options["wait"])
        return [], options

    @classmethod
    def engine_created(cls, engine: Any) -> None:
        """See what kind of pool it has, and when that is disposed of."""
        dialect = engine.dialect
        dialect._pool_is_bound = not isinstance(engine.pool, pool.NullPool)
        event.listen(engine, "engine_disposed", lambda _: dialect._let_go())

    def _let_go(self) -> None:
        self._client = None

    def connect(self, *args: Any, **options: Any) -> Any:
        """Connect, by the client that other connections have already."""
        if "service" not in options and "async_creator_fn" not in options:
            options.setdefault("connections", 1)  # those that all share are of no use here
            if self._pool_is_bound:
                options.setdefault("leases", 1024)  # the pool says how many there are
        connection = self.loaded_dbapi.connect(*args, **options)
        self._client = connection._client
        return connection

    def do_terminate(self, dbapi_connection: Any) -> None:
        """Give the lease back: what runs on it is cancelled, and nothing is waited for."""
        dbapi_connection.close()

    def do_ping(self, dbapi_connection: Any) -> bool:
        """Ask the server for a sign of life."""
        dbapi_connection.ping()
        return True

    def is_disconnect(self, e: Any, connection: Any, cursor: Any) -> bool:
        """Whether the pool has to make a new connection."""
        if connection is not None and connection.closed:
            return True
        cause = e.__cause__ if isinstance(e, Error) else e
        return isinstance(cause, errors.Error) and cause.code in _GONE

    # ---- transactions ---------------------------------------------------------------------------

    def get_isolation_level_values(self, dbapi_conn: Any) -> Any:
        """Give the names of all."""
        return (*super().get_isolation_level_values(dbapi_conn), "AUTOCOMMIT")

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        """Let the transactions from now on be of that level; a transaction that is open ends."""
        dbapi_connection.rollback()
        dbapi_connection.autocommit = level == "AUTOCOMMIT"
        dbapi_connection.isolation_level = None if level == "AUTOCOMMIT" else level.lower()

    def get_isolation_level(self, dbapi_connection: Any) -> Any:
        """Ask the server what the transaction has, or the next one would have."""
        idle = not dbapi_connection.in_transaction
        try:
            return super().get_isolation_level(dbapi_connection)
        finally:
            if idle:
                dbapi_connection.rollback()

    def detect_autocommit_setting(self, dbapi_conn: Any) -> bool:
        """Whether each statement is a transaction of its own."""
        return bool(dbapi_conn.autocommit)

    def set_readonly(self, connection: Any, value: bool) -> None:
        """Let the transactions from now on be read-only, or not."""
        connection.readonly = value

    def get_readonly(self, connection: Any) -> bool:
        """Whether they are."""
        return bool(connection.readonly)

    def set_deferrable(self, connection: Any, value: bool) -> None:
        """Let the transactions from now on be deferrable, or not."""
        connection.deferrable = value

    def get_deferrable(self, connection: Any) -> bool:
        """Whether they are."""
        return bool(connection.deferrable)

    def do_rollback_twophase(
        self, connection: Any, xid: str, is_prepared: bool = True, recover: bool = False
    ) -> None:
        """Roll back a transaction that was prepared, or was not yet."""
        if is_prepared:
            self._end_prepared(connection, "ROLLBACK", xid)
        else:
            self.do_rollback(connection.connection)

    def do_commit_twophase(
        self, connection: Any, xid: str, is_prepared: bool = True, recover: bool = False
    ) -> None:
        """Commit one."""
        if is_prepared:
            self._end_prepared(connection, "COMMIT", xid)
        else:
            self.do_commit(connection.connection)

    def _end_prepared(self, connection: Any, verb: str, xid: str) -> None:
        """End a prepared transaction, which is not possible within another one."""
        raw = connection.connection.dbapi_connection
        raw.rollback()
        before, raw.autocommit = raw.autocommit, True
        try:
            quoted = xid.replace("'", "''")
            connection.exec_driver_sql(f"{verb} PREPARED '{quoted}'")
        finally:
            raw.autocommit = before


class AsyncDialect(Dialect):
    """The same for asyncio."""

    driver = "iokernel_async"
    is_async = True
    poolclass = pool.AsyncAdaptedQueuePool
    supports_statement_cache = True

    @classmethod
    def import_dbapi(cls) -> Any:
        """Give the module that connects."""
        from iokernel.sqlalchemy import async_driver

        return async_driver

    def get_driver_connection(self, connection: Any) -> Any:
        """Give the lease."""
        return connection.driver_connection
