"""Values both ways, against the server's own text; first in text, then in the binary format."""

from __future__ import annotations

import datetime
import ipaddress
import math
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iokernel.sync import Postgres

UTC = datetime.timezone.utc
SETTINGS = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMERIC = st.decimals(allow_nan=False, allow_infinity=False, places=6).filter(
    lambda value: abs(value) < Decimal(10) ** 30
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int2": st.integers(-(2**15), 2**15 - 1),
    "int4": st.integers(-(2**31), 2**31 - 1),
    "int8": st.integers(-(2**63), 2**63 - 1),
    "oid": st.integers(0, 2**32 - 1),
    "float4": st.floats(width=32, allow_nan=False),
    "float8": st.floats(allow_nan=False),
    "numeric": NUMERIC,
    "text": TEXT,
    "bytea": st.binary(),
    "uuid": st.uuids(),
    "date": st.dates(),
    "time": st.times(),
    "timestamp": st.datetimes(),
    # The server reads the text of a moment; what leaves the years 1 to 9999 in UTC comes as text.
    "timestamptz": st.datetimes(
        datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1), timezones=st.just(UTC)
    ),
}


@pytest.mark.parametrize("name", VALUES)
def test_round_trip(db: Postgres, name: str) -> None:
    kept = f"SELECT $1::{name} AS v, ($1::{name})::text AS t"

    @SETTINGS
    @given(value=VALUES[name])
    def check(value: Any) -> None:
        # The comment makes it new to all connections: so its values come as text.
        check.count += 1  # type: ignore[attr-defined]
        new = db.fetchrow(f"{kept} /* {name} {check.count} */", value)  # type: ignore[attr-defined]
        for row in (new, *[db.fetchrow(kept, value) for _ in range(2)]):
            assert row is not None
            assert (type(row["v"]), row["v"]) == (type(value), value)
            # What the server says it is, read by the server again, is the same.
            assert row["t"] == new["t"] and db.fetchval(f"SELECT $1::{name}", row["t"]) == value

    check.count = 0  # type: ignore[attr-defined]
    check()


@pytest.mark.parametrize(
    "name", ["int8", "float8", "numeric", "text", "bytea", "uuid", "date", "timestamptz"]
)
def test_arrays(db: Postgres, name: str) -> None:
    element = st.none() | VALUES[name]
    kept = f"SELECT $1::{name}[] AS v"

    @SETTINGS
    @given(
        value=st.lists(element) | st.lists(st.lists(element, min_size=2, max_size=2), min_size=1)
    )
    def check(value: list[Any]) -> None:
        check.count += 1  # type: ignore[attr-defined]
        for sql in (f"{kept} /* {name}[] {check.count} */", kept, kept):  # type: ignore[attr-defined]
            assert db.fetchval(sql, value) == value

    check.count = 0  # type: ignore[attr-defined]
    check()


NAN = object()
LITERALS = [
    ("'NaN'::float8", NAN),
    ("'-Infinity'::float4", -math.inf),
    ("'NaN'::numeric", NAN),
    ("'Infinity'::numeric", Decimal("Infinity")),
    ("0.00::numeric(5,2)", Decimal("0.00")),
    ("1e-20::numeric", Decimal("1E-20")),
    ("repeat('9', 1000)::numeric", Decimal("9" * 1000)),
    ("'infinity'::date", "infinity"),
    ("'-infinity'::timestamptz", "-infinity"),
    ("'0044-03-15 BC'::date", "0044-03-15 BC"),
    ("'0044-03-15 10:00 BC'::timestamp", "0044-03-15 10:00:00 BC"),
    ("'5874897-12-31'::date", "5874897-12-31"),
    ("'4713-01-01 BC'::date", "4713-01-01 BC"),
    ("'294276-12-31 23:59:59.999999'::timestamp", "294276-12-31 23:59:59.999999"),
    ("'24:00'::time", "24:00:00"),
    ("'1900-01-01 00:00+00:19:32'::timestamptz", datetime.datetime(1899, 12, 31, 23, 40, 28, tzinfo=UTC)),
    ("'{}'::int[]", []),
    ("'[3:4]={1,2}'::int[]", [1, 2]),
    ("'{{{1},{2}},{{3},{NULL}}}'::int[]", [[[1], [2]], [[3], [None]]]),
    ("ARRAY['a,b', 'c\"d', '', 'NULL', NULL, '\\']", ["a,b", 'c"d', "", "NULL", None, "\\"]),
    ("NULL::int", None),
    ("'{\"a\": [1]}'::jsonb", '{"a": [1]}'),
    ("'{\"a\":1}'::json", '{"a":1}'),
    ("ARRAY['{\"a\": 1}'::jsonb]", ['{"a": 1}']),
    ("interval '1 day 2 hours'", "1 day 02:00:00"),
    ("'127.0.0.1/8'::inet", "127.0.0.1/8"),
    ("ROW(1, 'a')", "(1,a)"),
    ("'[1,5)'::int4range", "[1,5)"),
    ("'=r/app'::aclitem", "=r/app"),  # has no binary form at all
    ("ARRAY['=r/app'::aclitem]", "{=r/app}"),
    ("'c'::\"char\"", "c"),
    ("'n'::name", "n"),
    ("'x  '::char(3)", "x  "),
    ("pg_sleep(0)", ""),
    ("'app'::regrole", "app"),
]  # fmt: skip


@pytest.mark.parametrize(("sql", "value"), LITERALS, ids=[sql for sql, _ in LITERALS])
def test_literals(db: Postgres, sql: str, value: Any) -> None:
    for _ in range(6):  # the four connections come to know it
        got = db.fetchval(f"SELECT {sql}")
        if value is NAN:
            assert got != got
        else:
            assert (type(got), got) == (type(value), value)


@pytest.mark.parametrize("zone", ["Europe/Amsterdam", "Asia/Kathmandu", "America/St_Johns"])
def test_zones(db: Postgres, zone: str) -> None:
    """Whatever the session's zone and styles are, a moment is the same."""
    moments = [
        datetime.datetime(1900, 1, 1, tzinfo=UTC),
        datetime.datetime(2024, 7, 1, 12, 0, 0, 5, tzinfo=UTC),
        datetime.datetime(2024, 1, 1, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=-9.5))),
    ]
    with db.lease() as lease:
        lease.execute(f"SET timezone = '{zone}'")
        for _ in range(3):
            assert [
                lease.fetchval("SELECT $1::timestamptz", moment) for moment in moments
            ] == moments
        lease.execute("SET datestyle = 'German'")
        lease.execute("SET bytea_output = 'escape'")
        octets = bytes(range(256))
        for _ in range(3):
            assert lease.fetchval("SELECT $1::bytea AS styled", octets) == octets
        assert lease.fetchval("SELECT $1::date AS known", "2024-02-01") in (
            "01.02.2024",
            datetime.date(2024, 2, 1),
        )


def test_parameters_as_text(db: Postgres) -> None:
    for _ in range(6):
        row = db.fetchrow(
            "SELECT $1::inet, $2::cidr, $3::interval, $4::text, $5::numeric, $6::int, $7::timestamp, $8::text",
            ipaddress.ip_address("::1"),
            ipaddress.ip_network("10.0.0.0/8"),
            datetime.timedelta(days=-1, seconds=5),
            uuid.UUID(int=1),
            5,
            "7",
            datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
            12,
        )
        assert row == (
            "::1",
            "10.0.0.0/8",
            "-1 days +00:00:05",
            "00000000-0000-0000-0000-000000000001",
            Decimal(5),
            7,
            datetime.datetime(2024, 1, 2, 3, 4, 5),
            "12",
        )
        assert db.fetchval("SELECT pg_typeof($1::int8 + 1)::text", 5) == "bigint"
