"""Transactions on a real PostgreSQL: savepoints, ends by hand, retries, waiting for a lease; and executemany."""

from __future__ import annotations

import asyncio
import threading

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import postgres, sync
from iokernel._core import Lease
from iokernel.sync import Postgres, PostgresLease
from kit.help import auntil, until
from kit.postgres import PostgresServer


def rows_of(db: Postgres, table: str) -> list[int]:
    return [row[0] for row in db.fetch(f"SELECT a FROM {table} ORDER BY a")]


def test_savepoints(db: Postgres) -> None:
    db.execute("CREATE TABLE savepoints (a int)")
    insert = "INSERT INTO savepoints VALUES ($1)"
    with db.transaction() as tx:
        tx.execute(insert, 1)
        with pytest.raises(ZeroDivisionError), tx.transaction():
            tx.execute(insert, 2)
            raise ZeroDivisionError
        with pytest.raises(postgres.DataError), tx.transaction():
            tx.execute("SELECT 1 / 0")
        with tx.transaction() as inner:
            assert inner is tx
            tx.execute(insert, 3)
            with pytest.raises(KeyError), tx.transaction():
                tx.execute(insert, 4)
                raise KeyError
        # A failure that was caught inside voids the savepoint, and only that.
        with pytest.raises(postgres.InFailedTransaction), tx.transaction():
            tx.execute(insert, 5)
            with pytest.raises(postgres.DataError):
                tx.execute("SELECT 1 / 0")
        with pytest.raises(ValueError, match="outermost"):
            tx.transaction(isolation="serializable").start()
        tx.execute(insert, 6)
    assert rows_of(db, "savepoints") == [1, 3, 6]


def test_ends_by_hand(db: Postgres) -> None:
    db.execute("CREATE TABLE by_hand (a int)")
    insert = "INSERT INTO by_hand VALUES ($1)"
    transaction = db.transaction()
    assert not transaction.active
    with pytest.raises(RuntimeError, match="has not begun"):
        transaction.commit()
    tx = transaction.start()
    assert transaction.active
    tx.execute(insert, 1)
    inner = tx.transaction()
    inner.start()
    with pytest.raises(RuntimeError, match="within this one"):
        transaction.commit()
    tx.execute(insert, 2)
    inner.rollback()
    transaction.commit()
    for again in (transaction.commit, transaction.rollback, transaction.start):
        with pytest.raises(RuntimeError, match="ended|begun already"):
            again()
    with pytest.raises(iokernel.Closed):
        tx.execute(insert, 3)  # not by itself, behind the transaction's back
    with db.transaction() as tx:
        tx.execute(insert, 4)
        tx.rollback()
    with db.lease() as lease:
        with lease.transaction():
            lease.execute(insert, 5)
            lease.commit()
        lease.execute(insert, 6)
        with pytest.raises(RuntimeError, match="no transaction"):
            lease.rollback()
    assert rows_of(db, "by_hand") == [1, 5, 6]


@pytest.mark.parametrize("level", ["read uncommitted", "repeatable read"])
def test_isolation(db: Postgres, level: postgres.Isolation) -> None:
    with db.lease() as lease, lease.transaction(isolation=level, readonly=True):
        assert lease.fetchval("SHOW transaction_isolation") == level
        assert lease.fetchval("SHOW transaction_read_only") == "on"


def test_run_transaction(db: Postgres) -> None:
    """Two threads that must collide: both succeed in the end, and nothing is lost."""
    db.execute("CREATE TABLE collide (a int)")
    db.execute("INSERT INTO collide VALUES (0)")
    meet = threading.Barrier(2, timeout=20)
    tries: list[int] = []

    def add(tx: PostgresLease, number: int) -> int:
        value = int(tx.fetchval("SELECT a FROM collide"))
        tries.append(number)
        if tries.count(number) == 1:
            meet.wait()
        tx.execute("UPDATE collide SET a = $1", value + number)
        return number

    def work(number: int) -> None:
        assert db.run_transaction(add, number, attempts=20, isolation="serializable") == number

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows_of(db, "collide") == [11]
    assert len(tries) > 2


def test_run_transaction_gives_up(db: Postgres) -> None:
    calls: list[str] = []

    def fails(tx: PostgresLease, state: str) -> None:
        calls.append(state)
        tx.execute(f"DO $$ BEGIN RAISE SQLSTATE '{state}'; END $$")

    with pytest.raises(postgres.DeadlockDetected):
        db.run_transaction(fails, "40P01", attempts=3)
    with pytest.raises(postgres.IntegrityError):
        db.run_transaction(fails, "23505", attempts=3)
    with pytest.raises(ValueError, match="attempts"):
        db.run_transaction(fails, "40P01", attempts=0)
    assert calls == ["40P01"] * 3 + ["23505"]


def test_executemany(db: Postgres) -> None:
    db.execute("CREATE TABLE many (a int PRIMARY KEY)")
    insert = "INSERT INTO many VALUES ($1)"
    db.executemany(insert, ((i,) for i in range(1500)))
    assert rows_of(db, "many") == list(range(1500))
    db.executemany(insert, [])
    with pytest.raises(postgres.UniqueViolation) as caught:
        db.executemany(insert, [(1500,), (7,), (1501,)])
    assert caught.value.row == 1
    assert rows_of(db, "many") == list(range(1502))  # each row was a statement of its own
    with pytest.raises(postgres.UniqueViolation), db.transaction() as tx:
        tx.executemany(insert, [(1502,), (7,), (1503,)])
    assert rows_of(db, "many") == list(range(1502))


def test_on_asyncio(shared_postgres: PostgresServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db:
            await db.execute("CREATE TABLE on_asyncio (a int PRIMARY KEY)")
            insert = "INSERT INTO on_asyncio VALUES ($1)"
            async with db.transaction() as tx:
                await tx.executemany(insert, [(i,) for i in range(5)])
                with pytest.raises(postgres.UniqueViolation):
                    async with tx.transaction():
                        await tx.execute(insert, 0)
            attempts = 0

            async def twice(tx: aio.PostgresLease, key: int) -> str:
                nonlocal attempts
                attempts += 1
                await tx.execute(insert, key)
                if attempts == 1:
                    await tx.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
                return "done"

            assert await db.run_transaction(twice, 5) == "done"
            assert attempts == 2
            with pytest.raises(postgres.UniqueViolation) as caught:
                await db.executemany(insert, [(6,), (0,)])
            assert caught.value.row == 1
            assert await db.fetchval("SELECT count(*) FROM on_asyncio") == 7

    asyncio.run(main())


def test_leases_wait_their_turn(shared_postgres: PostgresServer) -> None:
    """With one lease, transactions get it in their order; one whose time is over was never sent."""

    async def main() -> None:
        async with aio.connect(f"{shared_postgres.unix_url}?leases=1", kind=aio.Postgres) as db:
            order: list[int] = []

            async def one(number: int) -> None:
                async with db.transaction(timeout=60) as tx:
                    await tx.fetch("SELECT 1")
                    order.append(number)

            async with db.transaction():
                tasks = [asyncio.create_task(one(number)) for number in range(8)]
                with pytest.raises(iokernel.Timeout) as caught:
                    async with db.transaction(timeout=0.2):
                        pass
                assert caught.value.outcome == "never-sent"
                assert order == []
            await asyncio.gather(*tasks)
            assert order == list(range(8))

    asyncio.run(main())


def test_cancelled_within_a_savepoint(shared_postgres: PostgresServer, db: Postgres) -> None:
    async def main() -> None:
        async with aio.connect(f"{shared_postgres.unix_url}?leases=1", kind=aio.Postgres) as other:
            await other.execute("CREATE TABLE cut_short (a int)")
            inside = asyncio.Event()

            async def work() -> None:
                async with other.transaction() as tx, tx.transaction():
                    await tx.execute("INSERT INTO cut_short VALUES (1)")
                    inside.set()
                    await tx.execute("SELECT pg_sleep(60)", timeout=120)

            task = asyncio.create_task(work())
            await inside.wait()
            running = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'"
            await auntil(lambda: db.fetchval(running) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            async with other.transaction(timeout=60) as tx:
                assert await tx.fetchval("SELECT count(*) FROM cut_short") == 0

    asyncio.run(main())


def test_a_lease_that_roams(shared_postgres: PostgresServer) -> None:
    """Threads use it in turn; two at once are told so; another lease stays where it was made."""
    with sync.connect(shared_postgres.unix_url, kind=Postgres) as db:
        roaming, fixed = Lease(db, roams=True), Lease(db)
        seen: list[object] = [roaming.call("SELECT pg_backend_pid()")[2][0][0]]
        fixed.call("SELECT 1")

        def elsewhere() -> None:
            seen.append(roaming.call("SELECT pg_backend_pid()")[2][0][0])
            with pytest.raises(iokernel.WrongThread):
                fixed.call("SELECT 1")

        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        assert (
            len(seen) == 2
            and seen[0] == seen[1] == roaming.call("SELECT pg_backend_pid()")[2][0][0]
        )
        thread = threading.Thread(target=roaming.call, args=("SELECT pg_advisory_lock(4711)",))
        with db.lease() as lease:
            lease.fetch("SELECT pg_advisory_lock(4711)")
            thread.start()
            waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted"
            until(lambda: db.fetchval(waits) == 1)
            with pytest.raises(iokernel.WrongThread, match="another thread waits"):
                roaming.call("SELECT 1")
            lease.fetch("SELECT pg_advisory_unlock(4711)")
        thread.join()
        assert roaming.call("SELECT 1")[2] == [[1]]
        roaming.close()
        async_client = aio.connect(db)
        with pytest.raises(ValueError, match="cannot roam"):
            Lease(async_client, roams=True)
