"""Types that a database has of its own, and decoders of the program's."""

from __future__ import annotations

import asyncio
import datetime
import enum
import ipaddress
import json
import uuid
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import iokernel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iokernel import asyncio as aio
from iokernel import sync
from iokernel.postgres import (
    Composite,
    Hstore,
    Interval,
    Multirange,
    Range,
    Record,
    Vector,
    records,
)
from iokernel.sync import Postgres
from kit.postgres import PostgresServer

UTC = datetime.timezone.utc
SETTINGS = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))

# pgvector is not everywhere: a type of its name, with texts of its form, stands for it.
OWN_TYPES = """
    CREATE EXTENSION hstore;
    CREATE TYPE vector;
    CREATE FUNCTION vector_in(cstring) RETURNS vector LANGUAGE internal STRICT IMMUTABLE AS 'textin';
    CREATE FUNCTION vector_out(vector) RETURNS cstring LANGUAGE internal STRICT IMMUTABLE AS 'textout';
    CREATE TYPE vector (INPUT = vector_in, OUTPUT = vector_out, LIKE = text);
    CREATE TYPE colour AS ENUM ('red', 'light green', 'it''s "x", {y}');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN colours AS colour[];
    CREATE TYPE point3 AS (x int, y float8, "a name" text);
    CREATE TYPE line3 AS (a point3, b point3[], c colour, d positive, e positive[], f colours);
    CREATE TYPE floats AS RANGE (SUBTYPE = float8, MULTIRANGE_TYPE_NAME = manyfloats);
    CREATE TYPE texts AS RANGE (SUBTYPE = text, COLLATION = "C");
    CREATE TYPE nothing AS ();
    CREATE TYPE everything AS (
        a bool, b bytea, c int8, d float4, e numeric, f date, g time, h timetz, i timestamp, j timestamptz,
        k interval, l inet, m cidr, n uuid, o int4range, p tstzmultirange, q jsonb, r int[], s timestamp[],
        t int4range[], u text, v varbit, w hstore, x vector, y macaddr);
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as server:
        server.psql(OWN_TYPES)
        yield server


@pytest.fixture
def db(server: PostgresServer) -> Iterator[Postgres]:
    with sync.connect(f"{server.unix_url}?connections=2", kind=Postgres) as db:
        yield db


@pytest.fixture
def learned(db: Postgres) -> Postgres:
    assert db.learn_types() > 8
    return db


def test_before_they_are_learned(db: Postgres) -> None:
    assert db.fetchval("SELECT ROW(1, 2, 'a b')::point3") == '(1,2,"a b")'
    assert db.fetchval("SELECT ARRAY['red'::colour]") == "{red}"
    assert db.fetchval("SELECT 5::positive") == 5
    assert db.fetchval("SELECT 'a=>1'::hstore") == '"a"=>"1"'


SCALARS: list[tuple[str, Any]] = [
    ("'red'::colour", "red"),
    ("ARRAY['red', 'light green', E'it\\'s \"x\", {y}', NULL]::colour[]", ["red", "light green", "it's \"x\", {y}", None]),
    ("ARRAY[ARRAY['red'], ARRAY['red']]::colour[]", [["red"], ["red"]]),
    ("'[2:3]={red,red}'::colour[]", ["red", "red"]),
    ("'{}'::colour[]", []),
    ("5::positive", 5),
    ("ARRAY[5, NULL]::positive[]", [5, None]),
    ("ARRAY['red']::colours", ["red"]),
    ("'a=>1, b=>NULL'::hstore", Hstore({"a": "1", "b": None})),
    ("''::hstore", Hstore()),
    ("ARRAY['a=>1'::hstore, NULL]", [Hstore({"a": "1"}), None]),
    ("'[1,2.5,-3e-7]'::vector", Vector([1, 2.5, -3e-7])),
    ("ARRAY['[1]'::vector]", [Vector([1])]),
    ("floats(1.5, 2)", Range(1.5, 2.0)),
    ("'empty'::floats", Range(bounds="empty")),
    ("floats(NULL, NULL)", Range()),
    ("ARRAY[floats(1.5, 2)]", [Range(1.5, 2.0)]),
    ("'{[1.5,2),[3,4]}'::manyfloats", Multirange([Range(1.5, 2.0), Range(3.0, 4.0, "[]")])),
    ("'{}'::manyfloats", Multirange()),
    ("texts(',)\"\\', ']x')", Range(",)\"\\", "]x")),
    ("ROW(1, NULL, '')::point3", (1, None, "")),
    ("ROW(NULL, NULL, NULL)::point3", (None, None, None)),
    ("NULL::point3", None),
    ("ROW()::nothing", ()),
    ("ROW(1, NULL, 'a,b', ROW(2))", Composite(("1", None, "a,b", "(2)"))),
    ("ARRAY[ROW(1, 'x'), NULL]", [Composite(("1", "x")), None]),
    ("ARRAY[ROW(1, 2, 'x')::point3, NULL]", [(1, 2.0, "x"), None]),
    (
        "ROW(ROW(1, 2.5, '\"'), ARRAY[ROW(3, 'NaN', NULL), NULL]::point3[], 'red', 5, ARRAY[6], ARRAY['red'])::line3",
        ((1, 2.5, '"'), [(3, "nan", None), None], "red", 5, [6], ["red"]),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "value"), SCALARS, ids=[sql for sql, _ in SCALARS])
def test_learned(learned: Postgres, sql: str, value: Any) -> None:
    for _ in range(4):  # new to each connection, then known
        got = learned.fetchval(f"SELECT {sql}")
        if "NaN" in sql:
            assert str(got[1][0][1]) == "nan"
            assert (got[0], got[2:]) == (value[0], value[2:])
        else:
            assert (got, isinstance(got, Record)) == (value, type(value) is tuple)
            if not isinstance(got, Record):
                assert type(got) is type(value)


def test_records_within_records(learned: Postgres) -> None:
    row = learned.fetchrow("SELECT ROW(1, 2, 'x')::point3 AS p, 5 AS n")
    assert row is not None
    assert (row["p"]["a name"], row["p"].keys(), row["n"]) == ("x", ("x", "y", "a name"), 5)
    # And it goes to the server again as what it was.
    for _ in range(3):
        assert learned.fetchval("SELECT $1::point3", row["p"]) == row["p"]
        assert learned.fetchval("SELECT $1::point3[]", [row["p"], None]) == [row["p"], None]
    rows = learned.fetch(
        "SELECT ROW(g, g, g)::point3 AS p FROM generate_series(1, 1000) g ORDER BY g"
    )
    assert [one["p"] for one in rows] == [(g, float(g), str(g)) for g in range(1, 1001)]


EVERYTHING = (
    True, b"\0\xff", -5, 0.10000000149011612, Decimal("1.50"), datetime.date(2024, 2, 3),
    datetime.time(1, 2, 3, 500000), datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=5.5))),
    datetime.datetime(2024, 2, 3, 4, 5, 6, 70), datetime.datetime(2024, 2, 3, 4, 5, tzinfo=UTC),
    datetime.timedelta(days=-2, microseconds=5), ipaddress.ip_interface("10.1.2.3/8"),
    ipaddress.ip_network("::/0"), uuid.UUID(int=5), Range(1, 5),
    Multirange([Range(datetime.datetime(2024, 1, 1, tzinfo=UTC), None)]), '{"a": [1, "x"]}', [1, None],
    [datetime.datetime(2024, 1, 1)], [Range(1, None), None], 'a "b", (c\\', "0101",
    Hstore({'a"b': None, "\\": ","}), Vector([1.5, -2]), "08:00:2b:01:02:03",
)  # fmt: skip


def test_every_type_within_a_composite(learned: Postgres) -> None:
    for zone in ("UTC", "Asia/Kolkata"):
        with learned.lease() as lease:
            lease.execute(f"SET timezone = '{zone}'")
            for _ in range(3):
                got = lease.fetchval("SELECT $1::everything", Composite(EVERYTHING))
                assert got == EVERYTHING
                assert [type(one) for one in got] == [type(one) for one in EVERYTHING]
            nothing = (None,) * len(EVERYTHING)
            assert lease.fetchval("SELECT $1::everything", Composite(nothing)) == nothing
    odd = learned.fetchval(
        "SELECT ROW(NULL, NULL, NULL, 'NaN', 'Infinity', 'infinity', '24:00', '24:00+01', '0044-03-15 BC', "
        "'-infinity', '1 mon -1 day 00:00:01.5', '::1', NULL, NULL, 'empty', '{}', NULL, '{}', NULL, '{}', '',"
        " '', '', NULL, NULL)::everything"
    )
    assert str(odd[3]) == "nan"
    assert odd[4:12] == (
        Decimal("Infinity"),
        "infinity",
        "24:00:00",
        "24:00:00+01",
        "0044-03-15 00:00:00 BC",
        "-infinity",
        Interval(1, -1, 1500000),
        ipaddress.ip_address("::1"),
    )
    assert odd[14:] == (
        Range(bounds="empty"),
        Multirange(),
        None,
        [],
        None,
        [],
        "",
        "",
        {},
        None,
        None,
    )


def test_any_text(learned: Postgres) -> None:
    @SETTINGS
    @given(pairs=st.dictionaries(TEXT, st.none() | TEXT), texts=st.lists(st.none() | TEXT))
    def check(pairs: dict[str, str | None], texts: list[str | None]) -> None:
        assert learned.fetchval("SELECT $1::hstore", Hstore(pairs)) == pairs
        maps = [Hstore(pairs), None]
        assert learned.fetchval("SELECT $1::hstore[]", maps) == maps
        for text in texts:
            value = (1, 2.0, text)
            assert learned.fetchval("SELECT $1::point3", Composite(value)) == value
            for kinds in ([value], [value, None]):
                many = [None if one is None else Composite(one) for one in kinds]
                assert learned.fetchval("SELECT $1::point3[]", many) == kinds
            if text is not None:
                limit = Range(text, text + "x")
                assert learned.fetchval("SELECT $1::texts", limit) == limit

    check()


def test_altered_types(server: PostgresServer, learned: Postgres) -> None:
    server.psql("CREATE TYPE altered AS (a int)")
    assert learned.fetchval("SELECT ROW(1)::altered") == "(1)"
    learned.learn_types()
    assert learned.fetchval("SELECT ROW(1)::altered") == (1,)
    server.psql("ALTER TYPE altered ADD ATTRIBUTE b text")
    assert learned.fetchval("SELECT ROW(1, 'x')::altered") == ("1", "x")  # names are not known
    learned.learn_types()
    assert learned.fetchval("SELECT ROW(1, 'x')::altered")["b"] == "x"


class Colour(enum.Enum):
    RED = "red"
    GREEN = "light green"


def test_codecs_of_the_program(learned: Postgres) -> None:
    db = learned
    db.set_type_codec("colour", decoder=Colour)
    db.set_type_codec("numeric", decoder=float)
    db.set_type_codec(3802, decoder=json.loads)
    db.learn_types()  # which leaves them
    for _ in range(3):
        assert db.fetchval("SELECT $1::colour", Colour.GREEN) is Colour.GREEN
        assert db.fetchval("SELECT $1::colour[]", [Colour.RED, None]) == [Colour.RED, None]
        assert db.fetchval("SELECT NULL::colour") is None
        row = db.fetchrow(
            "SELECT 1.5 AS a, '{{1.5},{NULL}}'::numeric[] AS b, 'x' AS c, jsonb '{\"a\": [1]}' AS d"
        )
        assert row == (1.5, [[1.5], [None]], "x", {"a": [1]})
        assert row is not None and type(row["a"]) is float and type(row["b"][0][0]) is float
        assert db.fetch("SELECT 1.5 FROM generate_series(1, 3)") == [(1.5,)] * 3
        line = db.fetchval("SELECT ROW(NULL, NULL, 'red', 1, '{}', '{red}')::line3")
        assert line == (None, None, Colour.RED, 1, [], [Colour.RED])
        everything = db.fetchval("SELECT $1::everything", Composite(EVERYTHING))
        assert type(everything["e"]) is float and everything["q"] == {"a": [1, "x"]}
    reply = db.call("SELECT 1.5, NULL::numeric, 'x'")
    assert reply[2] == [[Decimal("1.5"), None, "x"]]  # as it is
    assert type(records(reply)[0][0]) is Decimal
    assert type(records(reply, db._decoders)[0][0]) is float
    assert records(reply, db._decoders) == [(1.5, None, "x")]
    with db.lease() as lease:
        assert type(lease.fetchval("SELECT 1.5")) is float
    with sync.connect(db, kind=Postgres) as other:
        assert type(other.fetchval("SELECT 1.5")) is Decimal  # each client has its own
    with pytest.raises(ValueError, match="is not a valid Colour"):
        db.fetch("SELECT 'it''s \"x\", {y}'::colour")
    with pytest.raises(IndexError):
        db.fetchval("SELECT 1.5", column=7)
    db.set_type_codec("numeric", decoder=None)
    assert db.fetchval("SELECT ARRAY[1.5]") == [Decimal("1.5")]
    for unknown in ("no_such_type", 7):
        with pytest.raises(LookupError, match=f"the database has no type {unknown}"):
            db.set_type_codec(unknown, decoder=str)


def test_asyncio(server: PostgresServer) -> None:
    async def main() -> None:
        async with aio.connect(server.unix_url, kind=aio.Postgres) as db:
            assert await db.learn_types() > 8
            await db.set_type_codec("colour", decoder=Colour)
            await db.set_type_codec("jsonb", decoder=json.loads)
            sql = "SELECT ROW(1, 2, 'x')::point3 AS p, 'red'::colour AS c, '[1]'::jsonb AS j"
            rows = await asyncio.gather(*[db.fetchrow(sql) for _ in range(50)])
            assert rows == [((1, 2.0, "x"), Colour.RED, [1])] * 50
            async with db.lease() as lease:
                assert await lease.fetchval("SELECT 'red'::colour") is Colour.RED
            failed = await asyncio.gather(
                db.fetchval("SELECT 'it''s \"x\", {y}'::colour"),
                db.fetchval("SELECT 5"),
                return_exceptions=True,
            )
            assert isinstance(failed[0], ValueError) and failed[1] == 5
            async with db.lease() as lease:
                assert await lease.fetchval("SELECT $1::int", 1) == 1
                with pytest.raises(iokernel.TypeRefused, match=r"\$1 is an array"):
                    await lease.fetchval("SELECT $1::int", [1])
                assert await lease.fetchval("SELECT $1::int", 1) == 1

    asyncio.run(main())
