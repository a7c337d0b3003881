"""A real PostgreSQL: sharing, errors, transactions, leases, prepared statements, large results."""

from __future__ import annotations

import asyncio
import pickle
import random
import threading

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import postgres, sync
from iokernel.sync import Postgres
from kit.help import until
from kit.postgres import PostgresServer

SELF = "pid = pg_backend_pid()"


def test_records(db: Postgres) -> None:
    row = db.fetchrow("SELECT 1 AS a, 'x'::text AS b, 2 AS a")
    assert row is not None
    assert row == (1, "x", 2)
    assert (row["a"], row["b"], row[2], row[:2]) == (1, "x", 2, (1, "x"))
    assert (row.keys(), row.values()) == (("a", "b", "a"), (1, "x", 2))
    assert list(row.items()) == [("a", 1), ("b", "x"), ("a", 2)]
    assert (row.get("b"), row.get("c"), row.get("c", 5)) == ("x", None, 5)
    assert repr(row) == "<Record a=1 b='x' a=2>"
    again = pickle.loads(pickle.dumps(row))
    assert (again, again["b"]) == (row, "x")
    with pytest.raises(KeyError):
        row["c"]
    assert db.fetchrow("SELECT 1 WHERE false") is None
    assert db.fetchval("SELECT 1 WHERE false") is None
    assert db.fetchval("SELECT 1, 2", column=1) == 2
    assert db.fetch("SELECT g FROM generate_series(1, 3) g") == [(1,), (2,), (3,)]
    assert db.execute("DO $$ BEGIN END $$") == "DO"
    assert db.call("SELECT 1 AS a") == [["a"], [23], [[1]], "SELECT 1"]


@pytest.mark.parametrize("statements", [0, 3, 128])
def test_many_tasks_on_four_connections(shared_postgres: PostgresServer, statements: int) -> None:
    """Every reply carries its own key, whoever fails or goes away beside it."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)

    async def one(db: aio.Postgres, key: int) -> str:
        kind = chance.random()
        text = f"SELECT $1::int + {key % 7}, repeat('x', $2)"  # more of them than are kept
        if kind < 0.01:
            with pytest.raises(postgres.DataError):
                await db.fetch("SELECT 1 / ($1::int - $1::int)", key)
            return "failed"
        if kind < 0.06:
            call = db.call(text, key, key % 50)
            await asyncio.sleep(0)
            if call.cancel():  # else its reply is there already
                with pytest.raises(asyncio.CancelledError):
                    await call
                return "cancelled"
        assert await db.fetch(text, key, key % 50) == [(key + key % 7, "x" * (key % 50))]
        return "done"

    async def main() -> None:
        url = f"{shared_postgres.unix_url}?application_name=tasks&statements={statements}"
        async with aio.connect(url, kind=aio.Postgres) as db:

            async def many(task: int) -> list[str]:
                return [await one(db, task * 100 + i) for i in range(10)]

            ends = await asyncio.gather(*[many(task) for task in range(500)])
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tasks'"
            assert await db.fetchval(count) == 4
            assert sum(end.count("done") for end in ends) > 4000
            assert db.stats()["disconnects"] == 0

    asyncio.run(main())


def test_errors(db: Postgres) -> None:
    db.execute("CREATE TABLE errors (a int PRIMARY KEY CHECK (a > 0), b text NOT NULL)")
    db.execute("INSERT INTO errors VALUES (1, 'x')")
    with pytest.raises(postgres.UniqueViolation) as caught:
        db.execute("INSERT INTO errors VALUES ($1, $2)", 1, "y")
    error = caught.value
    assert isinstance(error, postgres.IntegrityError)
    assert isinstance(error, iokernel.ReplyError)
    assert (error.sqlstate, error.kind, error.severity) == ("23505", "23505", "ERROR")
    assert error.detail == "Key (a)=(1) already exists."
    assert error.fields["constraint"] == "errors_pkey"
    assert error.fields["table"] == "errors"
    assert (error.outcome, str(error)) == (
        "done",
        'duplicate key value violates unique constraint "errors_pkey"',
    )
    assert pickle.loads(pickle.dumps(error)).detail == error.detail
    for kind, sql in (
        (postgres.NotNullViolation, "INSERT INTO errors VALUES (2)"),
        (postgres.CheckViolation, "INSERT INTO errors VALUES (0, '')"),
        (postgres.UndefinedTable, "SELECT * FROM nowhere"),
        (postgres.UndefinedColumn, "SELECT nothing FROM errors"),
        (postgres.SQLSyntaxError, "SELEC 1"),
        (postgres.DataError, "SELECT 1 / 0"),
        (postgres.StatementError, "SELECT nofunction()"),
    ):
        with pytest.raises(kind):
            db.execute(sql)
    with pytest.raises(postgres.UndefinedColumn) as hinted:
        db.execute("SELECT erors.a, aa FROM errors AS erors WHERE bb")
    assert hinted.value.position == 17
    # Two commands are one too many for a statement with parameters, and so for all of ours.
    with pytest.raises(postgres.SQLSyntaxError):
        db.execute("SELECT 1; SELECT 2")
    with pytest.raises(TypeError):
        db.execute("SELECT $1", object())
    assert db.fetchval("SELECT 5") == 5


def test_wrong_number_of_parameters(db: Postgres) -> None:
    with pytest.raises(iokernel.Error):
        db.fetch("SELECT $1::int", 1, 2)
    assert [db.fetchval("SELECT $1::int", 1) for _ in range(2)] == [1, 1]
    with pytest.raises(iokernel.Unsafe, match="takes 1 parameters; 2 were given"):
        for _ in range(8):  # the connections take turns: each has to know it first
            db.fetch("SELECT $1::int", 1)
            db.fetch("SELECT $1::int", 1, 2)


@pytest.mark.parametrize(
    "sql",
    [
        "BEGIN",
        "-- a\n/* b */ ;commit",
        "SET a.b = 1",
        "CREATE TEMP TABLE x ()",
        "LISTEN x",
        "COPY x TO STDOUT",
    ],
)
def test_shared_connections_are_not_changed(db: Postgres, sql: str) -> None:
    with pytest.raises(iokernel.Unsafe):
        db.execute(sql)


def test_transactions(db: Postgres) -> None:
    db.execute("CREATE TABLE moves (a int)")
    with db.transaction() as tx:
        tx.execute("INSERT INTO moves VALUES (1)")
        assert db.fetchval("SELECT count(*) FROM moves") == 0  # on another connection
    assert db.fetchval("SELECT count(*) FROM moves") == 1
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:
        tx.execute("INSERT INTO moves VALUES (2)")
        raise ZeroDivisionError
    with pytest.raises(postgres.DataError), db.transaction() as tx:
        tx.execute("INSERT INTO moves VALUES (3)")
        tx.execute("SELECT 1 / 0")
    # A failure that was caught inside leaves nothing to commit: that must not pass for a commit.
    with pytest.raises(postgres.InFailedTransaction), db.transaction() as tx:
        tx.execute("INSERT INTO moves VALUES (4)")
        with pytest.raises(postgres.DataError):
            tx.execute("SELECT 1 / 0")
        with pytest.raises(postgres.InFailedTransaction):
            tx.execute("SELECT 1")
    assert db.fetch("SELECT a FROM moves") == [(1,)]
    with db.transaction(isolation="serializable", readonly=True, deferrable=True) as tx:
        assert tx.fetchval("SHOW transaction_isolation") == "serializable"
        with pytest.raises(postgres.ReadOnlyTransaction):
            tx.execute("INSERT INTO moves VALUES (5)")
        tx.execute("ROLLBACK AND CHAIN")
    with pytest.raises(ValueError, match="read committed"):
        db.transaction(isolation="none")  # type: ignore[arg-type]


def test_serialization_failure(db: Postgres) -> None:
    db.execute("CREATE TABLE races (a int)")
    db.execute("INSERT INTO races VALUES (0)")
    with (
        pytest.raises(postgres.SerializationFailure),
        db.transaction(isolation="repeatable read") as tx,
    ):
        tx.fetch("SELECT a FROM races")
        db.execute("UPDATE races SET a = 1")
        tx.execute("UPDATE races SET a = 2")


def test_abandoned_transaction(shared_postgres: PostgresServer) -> None:
    """A task that is cancelled in the midst of a statement leaves no lock, and no change."""

    async def main() -> None:
        url = f"{shared_postgres.unix_url}?application_name=abandoned&leases=1"
        async with aio.connect(url, kind=aio.Postgres) as db:
            await db.execute("CREATE TABLE abandoned (a int)")
            inside = asyncio.Event()

            async def transaction() -> None:
                async with db.transaction() as tx:
                    await tx.execute("INSERT INTO abandoned VALUES (1)")
                    await tx.execute("LOCK abandoned")
                    inside.set()
                    await tx.execute("SELECT pg_sleep(60)", timeout=60)

            task = asyncio.create_task(transaction())
            await inside.wait()
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await db.fetchval("SELECT count(*) FROM abandoned", timeout=30) == 0
            async with db.transaction() as tx:
                await tx.execute("INSERT INTO abandoned VALUES (2)")
            assert await db.fetch("SELECT a FROM abandoned") == [(2,)]

    asyncio.run(main())


def test_a_lease_is_clean_when_it_is_given_back(shared_postgres: PostgresServer) -> None:
    url = f"{shared_postgres.unix_url}?leases=1"
    with sync.connect(url, kind=Postgres) as db:
        with db.lease() as lease:
            pid = lease.fetchval("SELECT pg_backend_pid()")
            before = lease.fetchval("SHOW work_mem")
            lease.execute("SET work_mem = '7MB'")
            lease.execute("CREATE TEMP TABLE mine (a int)")
            lease.fetch("SELECT pg_advisory_lock(77)")
            lease.execute("PREPARE own AS SELECT 1")
            lease.execute("BEGIN")
            lease.execute("DECLARE c CURSOR FOR SELECT 1")
        with db.lease() as lease:
            assert lease.fetchval("SELECT pg_backend_pid()") == pid
            assert lease.fetchval("SHOW work_mem") == before
            assert lease.fetch("SELECT * FROM pg_class WHERE relname = 'mine'") == []
            assert lease.fetch("SELECT * FROM pg_locks WHERE locktype = 'advisory'") == []
            assert lease.fetch("SELECT * FROM pg_prepared_statements WHERE name = 'own'") == []
            with pytest.raises(postgres.TransactionError):
                lease.execute("SAVEPOINT s")


def test_prepared_statements(shared_postgres: PostgresServer) -> None:
    """They are kept over the end of a lease, bounded in number, and renewed after DDL."""
    url = f"{shared_postgres.unix_url}?leases=1&statements=3&connections=2"
    with sync.connect(url, kind=Postgres) as db:
        names = "SELECT count(*) FROM pg_prepared_statements"
        with db.lease() as lease:
            for i in range(10):
                assert lease.fetchval(f"SELECT {i}") == i
            assert lease.fetchval(names) == 3
        with db.lease() as lease:
            assert lease.fetchval(names) == 3
        db.execute("CREATE TABLE changes (a int)")
        db.execute("INSERT INTO changes VALUES (1)")
        for i in range(20):
            expected = (1, *range(i))
            assert db.fetchrow("SELECT * FROM changes") == expected
            assert db.fetchrow("SELECT * FROM changes") == expected
            db.execute(f"ALTER TABLE changes ADD COLUMN b{i} int DEFAULT {i}")
        assert db.stats()["retries"] > 0
        with db.lease() as lease:
            lease.fetch("SELECT 5")
            lease.execute("DEALLOCATE ALL")
            assert lease.fetchval("SELECT 5") == 5
        # Gone by a way that nobody can see: asked for again by itself, as it was not run.
        for _ in range(4):
            db.execute("DO $$ BEGIN EXECUTE 'DEALLOCATE ALL'; END $$")
            assert db.fetchval("SELECT 6") == 6


def test_types_change_within_a_transaction(db: Postgres) -> None:
    db.execute("CREATE TABLE retyped (a int)")
    with pytest.raises(iokernel.Rejected) as caught, db.transaction() as tx:
        tx.fetch("SELECT * FROM retyped")
        tx.execute("ALTER TABLE retyped ADD COLUMN b int")
        tx.fetch("SELECT * FROM retyped")
    assert caught.value.outcome == "rejected"
    assert isinstance(caught.value, postgres.PostgresError)


def test_large_results(db: Postgres) -> None:
    for _ in range(2):
        rows = db.fetch("SELECT g, g::text, g * 1.5::float8 FROM generate_series(1, 20000) g")
        assert rows == [(g, str(g), g * 1.5) for g in range(1, 20001)]
        assert db.fetchval("SELECT repeat('é', 5000000)") == "é" * 5000000
    octets = bytes(range(256)) * 20000
    assert [db.fetchval("SELECT $1::bytea", octets) for _ in range(2)] == [octets, octets]
    text = "x" * 3000000
    assert db.fetchval("SELECT length($1)", text) == len(text)


def test_a_reply_over_its_limit(shared_postgres: PostgresServer) -> None:
    with sync.connect(f"{shared_postgres.unix_url}?max_reply=10k", kind=Postgres) as db:
        for _ in range(3):
            with pytest.raises(iokernel.Error, match="max_reply") as caught:
                db.fetch("SELECT repeat('x', 100000)")
            assert caught.value.outcome == "done"
            with pytest.raises(iokernel.Error, match="max_reply"):
                db.fetch("SELECT generate_series(1, 10000)")
        assert db.fetchval("SELECT 1") == 1
        assert db.stats()["disconnects"] == 0


def test_deferred_constraint(db: Postgres) -> None:
    """It fails at the very end, after the command's own success."""
    db.execute("CREATE TABLE deferred (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
    with pytest.raises(postgres.UniqueViolation):
        db.execute("INSERT INTO deferred VALUES (1), (1)")
    assert db.fetch("SELECT * FROM deferred") == []


def test_threads(db: Postgres) -> None:
    wrong: list[object] = []

    def work(number: int) -> None:
        for i in range(100):
            if db.fetchval("SELECT $1::int", number * 1000 + i) != number * 1000 + i:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_notifications(shared_postgres: PostgresServer, db: Postgres) -> None:
    lease = db.lease()
    stream = iokernel.Stream(lease, "LISTEN news")

    def heard() -> bool:
        db.execute("NOTIFY news, 'one'")  # nobody hears it before the server has taken the LISTEN
        try:
            return bool(stream.next(0.2)[:3] == ["notification", "news", "one"])
        except iokernel.Timeout:
            return False

    until(heard)
    stream.close()
    lease.close()
    assert db.fetchval("SELECT 1") == 1


def test_kinds_of_clients(shared_postgres: PostgresServer) -> None:
    with sync.connect(shared_postgres.unix_url) as client:
        assert isinstance(client, Postgres)
    with pytest.raises(TypeError, match="is for Postgres, not Redis"):
        sync.connect(shared_postgres.unix_url, kind=sync.Redis)
    with sync.connect(shared_postgres.unix_url, kind=sync.Client) as plain:
        assert plain.call("SELECT 1")[2] == [[1]]
