"""PEP 249, section by section; each sentence that says what a module has to do is a line here.

https://peps.python.org/pep-0249/. What belongs to this module beyond it is in test_dbapi.py.
"""

from __future__ import annotations

import builtins
import datetime
import inspect
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from iokernel.dbapi import postgresql
from kit.help import run_program
from kit.postgres import PASSWORD, PostgresServer


@pytest.fixture
def connection(shared_postgres: PostgresServer) -> Iterator[postgresql.Connection]:
    made = postgresql.connect(shared_postgres.unix_url)
    yield made
    made.close()


@pytest.fixture
def other(shared_postgres: PostgresServer) -> Iterator[postgresql.Connection]:
    """Somebody else, who sees what is committed."""
    made = postgresql.connect(shared_postgres.unix_url)
    made.autocommit = True
    yield made
    made.close()


@pytest.fixture
def cursor(connection: postgresql.Connection) -> postgresql.Cursor:
    return connection.cursor()


def all_of(connection: postgresql.Connection, sql: str) -> list[tuple[Any, ...]]:
    return connection.cursor().execute(sql).fetchall()


@pytest.fixture
def booze(connection: postgresql.Connection, other: postgresql.Connection) -> Iterator[str]:
    """A table's name."""
    name = f"booze_{uuid.uuid4().hex}"
    other.cursor().execute(f"CREATE TABLE {name} (name varchar(20) UNIQUE, n int)")
    yield name
    connection.close()  # which may have locked it
    other.cursor().execute(f"DROP TABLE IF EXISTS {name}")


# ---- Module Interface ----------------------------------------------------------------------------


def test_constructor(shared_postgres: PostgresServer) -> None:
    """connect() gives a Connection; its parameters by keyword, in the order that is advised."""
    names = list(inspect.signature(postgresql.connect).parameters)
    assert names[:5] == ["dsn", "user", "password", "host", "database"]
    one = postgresql.connect(dsn=shared_postgres.unix_url)
    assert isinstance(one, postgresql.Connection)
    one.close()
    two = postgresql.connect(
        f"postgresql://?port={shared_postgres.port}",
        user="app",
        password=PASSWORD,
        host="127.0.0.1",
        database="app",
    )
    assert all_of(two, "SELECT current_user, current_database()") == [("app", "app")]
    two.close()


def test_globals() -> None:
    assert postgresql.apilevel == "2.0"
    assert postgresql.threadsafety == 2
    assert postgresql.paramstyle == "pyformat"


def test_exceptions() -> None:
    """The layout of inheritance, and what is not beneath what."""
    assert issubclass(postgresql.Warning, builtins.Exception)
    assert issubclass(postgresql.Error, builtins.Exception)
    assert not issubclass(postgresql.Warning, postgresql.Error)
    assert issubclass(postgresql.InterfaceError, postgresql.Error)
    assert not issubclass(postgresql.InterfaceError, postgresql.DatabaseError)
    assert issubclass(postgresql.DatabaseError, postgresql.Error)
    for name in (
        "DataError",
        "OperationalError",
        "IntegrityError",
        "InternalError",
        "ProgrammingError",
        "NotSupportedError",
    ):
        assert getattr(postgresql, name).__bases__ == (postgresql.DatabaseError,)


@pytest.mark.parametrize(
    ("kind", "sql"),
    [
        ("DataError", "SELECT 1 / 0"),
        ("DataError", "SELECT 100000::int2"),
        ("DataError", "SELECT 'abcdef'::date"),
        ("OperationalError", "SELECT pg_terminate_backend(pg_backend_pid())"),
        ("OperationalError", "SELECT pg_sleep(60) /* statement_timeout */"),
        ("IntegrityError", "INSERT INTO {booze} VALUES ('a', 1), ('a', 2)"),
        ("InternalError", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        ("ProgrammingError", "SELECT * FROM nowhere"),
        ("ProgrammingError", "CREATE TABLE {booze} (a int)"),
        ("ProgrammingError", "SELEC"),
        ("NotSupportedError", "SELECT count(*) FROM {booze} FOR UPDATE"),
    ],
)
def test_which_error(cursor: postgresql.Cursor, booze: str, kind: str, sql: str) -> None:
    cursor.execute("SET statement_timeout = '100ms'")
    cursor.execute("SELECT 1")
    with pytest.raises(postgresql.DatabaseError) as caught:
        cursor.execute(sql.format(booze=booze))
    assert type(caught.value) is getattr(postgresql, kind)


def test_wrong_number_of_parameters(cursor: postgresql.Cursor) -> None:
    """ProgrammingError: "wrong number of parameters specified"."""
    for parameters in ((), (1,), (1, 2, 3)):
        with pytest.raises(postgresql.ProgrammingError):
            cursor.execute("SELECT %s, %s", parameters)


# ---- Connection Objects --------------------------------------------------------------------------


def uses(connection: postgresql.Connection, cursor: postgresql.Cursor) -> list[Callable[[], Any]]:
    """All that a connection and its cursor can do."""
    xid = postgresql.Xid(1, "a", "b")
    return [
        connection.commit,
        connection.rollback,
        connection.cursor,
        lambda: connection.tpc_begin(xid),
        connection.tpc_prepare,
        connection.tpc_commit,
        connection.tpc_rollback,
        connection.tpc_recover,
        lambda: setattr(connection, "autocommit", True),
        lambda: setattr(connection, "isolation_level", None),
        *cursor_uses(cursor),
    ]


def cursor_uses(cursor: postgresql.Cursor) -> list[Callable[[], Any]]:
    return [
        lambda: cursor.execute("SELECT 1"),
        lambda: cursor.executemany("SELECT %s", [(1,)]),
        lambda: cursor.callproc("lower", ("A",)),
        cursor.fetchone,
        cursor.fetchmany,
        cursor.fetchall,
        cursor.nextset,
        lambda: cursor.scroll(1),
        lambda: cursor.setinputsizes([]),
        lambda: cursor.setoutputsize(1),
        lambda: next(cursor),
    ]


def test_close(connection: postgresql.Connection, other: postgresql.Connection, booze: str) -> None:
    """Unusable from then on, with all its cursors; what was not committed is rolled back."""
    cursor = connection.cursor()
    cursor.execute(f"INSERT INTO {booze} VALUES ('ale', 1)")
    cursor.execute("SELECT 1")
    connection.close()
    for use in uses(connection, cursor):
        with pytest.raises(postgresql.Error):
            use()
    connection.close()
    assert all_of(other, f"SELECT * FROM {booze}") == []


def test_commit_and_rollback(
    connection: postgresql.Connection, other: postgresql.Connection, booze: str
) -> None:
    """Auto-commit is off at first. Nothing to commit, or to roll back, is no error."""
    assert connection.autocommit is False
    connection.commit()
    connection.rollback()
    connection.cursor().execute(f"INSERT INTO {booze} VALUES ('ale', 1)")
    assert all_of(other, f"SELECT name FROM {booze}") == []
    connection.rollback()  # to the start of the pending transaction
    assert all_of(connection, f"SELECT name FROM {booze}") == []
    connection.cursor().execute(f"INSERT INTO {booze} VALUES ('bock', 1)")
    connection.commit()
    assert all_of(other, f"SELECT name FROM {booze}") == [("bock",)]
    connection.rollback()
    assert all_of(other, f"SELECT name FROM {booze}") == [("bock",)]


def test_cursors_are_not_isolated(connection: postgresql.Connection, booze: str) -> None:
    """Changes by one cursor are at once visible to the others of a connection."""
    one, two = connection.cursor(), connection.cursor()
    assert one is not two
    one.execute(f"INSERT INTO {booze} VALUES ('ale', 1)")
    assert two.execute(f"SELECT name FROM {booze}").fetchall() == [("ale",)]
    one.execute("SELECT 1")
    two.execute("SELECT 2")
    assert (one.fetchone(), two.fetchone()) == ((1,), (2,))


# ---- Cursor attributes ---------------------------------------------------------------------------


def test_description(cursor: postgresql.Cursor, booze: str) -> None:
    """Seven items for each column; None before anything, and for what gives no rows."""
    assert cursor.description is None
    cursor.execute(f"INSERT INTO {booze} VALUES ('ale', 1)")
    assert cursor.description is None
    cursor.execute(f"SELECT name, n AS number FROM {booze}")
    assert cursor.description == [
        ("name", 1043, None, None, None, None, None),
        ("number", 23, None, None, None, None, None),
    ]
    assert cursor.description[0][1] == postgresql.STRING
    assert cursor.description[1][1] == postgresql.NUMBER
    cursor.executemany(f"INSERT INTO {booze} VALUES (%s, 2)", [("b",)])
    assert cursor.description is None


TYPES = {
    "STRING": ["'a'::text", "'a'::char(3)", "'a'::varchar", "'{}'::json", "'{}'::jsonb", "'a'::xml"],
    "BINARY": ["'a'::bytea"],
    "NUMBER": ["1::int2", "1", "1::int8", "1.5::float4", "1.5::float8", "1.5", "'1'::money", "true"],
    "DATETIME": ["current_date", "localtime", "current_time", "localtimestamp", "now()",
                 "'1d'::interval"],
    "ROWID": ["1::oid"],
}  # fmt: skip
OTHERS = ["'1.2.3.4'::inet", "ARRAY[1]", "int4range(1, 2)", "gen_random_uuid()", "'(1,2)'::point"]


@pytest.mark.parametrize("kind", TYPES)
def test_type_codes(cursor: postgresql.Cursor, kind: str) -> None:
    """A type code is equal to one of the type objects, and to one only."""
    values = TYPES[kind] + (OTHERS if kind == "STRING" else [])
    cursor.execute("SELECT " + ", ".join(values))
    assert cursor.description is not None
    for column in cursor.description:
        equal = [name for name in TYPES if column[1] == getattr(postgresql, name)]
        assert equal == [kind]


def test_rowcount(cursor: postgresql.Cursor, booze: str) -> None:
    """-1 before anything, and where the server does not say."""
    assert cursor.rowcount == -1
    cursor.execute(f"INSERT INTO {booze} VALUES ('a', 1), ('b', 2), ('c', 2)")
    assert cursor.rowcount == 3
    cursor.execute(f"UPDATE {booze} SET n = 3 WHERE n = 2")
    assert cursor.rowcount == 2
    cursor.execute(f"SELECT * FROM {booze}")
    assert cursor.rowcount == 3
    cursor.execute(f"DELETE FROM {booze} WHERE name = 'nowhere'")
    assert cursor.rowcount == 0
    cursor.execute("CREATE TEMP TABLE rowcounts (a int)")
    assert cursor.rowcount == -1
    cursor.executemany("INSERT INTO rowcounts SELECT generate_series(1, %s)", [(2,), (3,)])
    assert cursor.rowcount == 5
    cursor.executemany("INSERT INTO rowcounts SELECT generate_series(1, %s)", [])
    assert cursor.rowcount == 0
    cursor.executemany("SET TIME ZONE UTC", [(), ()])
    assert cursor.rowcount == -1
    with pytest.raises(postgresql.Error):
        cursor.execute("SELEC")
    assert cursor.rowcount == -1


# ---- Cursor methods ------------------------------------------------------------------------------


def test_callproc(cursor: postgresql.Cursor) -> None:
    """Gives a copy of the parameters; a result set by the usual fetch methods."""
    cursor.execute(
        "CREATE FUNCTION pg_temp.twice(a int, b text) RETURNS TABLE (c text, d int) "
        "LANGUAGE sql AS 'SELECT b, a UNION ALL SELECT b, a * 2'"
    )
    assert cursor.callproc("pg_temp.twice", [4, "x"]) == [4, "x"]
    assert cursor.fetchall() == [("x", 4), ("x", 8)]
    assert cursor.callproc("now") == ()
    assert len(cursor.fetchall()) == 1
    with pytest.raises(postgresql.ProgrammingError):
        cursor.callproc("nowhere; SELECT 1")


def test_closing_a_cursor(connection: postgresql.Connection) -> None:
    """Unusable from then on; the connection is not."""
    cursor = connection.cursor()
    cursor.execute("SELECT 1")
    cursor.close()
    for use in cursor_uses(cursor):
        with pytest.raises(postgresql.Error):
            use()
    cursor.close()
    assert all_of(connection, "SELECT 1") == [(1,)]


def test_execute(cursor: postgresql.Cursor, booze: str) -> None:
    """Parameters as a sequence or a mapping; the same statement again with others."""
    sql = f"INSERT INTO {booze} VALUES (%(name)s, %(n)s)"
    for name in ("a", "b'\"%s\\", "c"):
        cursor.execute(sql, {"name": name, "n": None})
    cursor.execute(f"SELECT name, n FROM {booze} WHERE name <> %s ORDER BY 1", ["a"])
    assert cursor.fetchall() == [("b'\"%s\\", None), ("c", None)]


def test_executemany(cursor: postgresql.Cursor, booze: str) -> None:
    """All sequences or mappings of a sequence."""
    cursor.executemany(f"INSERT INTO {booze} VALUES (%s, %s)", [("a", 1), ["b", 2]])
    mappings = [{"n": 3, "name": "c"}, {"name": "d", "n": 4}]
    cursor.executemany(f"INSERT INTO {booze} VALUES (%(name)s, %(n)s)", mappings)
    cursor.execute(f"SELECT name, n FROM {booze} ORDER BY n")
    assert cursor.fetchall() == [("a", 1), ("b", 2), ("c", 3), ("d", 4)]


@pytest.mark.parametrize("sql", [None, "SET TIME ZONE UTC"])
def test_fetching_without_a_result(cursor: postgresql.Cursor, sql: str | None) -> None:
    """An Error, if no call was made yet, or what was called gives no result set."""
    if sql is not None:
        cursor.execute(sql)
    for fetch in (cursor.fetchone, cursor.fetchmany, cursor.fetchall, cursor.nextset):
        with pytest.raises(postgresql.Error):
            fetch()


def test_fetchone(cursor: postgresql.Cursor) -> None:
    """A single sequence, or None when no more data is available."""
    cursor.execute("VALUES (1, 'a'), (2, 'b')")
    assert [cursor.fetchone() for _ in range(4)] == [(1, "a"), (2, "b"), None, None]


def test_fetchmany(cursor: postgresql.Cursor) -> None:
    """A sequence of sequences, empty at the end; arraysize, read and written, is the default."""
    cursor.execute("SELECT generate_series(1, 10)")
    assert cursor.arraysize == 1
    assert cursor.fetchmany() == [(1,)]
    cursor.arraysize = 4
    assert cursor.fetchmany() == [(2,), (3,), (4,), (5,)]
    assert cursor.fetchmany(3) == [(6,), (7,), (8,)]
    assert cursor.fetchmany(size=100) == [(9,), (10,)]
    assert cursor.fetchmany(5) == []
    cursor.execute("SELECT 1")
    assert cursor.arraysize == 4


def test_fetchall(cursor: postgresql.Cursor) -> None:
    """All that remain."""
    cursor.execute("SELECT generate_series(1, 3)")
    cursor.fetchone()
    assert cursor.fetchall() == [(2,), (3,)]
    assert cursor.fetchall() == []
    cursor.execute("SELECT 1 WHERE false")
    assert cursor.fetchall() == []


def test_nextset(cursor: postgresql.Cursor) -> None:
    """None if there are no more sets; rows of the current one are dropped."""
    cursor.execute("SELECT generate_series(1, 3)")
    cursor.fetchone()
    assert cursor.nextset() is None
    with pytest.raises(postgresql.Error):
        cursor.fetchone()


def test_sizes(cursor: postgresql.Cursor) -> None:
    """They may do nothing, and execute() works after them."""
    cursor.setinputsizes((25, None, postgresql.NUMBER))
    cursor.setoutputsize(1000)
    cursor.setoutputsize(2000, 0)
    assert cursor.execute("SELECT %s", ("a",)).fetchone() == ("a",)


# ---- Type Objects and Constructors ---------------------------------------------------------------


def test_constructors(cursor: postgresql.Cursor) -> None:
    """Each makes a value that goes to the server, and comes back the same."""
    ticks = time.mktime((2002, 12, 25, 13, 45, 30, 0, 0, -1))
    pairs = [
        (postgresql.Date(2002, 12, 25), "date", datetime.date(2002, 12, 25)),
        (postgresql.Time(13, 45, 30), "time", datetime.time(13, 45, 30)),
        (
            postgresql.Timestamp(2002, 12, 25, 13, 45, 30),
            "timestamp",
            datetime.datetime(2002, 12, 25, 13, 45, 30),
        ),
        (postgresql.DateFromTicks(ticks), "date", datetime.date(2002, 12, 25)),
        (postgresql.TimeFromTicks(ticks), "time", datetime.time(13, 45, 30)),
        (
            postgresql.TimestampFromTicks(ticks),
            "timestamp",
            datetime.datetime(2002, 12, 25, 13, 45, 30),
        ),
        (postgresql.Binary(b"\0\xff'\\"), "bytea", b"\0\xff'\\"),
    ]
    for value, kind, wanted in pairs:
        cursor.execute(f"SELECT %s::{kind}", (value,))
        assert cursor.fetchone() == (wanted,)


def test_null(cursor: postgresql.Cursor, booze: str) -> None:
    """None on input and output."""
    cursor.execute(f"INSERT INTO {booze} VALUES (%s, %s)", (None, None))
    assert cursor.execute(f"SELECT name, n FROM {booze}").fetchone() == (None, None)


# ---- Optional DB API Extensions ------------------------------------------------------------------


def test_rownumber(cursor: postgresql.Cursor) -> None:
    """The index of the next row; None where there is none."""
    assert cursor.rownumber is None
    cursor.execute("SELECT generate_series(1, 3)")
    numbers = [(cursor.rownumber, cursor.fetchone())[0] for _ in range(3)]
    assert (numbers, cursor.rownumber) == ([0, 1, 2], 3)


def test_exceptions_of_the_connection(connection: postgresql.Connection) -> None:
    for name in (
        "Warning",
        "Error",
        "InterfaceError",
        "DatabaseError",
        "DataError",
        "OperationalError",
        "IntegrityError",
        "InternalError",
        "ProgrammingError",
        "NotSupportedError",
    ):
        assert getattr(connection, name) is getattr(postgresql, name)


def test_connection_of_a_cursor(connection: postgresql.Connection) -> None:
    assert connection.cursor().connection is connection


def test_scroll(cursor: postgresql.Cursor) -> None:
    """IndexError where it would leave the result, and then it stays where it was."""
    cursor.execute("SELECT generate_series(0, 9)")
    cursor.scroll(3)
    assert cursor.fetchone() == (3,)
    cursor.scroll(-2)
    assert cursor.fetchone() == (2,)
    cursor.scroll(9, "absolute")
    assert cursor.fetchone() == (9,)
    cursor.scroll(1, mode="absolute")
    for value, mode in ((-2, "relative"), (9, "relative"), (10, "absolute"), (-1, "absolute")):
        with pytest.raises(IndexError):
            cursor.scroll(value, mode)
    assert cursor.fetchone() == (1,)
    with pytest.raises(postgresql.ProgrammingError):
        cursor.scroll(1, "sideways")


def test_iteration(cursor: postgresql.Cursor) -> None:
    cursor.execute("SELECT generate_series(1, 3)")
    assert iter(cursor) is cursor
    assert next(cursor) == (1,)
    assert list(cursor) == [(2,), (3,)]
    with pytest.raises(StopIteration):
        next(cursor)


def test_lastrowid(cursor: postgresql.Cursor, booze: str) -> None:
    """None: the database has no row ids."""
    assert cursor.lastrowid is None
    cursor.execute(f"INSERT INTO {booze} VALUES ('a', 1)")
    assert cursor.lastrowid is None


def test_autocommit(
    connection: postgresql.Connection, other: postgresql.Connection, booze: str
) -> None:
    connection.autocommit = True
    connection.cursor().execute(f"INSERT INTO {booze} VALUES ('a', 1)")
    assert all_of(other, f"SELECT name FROM {booze}") == [("a",)]
    connection.autocommit = False
    connection.cursor().execute(f"DELETE FROM {booze}")
    assert all_of(other, f"SELECT name FROM {booze}") == [("a",)]


def test_what_is_left_out(connection: postgresql.Connection) -> None:
    """Optional, and not there: the server's notices are not kept, and errors are raised."""
    for name in ("messages", "errorhandler"):
        assert not hasattr(connection, name)
        assert not hasattr(connection.cursor(), name)


# ---- Optional Two-Phase Commit Extensions --------------------------------------------------------


@pytest.fixture(scope="module")
def preparing() -> Iterator[PostgresServer]:
    """A server that keeps prepared transactions, which by default it does not."""
    with PostgresServer(["max_prepared_transactions = 10"]) as server:
        server.psql("CREATE TABLE phases (a int)")
        yield server


@pytest.fixture
def two_phase(preparing: PostgresServer) -> Iterator[postgresql.Connection]:
    preparing.psql("TRUNCATE phases")
    made = postgresql.connect(preparing.unix_url)
    yield made
    made.close()


def insert(connection: postgresql.Connection) -> None:
    connection.cursor().execute("INSERT INTO phases VALUES (1)")


def test_xid(two_phase: postgresql.Connection) -> None:
    """It gives access to its three components, as a sequence."""
    xid = two_phase.xid(7, "global", "branch")
    assert tuple(xid) == (7, "global", "branch")
    assert (xid[0], xid[1], xid[2], len(xid)) == (7, "global", "branch", 3)
    for wrong in ((-1, "a", "b"), (1 << 31, "a", "b"), (1, "a" * 65, "b"), (1, "a", "\n")):
        with pytest.raises(postgresql.ProgrammingError):
            two_phase.xid(*wrong)


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("how", ["tpc_commit", "tpc_rollback"])
def test_two_phases(
    two_phase: postgresql.Connection,
    preparing: PostgresServer,
    how: str,
    prepared: bool,
    autocommit: bool,
) -> None:
    two_phase.autocommit = autocommit
    xid = two_phase.xid(1, "it's", "x" * 64)
    two_phase.tpc_begin(xid)
    insert(two_phase)
    for end in (two_phase.commit, two_phase.rollback, lambda: two_phase.tpc_begin(xid)):
        with pytest.raises(postgresql.ProgrammingError):
            end()
    if prepared:
        two_phase.tpc_prepare()
        for use in (lambda: insert(two_phase), two_phase.tpc_prepare, two_phase.commit):
            with pytest.raises(postgresql.ProgrammingError):
                use()
        assert preparing.psql("SELECT count(*) FROM pg_prepared_xacts") == "1"
    getattr(two_phase, how)()
    count = "1" if how == "tpc_commit" else "0"
    assert preparing.psql("SELECT count(*) FROM phases") == count
    assert preparing.psql("SELECT count(*) FROM pg_prepared_xacts") == "0"
    with pytest.raises(postgresql.ProgrammingError):
        getattr(two_phase, how)()
    insert(two_phase)  # the transaction is over, and a usual one can be
    two_phase.commit()
    assert preparing.psql("SELECT count(*) FROM phases") == str(int(count) + 1)


def test_prepare_outside(two_phase: postgresql.Connection) -> None:
    xid = two_phase.xid(1, "a", "b")
    with pytest.raises(postgresql.ProgrammingError):
        two_phase.tpc_prepare()
    insert(two_phase)
    for use in (
        lambda: two_phase.tpc_begin(xid),
        lambda: two_phase.tpc_commit(xid),
        lambda: two_phase.tpc_rollback(xid),
        lambda: two_phase.tpc_begin("a"),  # type: ignore[arg-type]
    ):
        with pytest.raises(postgresql.ProgrammingError):
            use()


def test_recovery(two_phase: postgresql.Connection, preparing: PostgresServer) -> None:
    """Of transactions that were prepared and not ended, by whomever."""
    names = [two_phase.xid(4, "a", "b"), two_phase.xid(5, "", "")]
    for xid in names:
        two_phase.tpc_begin(xid)
        insert(two_phase)
        two_phase.tpc_prepare()
        two_phase.close()
        two_phase = postgresql.connect(preparing.unix_url)
    for gid in ("of another's", "1_2_3", "01_YQ==_YQ=="):
        quoted = gid.replace("'", "''")
        preparing.psql(f"BEGIN; INSERT INTO phases VALUES (2); PREPARE TRANSACTION '{quoted}'")
    found = two_phase.tpc_recover()
    assert found == [
        *names,
        (None, "of another's", None),
        (None, "1_2_3", None),
        (None, "01_YQ==_YQ==", None),
    ]
    for xid in found[1:]:
        two_phase.tpc_rollback(xid)
    two_phase.tpc_commit(found[0])
    assert two_phase.tpc_recover() == []
    assert preparing.psql("SELECT a FROM phases") == "1"
    with pytest.raises(postgresql.ProgrammingError):
        two_phase.tpc_commit(found[0])  # there is none of this name any more
    insert(two_phase)
    two_phase.close()


def test_nothing_to_prepare(
    two_phase: postgresql.Connection, connection: postgresql.Connection
) -> None:
    """After a failed statement; and by a server that does not do it."""
    two_phase.tpc_begin(two_phase.xid(1, "a", "b"))
    with pytest.raises(postgresql.ProgrammingError):
        two_phase.cursor().execute("SELEC")
    with pytest.raises(postgresql.InternalError, match="instead of prepared"):
        two_phase.tpc_prepare()
    assert two_phase.tpc_recover() == []
    connection.tpc_begin(connection.xid(1, "a", "b"))
    connection.cursor().execute("SELECT 1")
    with pytest.raises(postgresql.OperationalError, match="disabled|max_prepared") as caught:
        connection.tpc_prepare()
    assert caught.value.sqlstate == "55000"
    connection.tpc_rollback()
    assert all_of(connection, "SELECT 1") == [(1,)]


# ---- beyond it: isolation ------------------------------------------------------------------------


def test_isolation(connection: postgresql.Connection, booze: str) -> None:
    """Attributes of the transactions from now on; not to be set within one."""
    assert (connection.isolation_level, connection.readonly, connection.deferrable) == (
        None,
        False,
        False,
    )
    shown = (
        "SELECT current_setting('transaction_isolation'), "
        "current_setting('transaction_read_only'), current_setting('transaction_deferrable')"
    )
    assert all_of(connection, shown) == [("read committed", "off", "off")]
    for name, value in (
        ("isolation_level", "serializable"),
        ("readonly", True),
        ("deferrable", True),
        ("autocommit", True),
    ):
        with pytest.raises(postgresql.ProgrammingError, match=name):
            setattr(connection, name, value)
    connection.rollback()
    connection.isolation_level = "REPEATABLE_READ"
    assert connection.isolation_level == "repeatable read"
    assert all_of(connection, shown) == [("repeatable read", "off", "off")]
    connection.commit()
    connection.isolation_level = "serializable"
    connection.readonly = connection.deferrable = True
    assert all_of(connection, shown) == [("serializable", "on", "on")]
    with pytest.raises(postgresql.InternalError):
        connection.cursor().execute(f"INSERT INTO {booze} VALUES ('a', 1)")
    connection.rollback()
    assert all_of(connection, shown) == [("serializable", "on", "on")]
    connection.rollback()
    connection.isolation_level = None
    connection.readonly = connection.deferrable = False
    assert all_of(connection, shown) == [("read committed", "off", "off")]
    connection.rollback()
    with pytest.raises(postgresql.ProgrammingError, match="one of"):
        connection.isolation_level = "chaos"


def test_isolation_of_the_next_owner(shared_postgres: PostgresServer) -> None:
    """The session is clean for whoever gets it next."""
    url = f"{shared_postgres.unix_url}?leases=1"
    with postgresql.connect(url) as one:
        one.isolation_level = "serializable"
        pid = all_of(one, "SELECT pg_backend_pid()")
    with postgresql.connect(url) as two:
        assert two.isolation_level is None
        assert all_of(two, "SHOW transaction_isolation") == [("read committed",)]
        assert all_of(two, "SELECT pg_backend_pid()") == pid


# ---- threads and processes -----------------------------------------------------------------------


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run it in so many threads that begin together; the first exception is raised."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            barrier.wait(60)
            work(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_threads_share_the_module(shared_postgres: PostgresServer) -> None:
    def work(number: int) -> None:
        for _ in range(5):
            with postgresql.connect(shared_postgres.unix_url) as connection:
                assert all_of(connection, f"SELECT {number}") == [(number,)]

    in_threads(8, work)


def test_threads_share_a_connection(connection: postgresql.Connection, booze: str) -> None:
    """In one transaction, each statement whole, with its own result."""

    def work(number: int) -> None:
        cursor = connection.cursor()
        for i in range(25):
            cursor.execute(
                f"INSERT INTO {booze} VALUES (%s, %s) RETURNING n", (f"{number}-{i}", number)
            )
            assert (cursor.rowcount, cursor.fetchall()) == (1, [(number,)])

    in_threads(6, work)
    assert all_of(connection, f"SELECT count(*), count(DISTINCT n) FROM {booze}") == [(150, 6)]
    connection.rollback()
    assert all_of(connection, f"SELECT count(*) FROM {booze}") == [(0,)]


FORKS = """
    import os, signal, sys
    from iokernel.dbapi import postgresql

    def ask(connection, sql="SELECT pg_backend_pid()"):
        return connection.cursor().execute(sql).fetchone()[0]

    url = sys.argv[1]
    connection = postgresql.connect(url)
    cursor = connection.cursor()
    cursor.execute("CREATE TABLE forked (a int)")
    cursor.execute("INSERT INTO forked VALUES (1)")
    mine = ask(connection)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(60)
            for use in (lambda: cursor.execute("INSERT INTO forked VALUES (2)"), connection.commit):
                try:
                    use()
                except postgresql.InterfaceError as error:
                    assert "parent" in str(error), error
                else:
                    raise AssertionError("the child used its parent's connection")
            connection.close()
            with postgresql.connect(url) as own:
                assert ask(own) != mine
                assert ask(own, "SELECT to_regclass('forked') IS NULL") is True
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert ask(connection) == mine, "the parent goes on in its transaction"
    connection.commit()
    assert ask(connection, "SELECT sum(a) FROM forked") == 1
    cursor.execute("DROP TABLE forked")
    connection.commit()
    connection.close()
    print("done")
"""


def test_fork(shared_postgres: PostgresServer) -> None:
    """A connection belongs to the process that made it; a child makes its own."""
    assert run_program(FORKS, shared_postgres.unix_url).strip() == "done"
