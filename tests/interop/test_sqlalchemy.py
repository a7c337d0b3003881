"""The dialect of SQLAlchemy beyond its compliance suite: values, transactions, cursors, the pool's recovery.

Most tests run on both kinds of engine: ``run`` gives a function its connection.
"""

from __future__ import annotations

import asyncio
import datetime
import decimal
import enum
import gc
import ipaddress
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from iokernel import sync
from iokernel.dbapi import postgresql as dbapi
from iokernel.values import Interval
from kit.help import run_program, until
from kit.pgbouncer import PgBouncer
from kit.postgres import PASSWORD, PostgresServer
from sqlalchemy import exc, pool
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import create_async_engine

Run = Callable[..., Any]


def url_of(server: PostgresServer, **options: str) -> sa.URL:
    where = {"host": str(server.directory), "port": str(server.port)}
    return sa.URL.create(
        "postgresql+iokernel", username="app", database="app", query={**where, **options}
    )


@pytest.fixture
def engine(shared_postgres: PostgresServer) -> Iterator[sa.Engine]:
    made = sa.create_engine(url_of(shared_postgres))
    yield made
    made.dispose()


@pytest.fixture(params=["threads", "asyncio"])
def run(request: pytest.FixtureRequest, shared_postgres: PostgresServer) -> Run:
    """Gives a function a connection, in a transaction that is committed; `begin=False`: in none."""

    def on_threads(body: Run, *, begin: bool = True, **options: Any) -> Any:
        engine = sa.create_engine(url_of(shared_postgres), **options)
        try:
            with engine.begin() if begin else engine.connect() as connection:
                return body(connection)
        finally:
            engine.dispose()

    async def on_a_loop(body: Run, begin: bool, options: dict[str, Any]) -> Any:
        engine = create_async_engine(url_of(shared_postgres), **options)
        try:
            async with engine.begin() if begin else engine.connect() as connection:
                return await connection.run_sync(body)
        finally:
            await engine.dispose()

    def on_asyncio(body: Run, *, begin: bool = True, **options: Any) -> Any:
        return asyncio.run(on_a_loop(body, begin, options))

    return on_threads if request.param == "threads" else on_asyncio


# ---- values -------------------------------------------------------------------------------------


class Mood(enum.Enum):
    GOOD = "good"
    SO_SO = "so, so"


UTC = datetime.timezone.utc
NOON = datetime.datetime(2026, 11, 25, 12, 0, 0, 250)
Multi = pg.ranges.MultiRange
VALUES: list[tuple[Any, Any]] = [
    (sa.SmallInteger(), -3),
    (sa.BigInteger(), 2**62),
    (sa.Numeric(20, 5), decimal.Decimal("-12.34567")),
    (sa.Numeric(20, 5, asdecimal=False), 0.5),
    (sa.Float(), 2.5),
    (sa.Float(asdecimal=True, decimal_return_scale=2), decimal.Decimal("2.50")),
    (sa.Double(), 1e300),
    (sa.Boolean(), True),
    (sa.String(20), "it's ü"),
    (sa.LargeBinary(), b"\0\xff"),
    (sa.Date(), NOON.date()),
    (sa.DateTime(), NOON),
    (sa.DateTime(timezone=True), NOON.replace(tzinfo=UTC)),
    (sa.Time(), NOON.time()),
    (sa.Time(timezone=True), NOON.time().replace(tzinfo=UTC)),
    (sa.Interval(), datetime.timedelta(days=-2, seconds=5, microseconds=7)),
    (pg.INTERVAL(), datetime.timedelta(hours=100)),
    (sa.Uuid(), uuid.UUID(int=7)),
    (sa.Uuid(as_uuid=False), str(uuid.UUID(int=7))),
    (sa.JSON(), {"a": [1, None, "x"]}),
    (pg.JSONB(), ["x", {"y": 1.5}]),
    (sa.JSON(), "a string"),
    (sa.Enum(Mood, name="sqla_mood"), Mood.SO_SO),
    (sa.ARRAY(sa.Integer), [1, None, 3]),
    (pg.ARRAY(sa.String, dimensions=2), [["a", "b,"], ['"c"', "NULL"]]),
    (pg.ARRAY(sa.Numeric(5, 2)), [decimal.Decimal("1.50")]),
    (pg.ARRAY(pg.JSONB), [{"a": 1}, [2]]),
    (pg.ARRAY(sa.Enum(Mood, name="sqla_mood")), [Mood.GOOD, Mood.SO_SO]),
    (pg.ARRAY(sa.Uuid), [uuid.UUID(int=1)]),
    (pg.INT4RANGE(), pg.Range(1, 5)),
    (pg.INT8RANGE(), pg.Range(2**40, None)),
    (pg.NUMRANGE(), pg.Range(decimal.Decimal("1.5"), decimal.Decimal("2.5"), bounds="(]")),
    (pg.DATERANGE(), pg.Range(empty=True)),
    (pg.TSRANGE(), pg.Range(None, NOON)),
    (pg.TSTZRANGE(), pg.Range(NOON.replace(tzinfo=UTC), None)),
    (pg.INT4MULTIRANGE(), Multi([pg.Range(1, 5), pg.Range(7, 9)])),
    (pg.INET(), ipaddress.ip_address("10.0.0.1")),
    (pg.INET(), ipaddress.ip_interface("10.0.0.1/8")),
    (pg.CIDR(), ipaddress.ip_network("10.0.0.0/8")),
    (pg.MACADDR(), "08:00:2b:01:02:03"),
    (pg.HSTORE(), {"a": "1", 'q"': None}),
    (pg.BIT(4), pg.BitString("0101")),
    (pg.TSVECTOR(), "'cat' 'dog'"),
]


def test_values(run: Run, shared_postgres: PostgresServer) -> None:
    shared_postgres.psql("CREATE EXTENSION IF NOT EXISTS hstore")
    columns = [sa.Column(f"c{i}", kind) for i, (kind, _) in enumerate(VALUES)]
    table = sa.Table("sqla_values", sa.MetaData(), sa.Column("n", sa.Integer), *columns)

    def body(connection: sa.Connection) -> None:
        table.create(connection)
        rows = [
            {"n": 1, **{f"c{i}": value for i, (_, value) in enumerate(VALUES)}},
            {"n": 2, **{f"c{i}": None for i in range(len(VALUES))}},
        ]
        # JSON's null is not SQL's.
        rows[1].update(
            {f"c{i}": sa.null() for i, (kind, _) in enumerate(VALUES) if "JSON" in repr(kind)}
        )
        for row in rows:
            connection.execute(table.insert().values(row))
        for _ in range(2):  # as text at first, in binary then
            got, nulls = connection.execute(table.select().order_by(table.c.n)).all()
            for (kind, value), given, null in zip(VALUES, got[1:], nulls[1:], strict=True):
                assert (repr(kind), given, type(given)) == (repr(kind), value, type(value))
                assert null is None, kind
        table.drop(connection)

    run(body)


def test_months_and_options_of_types(run: Run) -> None:
    sql = sa.text("SELECT interval '1 month' a, '10.0.0.1'::inet b, '{\"a\": 1}'::jsonb c").columns(
        a=pg.INTERVAL(), b=pg.INET(), c=pg.JSONB()
    )
    got = run(
        lambda connection: connection.execute(sql).one(),
        native_inet_types=False,
        json_deserializer=lambda text: text,
    )
    assert got == (Interval(months=1), "10.0.0.1", '{"a": 1}')


def test_inserts_give_back_what_the_server_made(run: Run) -> None:
    table = sa.Table(
        "sqla_many",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("key", sa.String, unique=True),
        sa.Column("hits", sa.Integer, server_default="1"),
    )

    def body(connection: sa.Connection) -> None:
        table.create(connection)
        rows = [{"key": f"k{i}"} for i in range(2500)]
        made = connection.execute(
            table.insert().returning(table.c.key, table.c.hits, sort_by_parameter_order=True), rows
        ).all()
        assert made == [(row["key"], 1) for row in rows]
        counted = connection.execution_options(preserve_rowcount=True)
        assert counted.execute(table.insert(), [{"key": "x"}, {"key": "y"}]).rowcount == 2
        upsert = pg.insert(table).on_conflict_do_update(
            index_elements=["key"], set_={"hits": table.c.hits + 1}
        )
        assert connection.scalar(upsert.returning(table.c.hits), {"key": "x"}) == 2
        update = table.update().where(table.c.key == sa.bindparam("k")).values(hits=9)
        assert connection.execute(update, [{"k": "k1"}, {"k": "no"}, {"k": "k2"}]).rowcount == 2
        with pytest.raises(exc.IntegrityError) as caught:
            connection.execute(table.insert(), {"key": "x"})
        assert caught.value.orig.sqlstate == "23505"  # type: ignore[union-attr]
        connection.rollback()

    run(body, begin=False)


# ---- transactions -------------------------------------------------------------------------------


def shown(connection: sa.Connection, name: str) -> Any:
    return connection.exec_driver_sql(f"SHOW {name}").scalar()


def test_isolation(run: Run) -> None:
    def body(connection: sa.Connection) -> None:
        assert connection.get_isolation_level() == "READ COMMITTED"
        assert not connection.connection.dbapi_connection.in_transaction  # type: ignore[union-attr]
        connection.execution_options(
            isolation_level="SERIALIZABLE", postgresql_readonly=True, postgresql_deferrable=True
        )
        names = ("transaction_isolation", "transaction_read_only", "transaction_deferrable")
        assert [shown(connection, name) for name in names] == ["serializable", "on", "on"]
        with pytest.raises(exc.InternalError):
            connection.exec_driver_sql("CREATE TABLE sqla_readonly (a int)")
        connection.rollback()
        connection.execution_options(
            isolation_level="AUTOCOMMIT", postgresql_readonly=False, postgresql_deferrable=False
        )
        connection.exec_driver_sql("CREATE TABLE sqla_autocommit (a int)")
        connection.rollback()
        connection.exec_driver_sql("DROP TABLE sqla_autocommit")
        again = connection.engine.connect()
        with again:
            assert shown(again, "transaction_isolation") == "read committed"

    run(body, begin=False)
    assert run(lambda c: shown(c, "transaction_isolation"), isolation_level="REPEATABLE READ") == (
        "repeatable read"
    )


def test_options_end_with_the_checkout(engine: sa.Engine) -> None:
    with engine.connect().execution_options(
        isolation_level="SERIALIZABLE", postgresql_readonly=True
    ) as connection:
        process = connection.scalar(sa.func.pg_backend_pid())
    with engine.connect() as connection:
        assert connection.scalar(sa.func.pg_backend_pid()) == process
        assert shown(connection, "transaction_isolation") == "read committed"
        assert shown(connection, "transaction_read_only") == "off"


def test_a_failed_statement_leaves_nothing_to_commit(run: Run) -> None:
    def body(connection: sa.Connection) -> None:
        with pytest.raises(exc.DataError):
            connection.exec_driver_sql("SELECT 1 / 0")
        with pytest.raises(exc.InternalError, match="instead of committed"):
            connection.commit()
        connection.rollback()
        with connection.begin_nested() as savepoint:
            with pytest.raises(exc.DataError):
                connection.exec_driver_sql("SELECT 1 / 0")
            savepoint.rollback()
        assert connection.scalar(sa.select(5)) == 5
        connection.commit()

    run(body, begin=False)


def test_two_phases() -> None:
    with PostgresServer(["max_prepared_transactions = 4"]) as server:
        engine = sa.create_engine(url_of(server))
        server.psql("CREATE TABLE two (a int)")
        for number, end in ((1, "commit"), (2, "rollback")):
            with engine.connect() as connection:
                transaction = connection.begin_twophase(f"it's {number}")
                connection.exec_driver_sql(f"INSERT INTO two VALUES ({number})")
                transaction.prepare()
                getattr(transaction, end)()
        with engine.connect() as connection:
            transaction = connection.begin_twophase("left")
            connection.exec_driver_sql("INSERT INTO two VALUES (3)")
            transaction.prepare()
            connection.invalidate()
        with engine.connect() as connection:
            assert connection.recover_twophase() == ["left"]
            connection.commit_prepared("left", recover=True)
        assert server.psql("SELECT a FROM two ORDER BY a") == "1\n3"
        engine.dispose()


# ---- cursors ------------------------------------------------------------------------------------

NUMBERS = sa.text("SELECT g FROM generate_series(1, 2500) g")


def test_rows_that_stay_at_the_server(run: Run) -> None:
    def body(connection: sa.Connection) -> None:
        result = connection.execute(NUMBERS, execution_options={"yield_per": 500})
        assert next(result) == (1,)
        assert connection.exec_driver_sql("SELECT 7").scalar() == 7
        assert [row[0] for row in result] == list(range(2, 2501))
        result = connection.execute(NUMBERS, execution_options={"stream_results": True})
        assert result.fetchmany(3) == [(1,), (2,), (3,)]
        assert len(result.fetchall()) == 2497
        connection.commit()
        open_cursors = "SELECT count(*) FROM pg_cursors WHERE name <> ''"
        cut = connection.execute(NUMBERS, execution_options={"yield_per": 10})
        assert cut.fetchone() == (1,)
        assert connection.exec_driver_sql(open_cursors).scalar() == 1
        cut.close()
        assert connection.exec_driver_sql(open_cursors).scalar() == 0
        late = connection.execute(NUMBERS, execution_options={"yield_per": 10})
        connection.commit()
        with pytest.raises(exc.ProgrammingError, match="ended with its transaction"):
            late.fetchall()

    run(body, begin=False)


def test_no_more_rows_than_asked_for_come(engine: sa.Engine) -> None:
    called = sa.text("SELECT nextval('sqla_rows') FROM generate_series(1, 100000)")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TEMP SEQUENCE sqla_rows")
        result = connection.execution_options(yield_per=50).execute(called)
        result.fetchmany(50)
        assert connection.exec_driver_sql("SELECT last_value FROM sqla_rows").scalar() == 50


# ---- tables that change -------------------------------------------------------------------------


def test_tables_that_another_process_alters(run: Run, shared_postgres: PostgresServer) -> None:
    shared_postgres.psql("DROP TABLE IF EXISTS sqla_altered; CREATE TABLE sqla_altered (a int)")
    shared_postgres.psql("INSERT INTO sqla_altered VALUES (5)")

    def body(connection: sa.Connection) -> None:
        for _ in range(2):
            assert connection.exec_driver_sql("SELECT a FROM sqla_altered").scalar() == 5
            connection.commit()
        shared_postgres.psql("ALTER TABLE sqla_altered ALTER a TYPE text")
        assert connection.exec_driver_sql("SELECT a FROM sqla_altered").scalar() == "5"
        connection.exec_driver_sql("INSERT INTO sqla_altered VALUES ('6')")
        connection.commit()

    run(body, begin=False)
    assert shared_postgres.psql("SELECT count(*) FROM sqla_altered") == "2"


# ---- the pool -----------------------------------------------------------------------------------


def processes(server: PostgresServer, name: str) -> int:
    return int(
        server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{name}'")
    )


def terminate(server: PostgresServer, process: int) -> None:
    server.psql(f"SELECT pg_terminate_backend({process})")
    until(lambda: server.psql(f"SELECT 1 FROM pg_stat_activity WHERE pid = {process}") == "")


@pytest.mark.parametrize("in_transaction", [True, False])
def test_a_lost_connection_is_recognized(
    run: Run, shared_postgres: PostgresServer, in_transaction: bool
) -> None:
    def body(connection: sa.Connection) -> None:
        others = [connection.engine.connect() for _ in range(2)]
        for other in others:
            other.exec_driver_sql("SELECT 1")
            other.close()  # into the pool
        process = connection.scalar(sa.func.pg_backend_pid())
        if not in_transaction:
            connection.commit()
        terminate(shared_postgres, process)
        with pytest.raises(exc.DBAPIError) as caught:
            connection.scalar(sa.select(1))
        assert caught.value.connection_invalidated
        connection.rollback()
        assert connection.scalar(sa.func.pg_backend_pid()) != process
        connection.commit()

    run(body, begin=False)


def test_a_statement_that_is_cut_off_is_recognized(run: Run) -> None:
    def body(connection: sa.Connection) -> None:
        with pytest.raises(exc.DBAPIError) as caught:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)"
            )
        assert caught.value.connection_invalidated
        connection.rollback()
        assert connection.scalar(sa.select(1)) == 1

    run(body, begin=False)


def test_a_server_that_is_killed_and_comes_again() -> None:
    with PostgresServer() as server:
        engine = sa.create_engine(url_of(server), pool_size=2)
        with engine.connect() as idle, engine.connect() as busy:
            for connection in (idle, busy):
                connection.exec_driver_sql("SELECT 1")
            killer = threading.Timer(0, server.kill)
            killer.start()
            for connection in (busy, idle):
                with pytest.raises(exc.DBAPIError) as caught:
                    connection.exec_driver_sql("SELECT pg_sleep(60)")
                assert caught.value.connection_invalidated
            killer.join()
        server.start()
        with engine.connect() as connection:
            assert connection.scalar(sa.select(7)) == 7
        engine.dispose()


def test_an_error_of_the_server_is_no_lost_connection(run: Run) -> None:
    def body(connection: sa.Connection) -> None:
        process = connection.scalar(sa.func.pg_backend_pid())
        connection.exec_driver_sql("SET LOCAL statement_timeout = 10")
        with pytest.raises(exc.OperationalError) as caught:
            connection.exec_driver_sql("SELECT pg_sleep(60)")
        assert not caught.value.connection_invalidated
        connection.rollback()
        assert connection.scalar(sa.func.pg_backend_pid()) == process

    run(body, begin=False)


def test_a_ping_before_use(run: Run, shared_postgres: PostgresServer) -> None:
    def body(connection: sa.Connection) -> None:
        with connection.engine.connect() as other:
            process = other.scalar(sa.func.pg_backend_pid())
        terminate(shared_postgres, process)
        with connection.engine.connect() as other:
            assert other.scalar(sa.func.pg_backend_pid()) != process

    run(body, pool_pre_ping=True)


def test_a_pool_may_be_larger_than_sixteen(shared_postgres: PostgresServer) -> None:
    engine = sa.create_engine(
        url_of(shared_postgres, application_name="sqla_large"), pool_size=18, max_overflow=0
    )
    connections = [engine.connect() for _ in range(18)]
    assert len({one.scalar(sa.func.pg_backend_pid()) for one in connections}) == 18
    for one in connections:
        one.close()
    engine.dispose()
    until(lambda: processes(shared_postgres, "sqla_large") == 0)


def test_without_a_pool_the_kernel_keeps_the_connections(shared_postgres: PostgresServer) -> None:
    url = url_of(shared_postgres, application_name="sqla_null", leases="1", wait="0.2")
    engine = sa.create_engine(url, poolclass=pool.NullPool)
    seen = set()
    for _ in range(5):
        with engine.connect() as connection:
            seen.add(connection.scalar(sa.func.pg_backend_pid()))
            connection.exec_driver_sql("SET search_path = nowhere")
            connection.commit()
        with engine.connect() as connection:
            assert shown(connection, "search_path") != "nowhere"
    assert len(seen) == 1
    with engine.connect(), pytest.raises(exc.OperationalError):
        engine.connect()
    engine.dispose()
    gc.collect()  # the traceback of that error holds the client
    until(lambda: processes(shared_postgres, "sqla_null") == 0)


def test_urls(shared_postgres: PostgresServer) -> None:
    where = f"127.0.0.1:{shared_postgres.port}"
    password = PASSWORD.replace(" ", "%20")
    for url in (
        f"postgresql+iokernel://app:{password}@{where}/app?sslmode=disable",
        f"postgresql+iokernel://app:{password}@/app?host=127.0.0.1:1&host={where}",
        f"postgresql+iokernel://app:{password}@/app?host=127.0.0.1,127.0.0.1&port=1,{shared_postgres.port}",
    ):
        engine = sa.create_engine(url)
        with engine.connect() as connection:
            assert connection.scalar(sa.text("SELECT current_database()")) == "app"
        engine.dispose()
    engine = sa.create_engine(f"postgresql+iokernel://app@{where}/app?nonsense=1")
    with pytest.raises(exc.InterfaceError, match="nonsense"):
        engine.connect()
    wrong = sa.create_engine(f"postgresql+iokernel://app:wr0ng@{where}/app")
    with pytest.raises(exc.OperationalError) as caught:
        wrong.connect()
    assert "wr0ng" not in str(caught.value)


def test_behind_a_pooler_in_transaction_mode(shared_postgres: PostgresServer) -> None:
    """A transaction brings its isolation with it, so nothing depends on the session it comes to."""
    with PgBouncer(shared_postgres, 1) as pooler:
        url = sa.make_url(pooler.url).set(drivername="postgresql+iokernel")
        engine = sa.create_engine(url.update_query_dict({"statements": "0"}))
        serial = engine.execution_options(isolation_level="SERIALIZABLE")
        for _ in range(3):
            for one, level in ((engine, "read committed"), (serial, "serializable")):
                with one.begin() as connection:
                    assert shown(connection, "transaction_isolation") == level
                    result = connection.execute(NUMBERS, execution_options={"yield_per": 500})
                    assert len(result.all()) == 2500
        engine.dispose()


def test_a_client_of_the_program_is_shared(shared_postgres: PostgresServer) -> None:
    with sync.connect(f"{shared_postgres.unix_url}?leases=1", kind=sync.Postgres) as db:
        engine = sa.create_engine(
            "postgresql+iokernel://", connect_args={"service": db, "wait": 0.2}
        )
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
            with pytest.raises(exc.OperationalError):
                engine.connect()
            assert db.stats()["leased"] == 1
        engine.dispose()


def test_after_a_fork(shared_postgres: PostgresServer) -> None:
    out = run_program(
        """
        import os, sys
        import sqlalchemy as sa
        engine = sa.create_engine(sys.argv[1], pool_pre_ping=True, pool_size=1)
        def process():
            with engine.connect() as connection:
                return connection.scalar(sa.func.pg_backend_pid())
        before = process()
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, str(process()).encode())
            os._exit(0)
        os.wait()
        print(process() == before, int(os.read(read, 100)) != before)
        """,
        url_of(shared_postgres).render_as_string(hide_password=False),
    )
    assert out.split() == ["True", "True"]


def test_the_driver_alone(shared_postgres: PostgresServer) -> None:
    """What SQLAlchemy does not come to: misuse is told of, and nothing is asked of the server."""
    from iokernel.sqlalchemy import driver

    connection = driver.connect(shared_postgres.unix_url)
    cursor = connection.cursor(rows=2)
    with pytest.raises(dbapi.ProgrammingError):
        cursor.fetchall()
    cursor.execute("SELECT g FROM generate_series(1, 5) g")
    assert (cursor.fetchone(), cursor.fetchmany(2), cursor.rowcount) == ((1,), [(2,), (3,)], -1)
    connection.close()
    cursor.close()
    for use in (connection.cursor, connection.ping, connection.commit):
        with pytest.raises(dbapi.InterfaceError):
            use()
