"""A pgbouncer in transaction mode in between: another connection to the server for each call."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import postgres, sync
from kit.pgbouncer import PgBouncer
from kit.postgres import PostgresServer

SIZE = 3  # connections to the server; iokernel has 4 to pgbouncer, and leases


@pytest.fixture(scope="module")
def pooler(shared_postgres: PostgresServer) -> Iterator[PgBouncer]:
    with PgBouncer(shared_postgres, SIZE) as running:
        yield running


@pytest.mark.parametrize("options", ["", "&statements=0", "&statements=2"])
def test_many_tasks(pooler: PgBouncer, options: str) -> None:
    """Each gets the result of its own statement, though all use the same few connections."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    backends: set[int] = set()

    async def one(db: aio.Postgres, key: int) -> None:
        kind = chance.random()
        if kind < 0.01:
            with pytest.raises(postgres.DataError):
                await db.fetch("SELECT 1 / ($1::int - $1::int)", key)
        elif kind < 0.06:
            call = db.fetch("SELECT $1::int", key)
            await asyncio.sleep(0)
            call.cancel()
        else:
            sql = f"SELECT $1::int + {key % 7}, repeat('x', $2), pg_backend_pid()"
            row = await db.fetchrow(sql, key, key % 50)
            assert row is not None
            assert row[:2] == (key + key % 7, "x" * (key % 50))
            backends.add(row[2])

    async def main() -> None:
        async with aio.connect(pooler.url + options, kind=aio.Postgres) as db:

            async def many(task: int) -> None:
                for i in range(10):
                    await one(db, task * 10 + i)

            await asyncio.gather(*[many(task) for task in range(300)])
            assert db.stats()["disconnects"] == 0

    asyncio.run(main())
    assert 1 < len(backends) <= SIZE


def test_transactions(pooler: PgBouncer) -> None:
    """Each stays on one connection to the server, and what it prepared does no harm later."""

    async def one(db: aio.Postgres, key: int) -> None:
        pid = "SELECT pg_backend_pid()"
        async with db.transaction() as tx:
            here = await tx.fetchval(pid)
            await tx.execute("INSERT INTO pooled VALUES ($1)", key)
            assert await tx.fetchval(f"SELECT $1::int * {key % 5}", key) == key * (key % 5)
            assert await tx.fetchval(pid) == here

    async def main() -> None:
        async with aio.connect(pooler.url, kind=aio.Postgres) as db:
            await db.execute("CREATE TABLE pooled (a int)")
            await asyncio.gather(*[one(db, key) for key in range(100)])
            with pytest.raises(iokernel.Error):
                async with db.transaction() as tx:
                    await tx.execute("INSERT INTO pooled VALUES (1000)")
                    await tx.execute("SELECT 1 / 0")
            rows = await db.fetch("SELECT a FROM pooled ORDER BY a")
            assert [row["a"] for row in rows] == list(range(100))
            await db.execute("DROP TABLE pooled")

    asyncio.run(main())


def test_values(pooler: PgBouncer) -> None:
    """They are the same as without a pooler, though they come as text."""
    sql = (
        "SELECT 1::int2, 2::int8, 1.5::float8, 2.50::numeric, true, 'x'::text, '\\x01'::bytea,"
        " '2026-01-02 03:04:05+00'::timestamptz, ARRAY[1,NULL], NULL, $1::text"
    )
    with sync.connect(pooler.url, kind=sync.Postgres) as db:
        pooled = [db.fetchrow(sql, "a") for _ in range(8)]
    direct_url = pooler.server.unix_url
    with sync.connect(direct_url, kind=sync.Postgres) as db:
        direct = [db.fetchrow(sql, "a") for _ in range(8)]
    assert pooled == direct


@pytest.mark.parametrize("options", ["", "&statements=0"])
def test_prepare(pooler: PgBouncer, options: str) -> None:
    """A statement tells of itself, and not of another's, beside calls that are no such thing."""

    async def one(db: aio.Postgres, key: int) -> None:
        kind = ("integer", "bigint", "text", "numeric")[key % 4]
        statement = await db.prepare(f'SELECT $1::{kind} AS "c{key}", {key} AS key')
        assert [parameter.type for parameter in statement.parameters] == [kind]
        assert [(column.name, column.type) for column in statement.columns] == [
            (f"c{key}", kind),
            ("key", "integer"),
        ]
        assert await statement.fetchval("7", column=1) == key
        assert await db.fetchval("SELECT $1::int", key) == key

    async def main() -> None:
        async with aio.connect(pooler.url + options, kind=aio.Postgres) as db:
            await asyncio.gather(*[one(db, key) for key in range(200)])
            with pytest.raises(postgres.UndefinedTable):
                await db.prepare("SELECT * FROM there_is_no_such_table")
            async with db.transaction() as tx:
                await tx.execute(
                    "CREATE TEMP TABLE of_the_transaction ON COMMIT DROP AS SELECT 7 AS a"
                )
                statement = await tx.prepare("SELECT a FROM of_the_transaction WHERE a > $1")
                assert (await statement.fetchval(1), statement.parameters[0].type) == (7, "integer")
            assert db.stats()["disconnects"] == 0

    asyncio.run(main())
