"""A real PostgreSQL and streams on bad days: a slow server, calls given up midway, a pooler in between."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from iokernel.sync import Postgres
from kit.help import until
from kit.pgbouncer import PgBouncer
from kit.postgres import PostgresServer

PIECE = b"x" * 65_535 + b"\n"


def test_copy_in_to_a_slow_server(shared_postgres: PostgresServer) -> None:
    """What the server does not take yet is not taken from the program either."""
    url = shared_postgres.unix_url
    given = 0

    def pieces() -> Iterator[bytes]:
        nonlocal given
        for _ in range(1000):
            given += 1
            yield PIECE

    with sync.connect(url, kind=Postgres) as db, sync.connect(url, kind=Postgres) as other:
        db.execute("CREATE TABLE slow_copy (a text)")
        db.execute("CREATE TABLE slow_gate ()")
        db.execute(
            "CREATE FUNCTION slow_wait() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN LOCK slow_gate IN SHARE MODE; RETURN NEW; END'"
        )
        db.execute(
            "CREATE TRIGGER slow BEFORE INSERT ON slow_copy FOR EACH ROW EXECUTE FUNCTION slow_wait()"
        )
        tags: list[str] = []
        with other.transaction() as tx:
            tx.execute("LOCK slow_gate IN ACCESS EXCLUSIVE MODE")
            copying = threading.Thread(
                target=lambda: tags.append(db.copy_in("COPY slow_copy FROM STDIN", pieces()))
            )
            copying.start()
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'slow_gate'::regclass"
            until(lambda: other.fetchval(waits) == 1)
            before = -1
            while before != given:  # until nothing more is taken
                before = given
                threading.Event().wait(0.3)
            assert given < 200  # 13 MB of 65
            assert iokernel.stats()["buffer_bytes"] < 8_000_000
        copying.join(60)
        assert tags == ["COPY 1000"]
        assert db.fetchval("SELECT sum(length(a)) FROM slow_copy") == 1000 * 65_535


def test_fetch_of_a_cursor_cancelled(shared_postgres: PostgresServer) -> None:
    """The server's statement ends, and the lease is good for a new transaction on its connection."""

    async def main() -> None:
        async with (
            aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db,
            db.lease() as lease,
        ):
            pid = await lease.fetchval("SELECT pg_backend_pid()")
            tx = lease.transaction()
            await tx.start()
            rows = lease.cursor(
                "SELECT g, pg_sleep(g / 3 * 600) FROM generate_series(1, 9) g", batch=2
            )
            assert [row[0] for row in await rows.fetch()] == [1, 2]
            fetching = asyncio.ensure_future(rows.fetch())
            active = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
            while not await db.fetchval(active, pid):
                await asyncio.sleep(0.01)
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            await asyncio.wait_for(tx.rollback(), 60)
            assert await lease.fetchval("SELECT pg_backend_pid()", timeout=60) == pid
            async with lease.transaction() as again:
                assert [row[0] async for row in again.cursor("SELECT 5")] == [5]

    asyncio.run(main())


def test_copy_through_a_pooler(shared_postgres: PostgresServer) -> None:
    with (
        PgBouncer(shared_postgres) as pooler,
        sync.connect(pooler.url + "&statements=0", kind=Postgres) as db,
    ):
        db.execute("CREATE TABLE pooled_copy (a int, b text)")
        records = [(i, f"t{i}") for i in range(20_000)]
        assert db.copy_records("pooled_copy", records) == "COPY 20000"
        with db.copy_out("COPY pooled_copy TO STDOUT") as out:
            assert list(out.records()) == [(str(a), b) for a, b in records]
        with pytest.raises(iokernel.Error):
            db.copy_in("COPY pooled_copy FROM STDIN", b"no number\tx\n")
        with pytest.raises(iokernel.Error, match="no_such_table"):
            db.copy_in("COPY no_such_table FROM STDIN", b"1\n")
        with (
            pytest.raises(iokernel.Error, match="no_such_table"),
            db.copy_out("COPY no_such_table TO STDOUT") as out,
        ):
            list(out)
        assert db.fetchval("SELECT count(*) FROM pooled_copy") == 20_000
        assert db.stats()["disconnects"] == 0


def test_lent_parameter_of_a_cancelled_call(shared_postgres: PostgresServer) -> None:
    """It goes from the program's memory: what is given up midway keeps it, or nothing of it is sent wrongly."""

    async def main() -> None:
        async with aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db:
            for round_ in range(20):
                octets = bytes([round_]) * 5_000_000
                call = db.fetchval("SELECT length($1::bytea)", octets)
                await asyncio.sleep(0.0005 * round_)
                call.cancel()
                del octets, call
                fill = [bytes([255]) * 5_000_000 for _ in range(3)]  # where it may have been
                own = bytes([round_ + 100]) * 300_000
                assert await db.fetchval("SELECT $1::bytea", own, timeout=60) == own
                del fill

    asyncio.run(main())
