"""A real PostgreSQL: statements that are prepared, and what they say about themselves."""

from __future__ import annotations

import asyncio

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import postgres
from iokernel.sync import Postgres
from kit.postgres import PostgresServer

SQL = "SELECT $1::int + 1 AS next, ARRAY[$2::text] AS texts"


def test_what_it_takes_and_gives(db: Postgres) -> None:
    statement = db.prepare(SQL)
    assert statement.parameters == ((23, "integer"), (25, "text"))
    assert statement.columns == (("next", 23, "integer"), ("texts", 1009, "text[]"))
    assert statement.fetch(1, "a") == [(2, ["a"])]
    row = statement.fetchrow(2, "b")
    assert row is not None
    assert row["texts"] == ["b"]
    assert statement.fetchval(3, "c", column=1) == ["c"]
    with statement.cursor(4, "d") as rows:
        assert list(rows) == [(5, ["d"])]
    nothing = db.prepare("")
    assert (nothing.parameters, nothing.columns) == ((), ())


def test_it_does_not_run(db: Postgres) -> None:
    db.execute("CREATE TABLE prepared (a int)")
    db.execute("CREATE TYPE prepared_mood AS ENUM ('well')")
    insert = db.prepare("INSERT INTO prepared VALUES ($1)")
    assert insert.columns == ()
    assert db.fetchval("SELECT count(*) FROM prepared") == 0
    assert insert.execute(1) == "INSERT 0 1"
    insert.executemany([(2,), (3,)])
    assert db.fetchval("SELECT sum(a) FROM prepared") == 6
    assert db.prepare("SELECT $1::prepared_mood").parameters[0].type == "prepared_mood"
    db.prepare("BEGIN")  # no lease is needed, since nothing is begun
    assert db.execute("SELECT 1") == "SELECT 1"


def test_errors_come_when_it_is_prepared(db: Postgres) -> None:
    with pytest.raises(postgres.SQLSyntaxError) as caught:
        db.prepare("SELEC 1")
    assert caught.value.position == 1
    with pytest.raises(postgres.UndefinedTable):
        db.prepare("SELECT * FROM there_is_no_such_table")
    with pytest.raises(iokernel.Unsafe, match="copy_in"):
        db.prepare("COPY prepared TO STDOUT")
    assert db.fetchval("SELECT 1") == 1


def test_on_a_lease(db: Postgres) -> None:
    with db.transaction() as tx:
        tx.execute("CREATE TEMP TABLE of_the_lease ON COMMIT DROP AS SELECT 7 AS a")
        statement = tx.prepare("SELECT a FROM of_the_lease WHERE a > $1")
        assert statement.fetchval(1) == 7
        assert list(statement.cursor(1, batch=1)) == [(7,)]


def test_asyncio(shared_postgres: PostgresServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db:
            statement = await db.prepare(SQL)
            assert [column.type for column in statement.columns] == ["integer", "text[]"]
            replies = await asyncio.gather(*(statement.fetchval(i, "a") for i in range(9)))
            assert replies == list(range(1, 10))
            with pytest.raises(postgres.SQLSyntaxError):
                await db.prepare("SELEC 1")
            async with db.transaction() as tx:
                of_lease = await tx.prepare("SELECT generate_series(1, $1::int)")
                assert [row[0] async for row in of_lease.cursor(5, batch=2)] == [1, 2, 3, 4, 5]
                await of_lease.executemany([(1,), (2,)])

    asyncio.run(main())
