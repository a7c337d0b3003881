"""Statements that nobody waits for any more end at the server, too, and none that somebody waits for is ever hit."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from iokernel.sync import Postgres
from kit.help import auntil, until
from kit.postgres import PostgresServer
from kit.proxy import Proxy

LONG = "SELECT pg_sleep(600)"


def running(server: PostgresServer, name: str) -> int:
    """Statements of this application that the server still runs."""
    where = f"application_name = '{name}' AND state = 'active' AND query ~ 'pg_sleep'"
    return int(server.psql(f"SELECT count(*) FROM pg_stat_activity WHERE {where}"))


@pytest.fixture(params=["unix", "tls", "plain"])
def url(request: pytest.FixtureRequest, shared_postgres: PostgresServer) -> Iterator[str]:
    """Of the server, in each way to reach it."""
    tls = f"?sslmode=verify-full&sslrootcert={shared_postgres.directory / 'ca.crt'}"
    yield {
        "unix": f"{shared_postgres.unix_url}?dbname=app",
        "tls": shared_postgres.url + tls,
        "plain": shared_postgres.url + "?sslmode=disable",
    }[request.param]


def test_shared(shared_postgres: PostgresServer, url: str) -> None:
    """A deadline, on a shared connection: the statement ends, the connection stays."""
    with sync.connect(f"{url}&connections=1&application_name=shared", kind=Postgres) as db:
        pid = db.fetchval("SELECT pg_backend_pid()")
        for _ in range(3):
            with pytest.raises(iokernel.Timeout):
                db.fetch(LONG, timeout=0.1)
            assert db.fetchval("SELECT pg_backend_pid()", timeout=30) == pid
            assert running(shared_postgres, "shared") == 0
        assert db.stats()["disconnects"] == 0


def test_transaction(shared_postgres: PostgresServer, url: str) -> None:
    """A task that is cancelled in a transaction: its locks go at once, and its connection is used again."""

    async def main() -> None:
        own = f"{url}&leases=1&connections=1&application_name=transaction"
        async with aio.connect(own, kind=aio.Postgres) as db:
            await db.execute("DROP TABLE IF EXISTS held")
            await db.execute("CREATE TABLE held (a int)")
            inside = asyncio.Event()
            pids: list[int] = []

            async def transaction() -> None:
                async with db.transaction() as tx:
                    pids.append(await tx.fetchval("SELECT pg_backend_pid()"))
                    await tx.execute("INSERT INTO held VALUES (1)")
                    await tx.execute("LOCK held")
                    inside.set()
                    await tx.execute(LONG, timeout=600)

            task = asyncio.create_task(transaction())
            await inside.wait()
            await auntil(lambda: running(shared_postgres, "transaction") == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await db.fetchval("SELECT count(*) FROM held", timeout=30) == 0
            assert running(shared_postgres, "transaction") == 0
            async with db.transaction() as tx:
                assert await tx.fetchval("SELECT pg_backend_pid()") == pids[0]
            assert db.stats()["disconnects"] == 0

    asyncio.run(main())


def test_within_a_kept_lease(shared_postgres: PostgresServer) -> None:
    """A statement of a lease ends by its deadline; what comes next on the lease is not hit."""
    with sync.connect(shared_postgres.unix_url, kind=Postgres) as db, db.lease() as lease:
        pid = lease.fetchval("SELECT pg_backend_pid()")
        for number in range(5):
            with pytest.raises(iokernel.Timeout):
                lease.fetch(LONG, timeout=0.05)
            assert lease.fetchval("SELECT $1::int", number, timeout=30) == number
        assert lease.fetchval("SELECT pg_backend_pid()") == pid


@pytest.mark.parametrize("connections", [1, 3])
def test_only_what_was_cancelled(shared_postgres: PostgresServer, connections: int) -> None:
    """Many tasks, cancelled at random moments: whoever was not cancelled gets its own answer."""
    seconds = 4.0
    generator = random.Random(5)

    async def main() -> None:
        url = f"{shared_postgres.unix_url}?connections={connections}&leases=3&timeout=120s&application_name=many"
        async with aio.connect(url, kind=aio.Postgres) as db:
            done = cancelled = 0
            end = time.monotonic() + seconds

            async def quick(number: int) -> None:
                nonlocal done
                while time.monotonic() < end:
                    sleep = generator.choice([0, 0, 0.002, 0.02])
                    got = await db.fetchrow("SELECT $1::int, pg_sleep($2::float8)", number, sleep)
                    assert got is not None and got[0] == number
                    done += 1
                    await asyncio.sleep(generator.random() * 0.05)

            async def within(number: int) -> None:
                nonlocal done
                while time.monotonic() < end:
                    async with db.transaction() as tx:
                        for i in range(3):
                            assert await tx.fetchval("SELECT $1::int", number + i) == number + i
                            done += 1

            async def one(number: int) -> None:
                if generator.random() < 0.5:
                    await db.fetch(
                        "SELECT pg_sleep(0.05)"
                    )  # if somebody waits behind it, it goes on
                else:
                    async with db.transaction() as tx:
                        await tx.fetchval("SELECT $1::int", number)
                        await tx.fetch(LONG, timeout=120)

            async def gives_up(number: int) -> None:
                nonlocal cancelled
                while time.monotonic() < end:
                    task = asyncio.create_task(one(number))
                    await asyncio.sleep(generator.random() * 0.04)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
                    cancelled += 1

            tasks = [quick(i) for i in range(6)]
            tasks += [within(1000 * i) for i in range(1, 3)]
            tasks += [gives_up(i) for i in range(3)]
            await asyncio.gather(*tasks)
            assert done > 20 and cancelled > 20
            await auntil(lambda: running(shared_postgres, "many") == 0)
            assert db.stats()["disconnects"] == 0, db.stats()["last_failure"]

    asyncio.run(main())


def test_off(shared_postgres: PostgresServer) -> None:
    url = f"{shared_postgres.unix_url}?cancel_timeout=0&connections=1&application_name=off"
    with sync.connect(url, kind=Postgres) as db:
        with pytest.raises(iokernel.Timeout):
            db.fetch("SELECT pg_sleep(1)", timeout=0.1)
        assert running(shared_postgres, "off") == 1
        assert db.fetchval("SELECT 1", timeout=30) == 1


def test_cancel_is_not_let_through(shared_postgres: PostgresServer) -> None:
    """The second connection is refused: at the bound the first one is closed, and calls go on with another."""
    with Proxy(shared_postgres.port) as proxy:
        url = shared_postgres.url.replace(str(shared_postgres.port), str(proxy.port))
        options = "?sslmode=disable&connections=1&cancel_timeout=500ms&application_name=refused"
        with sync.connect(url + options, kind=Postgres) as db:
            assert db.fetchval("SELECT 1") == 1
            proxy.refuse()
            with pytest.raises(iokernel.Timeout):
                db.fetch(LONG, timeout=0.1)
            until(lambda: db.stats()["disconnects"] == 1)
            assert "could not be cancelled" in db.stats()["last_failure"]
            proxy.admit()
            assert db.fetchval("SELECT 1", timeout=30) == 1
