"""The DB-API module on a real PostgreSQL, beyond what PEP 249 says: that is test_dbapi_pep249.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from iokernel.dbapi import placeholders, postgresql
from iokernel.sync import Postgres
from kit.postgres import PASSWORD, PostgresServer


@pytest.fixture
def connection(shared_postgres: PostgresServer) -> Iterator[postgresql.Connection]:
    made = postgresql.connect(shared_postgres.unix_url)
    yield made
    made.close()


def test_parameters(connection: postgresql.Connection) -> None:
    cursor = connection.cursor()
    cursor.execute("SELECT %s::int, '%%', '%s' /* %s */, 7 %% 4", (5,))
    assert cursor.fetchall() == [(5, "%", "%s", 3)]
    cursor.execute("SELECT %(a)s::int + %(a)s::int, %(b)s::text", {"a": 2, "b": None, "c": 1})
    assert cursor.fetchall() == [(4, None)]
    cursor.execute("SELECT '%s' || '%%', 7 % 4")
    assert cursor.fetchall() == [("%s%%", 3)]
    for sql, parameters in (
        ("SELECT %s", ()),
        ("SELECT %s", {"a": 1}),
        ("SELECT %(a)s", {"b": 1}),
        ("SELECT %(a)s", (1,)),
        ("SELECT %(a)s, %s", (1,)),
        ("SELECT 5 % 3", ()),
        ("SELECT %(a)", {"a": 1}),
        ("SELECT $1, %s", (1,)),
        ("SELECT %s", "x"),
    ):
        with pytest.raises(postgresql.ProgrammingError):
            cursor.execute(sql, parameters)
    cursor.setinputsizes([None])
    cursor.setoutputsize(100, 0)


@pytest.mark.parametrize(
    ("sql", "converted"),
    [
        ("'a''%s'%s", "'a''%s'$1"),
        (r"E'\'%s' %s", r"E'\'%s' $1"),
        ('"%s" %s', '"%s" $1'),
        ("$$%s$$ $a$ $$ %s $a$ %s", "$$%s$$ $a$ $$ %s $a$ $1"),
        ("a$b$ %s", "a$b$ $1"),
        ("-- %s\n%s", "-- %s\n$1"),
        ("/* /* %s */ %s */ %s", "/* /* %s */ %s */ $1"),
        ("%s 'cut %s", "$1 'cut %s"),
        ("%s /* cut %s", "$1 /* cut %s"),
        ("%b%t%%", "$1$2%"),
    ],
)
def test_the_lexer(sql: str, converted: str) -> None:
    assert placeholders.convert(sql).sql == converted


def test_transactions(connection: postgresql.Connection, db: Postgres) -> None:
    db.execute("CREATE TABLE dbapi (a int PRIMARY KEY)")
    count = "SELECT count(*) FROM dbapi"
    cursor = connection.cursor()
    cursor.execute("INSERT INTO dbapi VALUES (1)")
    assert (cursor.rowcount, db.fetchval(count)) == (1, 0)
    connection.commit()
    assert db.fetchval(count) == 1
    cursor.executemany("INSERT INTO dbapi VALUES (%s)", [(i,) for i in range(2, 1000)])
    assert cursor.rowcount == 998
    connection.rollback()
    connection.rollback()
    assert db.fetchval(count) == 1
    with pytest.raises(postgresql.IntegrityError) as caught:
        cursor.executemany("INSERT INTO dbapi VALUES (%(a)s)", [{"a": 2}, {"a": 1}])
    assert (caught.value.sqlstate, caught.value.fields["table"]) == ("23505", "dbapi")
    with pytest.raises(postgresql.InternalError):
        cursor.execute("SELECT 1")
    with pytest.raises(postgresql.InternalError, match="instead of committed"):
        connection.commit()
    cursor.execute("SAVEPOINT s")
    cursor.execute("INSERT INTO dbapi VALUES (2)")
    cursor.execute("/* of it */ ROLLBACK TO s")
    cursor.execute("INSERT INTO dbapi VALUES (3)")
    assert db.fetchval(count) == 1
    with pytest.raises(postgresql.ProgrammingError):
        connection.autocommit = True
    cursor.execute("COMMIT")
    connection.autocommit = True
    cursor.execute("INSERT INTO dbapi VALUES (4)")
    assert [row[0] for row in db.fetch("SELECT a FROM dbapi ORDER BY a")] == [1, 3, 4]


def test_tables_that_change(
    connection: postgresql.Connection, db: Postgres, shared_postgres: PostgresServer
) -> None:
    """Statements are prepared, and the server refuses those whose columns have other types than before."""
    db.execute("CREATE TABLE dbapi_changes (a int)")
    db.execute("INSERT INTO dbapi_changes VALUES (5)")
    other = postgresql.connect(shared_postgres.unix_url)
    cursors = [connection.cursor(), other.cursor()]

    def read() -> list[object]:
        found = [cursor.execute("SELECT a FROM dbapi_changes").fetchone() for cursor in cursors]
        return [row and row[0] for row in found]

    def end() -> None:
        connection.commit()
        other.commit()

    for _ in range(2):
        assert read() == [5, 5]
        end()
    # By another client: a transaction that begins with the statement does so again.
    db.execute("ALTER TABLE dbapi_changes ALTER a TYPE text")
    assert read() == ["5", "5"]
    end()
    # By a connection of the module: in the midst of a transaction, too, of any connection.
    cursors[0].execute("ALTER TABLE dbapi_changes ALTER a TYPE int USING a::int")
    connection.commit()
    for cursor in cursors:
        cursor.execute("SELECT 1")
    assert read() == [5, 5]
    end()
    # Undone, as a whole and in part.
    for undo in ("SAVEPOINT s", ""):
        cursors[0].execute(undo or "SELECT 1")
        cursors[0].execute("ALTER TABLE dbapi_changes ALTER a TYPE text")
        assert cursors[0].execute("SELECT a FROM dbapi_changes").fetchone() == ("5",)
        cursors[0].execute("ROLLBACK TO s" if undo else "ROLLBACK")
        cursors[0].execute("SELECT 1")
        assert cursors[0].execute("SELECT a FROM dbapi_changes").fetchone() == (5,)
        end()
    for kind in ("int", "text"):
        cursors[0].execute(f"CREATE TABLE dbapi_again (a {kind})")
        cursors[0].execute("SELECT a FROM dbapi_again")
        connection.rollback()
    # Alone.
    connection.autocommit = other.autocommit = True
    assert read() == [5, 5]
    db.execute("ALTER TABLE dbapi_changes ALTER a TYPE text")
    assert read() == ["5", "5"]
    other.close()


def test_errors(connection: postgresql.Connection, shared_postgres: PostgresServer) -> None:
    cursor = connection.cursor()
    for kind, sql in (
        (postgresql.ProgrammingError, "SELEC"),
        (postgresql.ProgrammingError, "SELECT * FROM nowhere"),
        (postgresql.DataError, "SELECT 1 / 0"),
        (postgresql.OperationalError, "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$"),
    ):
        with pytest.raises(kind):
            cursor.execute(sql)
        connection.rollback()
    with pytest.raises(postgresql.InterfaceError):
        postgresql.connect("postgresql://localhost?nonsense=1")
    with pytest.raises(postgresql.OperationalError):
        postgresql.connect(f"{shared_postgres.unix_url}?dbname=nowhere", wait=5)


def test_closing(shared_postgres: PostgresServer, db: Postgres) -> None:
    db.execute("CREATE TABLE dbapi_closed (a int)")
    with postgresql.connect(shared_postgres.unix_url) as connection:
        with connection.cursor() as cursor:
            assert cursor.callproc("lower", ("X",)) == ("X",)
            assert cursor.fetchall() == [("x",)]
        with pytest.raises(postgresql.InterfaceError):
            cursor.execute("SELECT 1")
        connection.cursor().execute("INSERT INTO dbapi_closed VALUES (1)")
    with pytest.raises(ZeroDivisionError), postgresql.connect(shared_postgres.unix_url) as other:
        other.cursor().execute("INSERT INTO dbapi_closed VALUES (2)")
        raise ZeroDivisionError
    assert db.fetch("SELECT a FROM dbapi_closed") == [(1,)]
    connection.close()
    for use in (connection.cursor, connection.commit, connection.rollback):
        with pytest.raises(postgresql.Error):
            use()


def test_options_by_name(shared_postgres: PostgresServer) -> None:
    name = "so & so"
    with postgresql.connect(
        host="127.0.0.1",
        port=shared_postgres.port,
        user="app",
        password=PASSWORD,
        database="app",
        application_name=name,
        sslmode=None,
    ) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT current_setting('application_name'), current_database()")
        assert cursor.fetchone() == (name, "app")
        with pytest.raises(postgresql.InterfaceError, match="client"):
            postgresql.connect(Postgres(shared_postgres.unix_url, mode="sync"), user="app")
    with postgresql.connect(f"{shared_postgres.unix_url}?leases=3", dbname="template1") as other:
        cursor = other.cursor()
        cursor.execute("SELECT current_database()")
        assert cursor.fetchone() == ("template1",)
    with pytest.raises(postgresql.InterfaceError, match="twice|once|given"):
        postgresql.connect(f"{shared_postgres.unix_url}?dbname=postgres", dbname="template1")
    with pytest.raises(postgresql.InterfaceError, match="nonsense"):
        postgresql.connect("postgresql://localhost", nonsense=1)


def test_no_password_is_shown(shared_postgres: PostgresServer) -> None:
    with pytest.raises(postgresql.OperationalError) as caught:
        postgresql.connect(
            host="127.0.0.1",
            port=shared_postgres.port,
            user="nobody_here",
            password="s3cret",
            wait=5,
        )
    assert "s3cret" not in str(caught.value)
