"""Records: tuples by name, made by the C part; and the methods that give parts of a reply."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import sys
import weakref

import iokernel
import pytest
from iokernel import _core, sync
from iokernel import asyncio as aio
from iokernel.postgres import Record
from iokernel.sync import Postgres
from kit.postgres import PostgresServer


def test_is_a_tuple() -> None:
    row = _core.record(["a", "b"], (1, ["x"]))
    assert isinstance(row, tuple)
    assert (len(row), row, hash(_core.record(["c"], (1,)))) == (2, (1, ["x"]), hash((1,)))
    assert (1, ["x"]) == row
    assert row < (2,)
    assert row + (3,) == (1, ["x"], 3)
    assert (row[-1], row[0:1], row["b"], 1 in row, row.index(1)) == (["x"], (1,), ["x"], True, 0)
    a, b = row
    assert (a, b) == (1, ["x"])
    assert dict(row.items()) == {"a": 1, "b": ["x"]}
    for again in (copy.copy(row), copy.deepcopy(row), pickle.loads(pickle.dumps(row))):
        assert (type(again), again, again["b"]) == (Record, row, ["x"])
    assert copy.deepcopy(row)["b"] is not row["b"]
    assert (repr(row), repr(_core.record([], []))) == ("<Record a=1 b=['x']>", "<Record>")
    assert sys.getsizeof(row) >= sys.getsizeof((1, 2))
    with pytest.raises(KeyError):
        row["c"]
    with pytest.raises(IndexError):
        row[2]
    with pytest.raises(TypeError):
        row[None]  # type: ignore[call-overload]
    with pytest.raises(TypeError):
        row["a"] = 2  # type: ignore[index]
    with pytest.raises(TypeError):
        Record((1, 2))
    with pytest.raises(ValueError, match="as many values as names"):
        _core.record(["a"], (1, 2))
    with pytest.raises(TypeError, match="names of columns are str"):
        _core.record([1], (1,))  # type: ignore[list-item]


def test_is_collected() -> None:
    """A record in a cycle goes; one of plain values is no concern of the collector."""

    class Thing:
        row: Record

    assert not gc.is_tracked(_core.record(["a", "b"], (1, "x")))
    thing = Thing()
    thing.row = _core.record(["thing"], (thing,))
    assert gc.is_tracked(thing.row)
    gone = weakref.ref(thing)
    del thing
    gc.collect()
    assert gone() is None
    deep: object = None
    for _ in range(200_000):
        deep = _core.record(["a"], (deep,))
    del deep


def test_many_forms_of_rows(db: Postgres) -> None:
    """More than are remembered; each record has its own names, and keeps them."""
    rows = [db.fetchrow(f'SELECT 1 AS "a{i}", 2 AS "ä{i}"') for i in range(400)]
    for i, row in enumerate(rows):
        assert row is not None
        assert row.keys() == (f"a{i}", f"ä{i}")
        assert row[f"ä{i}"] == 2


def test_parts_of_a_reply(db: Postgres) -> None:
    assert db.fetch("SELECT 1 WHERE false") == []
    assert db.fetchval("SELECT 1, 2, NULL", column=-2) == 2
    for column in (3, -4):
        with pytest.raises(IndexError):
            db.fetchval("SELECT 1, 2, 3", column=column)
    assert db.fetchval("SELECT ARRAY[[1,2],[3,4]], 5", column=1) == 5
    assert db.fetch("SELECT ARRAY[1,NULL] AS a FROM generate_series(1, 2)") == [([1, None],)] * 2
    assert (db.fetchval(""), db.fetch(""), db.execute("")) == (None, [], "")
    assert db.execute("CREATE TABLE parts (a int)") == "CREATE TABLE"
    assert db.fetch("INSERT INTO parts VALUES (1), (2)") == []
    for refused in (
        lambda: db.fetch(),  # type: ignore[call-arg]
        lambda: db.fetch("SELECT 1", column=1),  # type: ignore[call-arg]
        lambda: db.fetchval("SELECT 1", column="a"),  # type: ignore[arg-type]
        lambda: Postgres.fetch(1, "SELECT 1"),  # type: ignore[arg-type]
    ):
        with pytest.raises(TypeError):
            refused()


def test_replies_on_a_loop(shared_postgres: PostgresServer) -> None:
    """They are futures: to be awaited, gathered, waited for and cancelled."""

    async def main() -> None:
        async with aio.connect(shared_postgres.unix_url, kind=aio.Postgres) as db:
            rows, row, value, tag = await asyncio.gather(
                db.fetch("SELECT 1 AS a"),
                db.fetchrow("SELECT 2 AS a"),
                db.fetchval("SELECT 3, 4", column=1),
                db.execute("SELECT 5"),
            )
            assert (rows[0]["a"], row["a"] if row else None, value, tag) == (1, 2, 4, "SELECT 1")
            assert await asyncio.wait_for(db.fetchval("SELECT 6"), 60) == 6
            slow = db.fetch("SELECT pg_sleep(1)")
            assert slow.cancel()
            with pytest.raises(iokernel.ReplyError):
                await db.fetch("SELECT 1 / 0")

    asyncio.run(main())


def test_other_protocols_have_none(shared_postgres: PostgresServer) -> None:
    with sync.connect(shared_postgres.unix_url, kind=sync.Client) as client:
        assert not hasattr(client, "fetch")
