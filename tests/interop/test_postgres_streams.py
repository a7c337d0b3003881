"""A real PostgreSQL: results in batches, COPY both ways, notifications, large parameters."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import postgres, sync
from iokernel.sync import Postgres
from kit.postgres import PostgresServer

SERIES = "SELECT g, repeat('x', 10) FROM generate_series(1, $1) g"


def test_cursor(db: Postgres) -> None:
    with db.cursor(SERIES, 1000, batch=7) as rows:
        assert [row["g"] for row in rows] == list(range(1, 1001))
    with db.transaction() as tx:
        for row in tx.cursor(SERIES, 20, batch=3):  # other statements go between
            assert tx.fetchval("SELECT $1::int", row[0]) == row[0]
        open_now = "SELECT count(*) FROM pg_cursors"
        before = tx.fetchval(open_now)
        with tx.cursor(SERIES, 1000, batch=10) as rows:
            assert next(rows)[0] == 1
            assert tx.fetchval(open_now) == before + 1
        assert tx.fetchval(open_now) == before
        assert list(tx.cursor("SELECT 1 WHERE false")) == []
    with db.lease() as lease, pytest.raises(postgres.TransactionError, match="transaction"):
        list(lease.cursor(SERIES, 1000, batch=10))
    with (
        pytest.raises(postgres.DataError),
        db.cursor("SELECT 1/(5-g) FROM generate_series(1,9) g", batch=2) as c,
    ):
        list(c)
    with pytest.raises(iokernel.Unsafe, match="cursor"):
        db.call(["cursor", "c", 5], "SELECT 1")


def test_cursor_asyncio(shared_postgres: PostgresServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db:
            async with db.cursor(SERIES, 500, batch=50) as rows:
                assert [row[0] async for row in rows] == list(range(1, 501))
            async with db.transaction() as tx:
                async for row in tx.cursor(SERIES, 10, batch=1):
                    assert await tx.fetchval("SELECT $1::int", row[0]) == row[0]

    asyncio.run(main())


def test_over_the_limit_a_cursor_is_named(shared_postgres: PostgresServer) -> None:
    url = shared_postgres.unix_url + "?max_reply=64k"
    with sync.connect(url, kind=Postgres) as db:
        with pytest.raises(iokernel.Error, match="max_reply=65536 bytes.*cursor"):
            db.fetch(SERIES, 10000)
        with db.cursor(SERIES, 10000, batch=100) as rows:
            assert sum(1 for _ in rows) == 10000


def test_copy(db: Postgres) -> None:
    db.execute("CREATE TABLE copied (a int, b text, c bytea, d int[])")
    records = [(i, f"t\t{i}\n\\", b"\\\0\t", [i, None]) for i in range(5000)] + [(None,) * 4]
    assert db.copy_records("copied", records, columns=("a", "b", "c", "d")) == "COPY 5001"
    assert db.fetchrow("SELECT * FROM copied WHERE a = 7") == records[7]
    assert db.fetchval("SELECT count(*) FROM copied WHERE b IS NULL AND d IS NULL") == 1
    out = db.copy_out("COPY (SELECT a, b FROM copied WHERE a < 10 ORDER BY a) TO STDOUT")
    assert list(out.records()) == [(str(i), f"t\t{i}\n\\") for i in range(10)]
    whole = b"".join(db.copy_out("COPY copied TO STDOUT"))
    assert whole.count(b"\n") == 5001
    db.execute("TRUNCATE copied")
    for source in (whole, io.BytesIO(whole), iter(whole.splitlines(keepends=True))):
        assert db.copy_in("COPY copied FROM STDIN", source) == "COPY 5001"
    assert db.fetchval("SELECT count(*) FROM copied") == 3 * 5001
    large = "y" * 3_000_000
    assert db.copy_records("copied", [(1, large)], columns=["a", "b"]) == "COPY 1"
    query = "COPY (SELECT b FROM copied WHERE a = 1 AND length(b) > 99) TO STDOUT"
    assert b"".join(db.copy_out(query)) == large.encode() + b"\n"


def test_copy_that_fails(db: Postgres) -> None:
    db.execute("CREATE TABLE refusing (a int)")
    with db.lease() as lease:
        pid = lease.fetchval("SELECT pg_backend_pid()")

        def broken() -> Iterator[bytes]:
            yield b"1\n" * 100_000
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            lease.copy_in("COPY refusing FROM STDIN", broken())
        with pytest.raises(postgres.DataError):
            lease.copy_in("COPY refusing FROM STDIN", (b"x\n" * 50_000 for _ in range(200)))
        with pytest.raises(postgres.UndefinedTable):
            lease.copy_in("COPY nowhere FROM STDIN", b"1\n")
        with pytest.raises(postgres.SQLSyntaxError):
            lease.copy_in("COPY refusing FROM STDIN; SELECT 1", b"1\n")
        with pytest.raises(postgres.PostgresError, match="copy_out"):
            lease.copy_in("COPY refusing TO STDOUT", b"1\n")
        with pytest.raises(postgres.PostgresError, match="no body"):
            list(lease.copy_out("COPY refusing FROM STDIN"))
        with pytest.raises(postgres.DataError):
            list(
                lease.copy_out(
                    "COPY (SELECT 1/(90000-g) FROM generate_series(1,99999) g) TO STDOUT"
                )
            )
        with pytest.raises(iokernel.Unsafe, match="copy_in"):
            lease.execute("COPY refusing FROM STDIN")
        assert lease.fetchval("SELECT pg_backend_pid()") == pid  # the connection has borne it all
        assert lease.fetchval("SELECT count(*) FROM refusing") == 0


def test_copy_asyncio_and_cancelled(shared_postgres: PostgresServer) -> None:
    async def slow(started: asyncio.Event) -> AsyncIterator[bytes]:
        yield b"1\n" * 100_000
        started.set()
        await asyncio.sleep(3600)

    async def rows() -> AsyncIterator[tuple[int]]:
        for i in range(1000):
            yield (i,)

    async def main() -> None:
        async with aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db:
            await db.execute("CREATE TABLE cancelled (a int)")
            assert await db.copy_records("cancelled", rows()) == "COPY 1000"
            async with db.lease() as lease:
                pid = await lease.fetchval("SELECT pg_backend_pid()")
                started = asyncio.Event()
                copying = asyncio.ensure_future(
                    lease.copy_in("COPY cancelled FROM STDIN", slow(started))
                )
                await started.wait()
                copying.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await copying
                assert await lease.fetchval("SELECT pg_backend_pid()") == pid
            assert await db.fetchval("SELECT count(*) FROM cancelled") == 1000
            chunks = [c async for c in db.copy_out("COPY cancelled TO STDOUT")]
            assert b"".join(chunks).count(b"\n") == 1000
            async with db.copy_out("COPY (SELECT generate_series(1,9999999)) TO STDOUT") as out:
                async for _ in out:
                    break
            assert await db.fetchval("SELECT 5") == 5

    asyncio.run(main())


def test_a_slow_reader_holds_little(shared_postgres: PostgresServer) -> None:
    url = shared_postgres.unix_url + "?max_stream_bytes=1m"
    with sync.connect(url, kind=Postgres) as db:
        out = db.copy_out(
            "COPY (SELECT repeat('z', 1000) FROM generate_series(1, 100000)) TO STDOUT"
        )
        got = len(next(out))
        before = -1
        while (received := db.stats()["bytes_in"]) != before:  # until the kernel reads no further
            before = received
            time.sleep(0.2)
        assert received < 4_000_000
        assert iokernel.stats()["buffer_bytes"] < 8_000_000
        got += sum(map(len, out))
        assert got == 100_000 * 1001


def test_killed_in_the_middle(shared_postgres: PostgresServer) -> None:
    with sync.connect(shared_postgres.unix_url, kind=Postgres) as db:
        db.execute("CREATE TABLE killed (a int)")
        with db.lease() as lease:
            pid = lease.fetchval("SELECT pg_backend_pid()")

            def killing() -> Iterator[bytes]:
                yield b"1\n" * 100_000
                db.execute("SELECT pg_terminate_backend($1)", pid)
                while True:
                    yield b"1\n" * 100_000

            with pytest.raises(iokernel.MaybeExecuted):
                lease.copy_in("COPY killed FROM STDIN", killing())
        with pytest.raises(iokernel.Error), db.cursor(SERIES, 100_000, batch=10) as rows:
            assert rows._lease is not None
            pid = rows._lease.fetchval("SELECT pg_backend_pid()")
            next(rows)
            db.execute("SELECT pg_terminate_backend($1)", pid)
            list(rows)
        assert db.fetchval("SELECT count(*) FROM killed") == 0


def test_listen(db: Postgres) -> None:
    odd = 'a "strange" Name'
    notices: list[str] = []
    with db.listen(
        odd, "b", gaps=True, notices=lambda fields: notices.append(fields["message"])
    ) as channel:
        db.execute("SELECT pg_notify($1, 'hello')", odd)
        first = channel.get(20)
        assert first is not None
        assert (first.channel, first.payload) == (odd, "hello")
        assert first.pid in {row[0] for row in db.fetch("SELECT pid FROM pg_stat_activity")}
        assert channel._lease is not None
        channel._lease.execute("DO $$ BEGIN RAISE NOTICE 'hm'; END $$")
        db.execute("NOTIFY b")
        assert (channel.get(20) or first)[:2] == ("b", "")
        assert notices == ["hm"]
        pid = channel._lease.fetchval("SELECT pg_backend_pid()")
        db.execute("SELECT pg_terminate_backend($1)", pid)
        gap = channel.get(20)
        assert gap is not None
        assert gap.channel is None
        assert channel.gaps == 1
        db.execute("NOTIFY b, 'again'")
        assert (channel.get(20) or first)[:2] == ("b", "again")
        assert channel.get(0.01) is None
    with pytest.raises(ValueError):
        db.listen("")


def test_listen_asyncio(shared_postgres: PostgresServer) -> None:
    async def main() -> None:
        async with (
            aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db,
            db.listen("loop") as channel,
        ):
            for i in range(3):
                await db.execute("SELECT pg_notify('loop', $1)", str(i))
            assert [(await channel.get() or ("", ""))[1] for _ in range(3)] == ["0", "1", "2"]

    asyncio.run(main())


def test_large_parameters(db: Postgres) -> None:
    text, octets = "ä" * 200_000, bytes(range(256)) * 4000
    for _ in range(2):  # new, and known
        row = db.fetchrow("SELECT $1::text, $2::bytea, $3::int, $4::text", text, octets, 7, text)
        assert row == (text, octets, 7, text)
    many = [text[:20_000]] * 40  # more than go by reference
    asked = ", ".join(f"${i + 1}::text" for i in range(40))
    assert db.fetchrow(f"SELECT {asked}", *many) == tuple(many)
