"""Values both ways, against the server's own text; first in text, then in the binary format."""

from __future__ import annotations

import datetime
import enum
import ipaddress
import math
import pickle
import typing
import uuid
from decimal import Decimal
from typing import Any

import iokernel
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from iokernel import sync
from iokernel.postgres import (
    Composite,
    DataError,
    Hstore,
    Interval,
    Json,
    Multirange,
    Range,
    StatementError,
    Vector,
)
from iokernel.sync import Postgres
from iokernel.values import plain
from kit.postgres import PostgresServer

UTC = datetime.timezone.utc
SETTINGS = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
NUMERIC = st.decimals(allow_nan=False, allow_infinity=False, places=6).filter(
    lambda value: abs(value) < Decimal(10) ** 30
)
SECOND = datetime.timedelta(seconds=1)
INT32 = st.integers(-(2**31), 2**31 - 1)
MICROSECONDS = st.integers(
    1 - 2**63, 2**63 - 1
)  # the server itself does not read its text of -2**63
# The server reads the text of a moment; what leaves the years 1 to 9999 in UTC comes as text.
MOMENTS = st.datetimes(
    datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1), timezones=st.just(UTC)
)
ADDRESS_AND_PREFIX = st.ip_addresses().flatmap(
    lambda address: st.tuples(st.just(address), st.integers(0, address.max_prefixlen))
)


def ranges(
    bounds: st.SearchStrategy[Any], kinds: list[str] | None = None
) -> st.SearchStrategy[Range]:
    """Ranges in the form that the server gives them, which are not empty, and the empty one."""
    pairs = st.tuples(bounds, bounds).filter(lambda pair: pair[0] < pair[1])
    some = st.builds(
        lambda pair, no_lower, no_upper, kind: Range(
            None if no_lower else pair[0], None if no_upper else pair[1], kind
        ),
        pairs,
        st.booleans(),
        st.booleans(),
        st.sampled_from(kinds or ["[)", "[]", "(]", "()"]),
    )
    return some | st.just(Range(bounds="empty"))


def multiranges(
    bounds: st.SearchStrategy[Any], kinds: list[str] | None = None
) -> st.SearchStrategy[Multirange]:
    """Ranges that do not touch, in their order: every other one of those between many bounds."""

    def made(values: list[Any], kind: str) -> Multirange:
        ordered = sorted(values)
        pairs = zip(ordered[::2], ordered[1::2], strict=False)
        return Multirange([Range(lower, upper, kind) for lower, upper in pairs])

    return st.builds(
        made, st.lists(bounds, unique=True), st.sampled_from(kinds or ["[)", "[]", "(]", "()"])
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
    "timestamptz": MOMENTS,
    "timetz": st.times(
        timezones=st.timedeltas(
            datetime.timedelta(seconds=-57599), datetime.timedelta(seconds=57599)
        ).map(lambda offset: datetime.timezone(datetime.timedelta(seconds=offset // SECOND)))
    ),
    "interval": st.timedeltas(datetime.timedelta(days=-(10**6)), datetime.timedelta(days=10**6))
    | st.builds(Interval, INT32.filter(bool), INT32, MICROSECONDS),
    "inet": st.ip_addresses()
    | ADDRESS_AND_PREFIX.map(ipaddress.ip_interface).filter(
        lambda value: value.network.prefixlen < value.max_prefixlen
    ),
    "cidr": ADDRESS_AND_PREFIX.map(lambda pair: ipaddress.ip_network(pair, strict=False)),
    "macaddr": st.binary(min_size=6, max_size=6).map(lambda value: value.hex(":")),
    "macaddr8": st.binary(min_size=8, max_size=8).map(lambda value: value.hex(":")),
    "bit(5)": st.text("01", min_size=5, max_size=5),
    "varbit": st.text("01", max_size=200),
    # Of whole numbers and days the server makes [) of all forms.
    "int4range": ranges(INT32.filter(lambda value: value < 2**31 - 1), ["[)"]),
    "int8range": ranges(st.integers(-(2**63), 2**63 - 2), ["[)"]),
    "daterange": ranges(st.dates(max_value=datetime.date(9999, 12, 30)), ["[)"]),
    "numrange": ranges(NUMERIC),
    "tsrange": ranges(st.datetimes()),
    "tstzrange": ranges(MOMENTS),
    "int4multirange": multiranges(st.integers(-1000, 1000), ["[)"]),
    "tstzmultirange": multiranges(MOMENTS),
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
    "name",
    [
        "int8", "float8", "numeric", "text", "bytea", "uuid", "date", "timestamptz", "timetz", "interval",
        "inet", "cidr", "macaddr", "varbit", "int4range", "tstzrange", "tstzmultirange",
    ],
)  # fmt: skip
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
    ("interval '1 day 2 hours'", datetime.timedelta(days=1, hours=2)),
    ("interval '24 hours'", datetime.timedelta(days=1)),
    ("interval '1 year -1 day'", Interval(months=12, days=-1)),
    ("interval '12 months -1 year'", datetime.timedelta()),
    ("interval '2000000000 days'", Interval(days=2000000000)),
    ("interval '178000000 years 5 months'", Interval(months=2136000005)),
    ("interval '2562047788:00:54.775807'", datetime.timedelta(microseconds=2**63 - 1)),
    ("interval '-2562047788:00:54.775807'", datetime.timedelta(microseconds=1 - 2**63)),
    ("'24:00+01:30:05'::timetz", "24:00:00+01:30:05"),
    ("'24:00-07'::timetz", "24:00:00-07"),
    ("'127.0.0.1/8'::inet", ipaddress.ip_interface("127.0.0.1/8")),
    ("'127.0.0.1/32'::inet", ipaddress.ip_address("127.0.0.1")),
    ("'10/8'::cidr", ipaddress.ip_network("10.0.0.0/8")),
    ("'::ffff:1.2.3.4'::cidr", ipaddress.ip_network("::ffff:1.2.3.4/128")),
    ("ROW(1, 'a')", "(1,a)"),
    ("'[1,5)'::int4range", Range(1, 5)),
    ("'[1,5]'::int4range", Range(1, 6)),
    ("'(,)'::int4range", Range()),
    ("'[5,5)'::int4range", Range(bounds="empty")),
    ("'[-infinity,infinity]'::daterange", Range("-infinity", "infinity", "[]")),
    ("'[0044-03-15 BC,)'::tsrange", Range("0044-03-15 00:00:00 BC")),
    ("'[1,Infinity]'::numrange", Range(Decimal(1), Decimal("Infinity"), "[]")),
    ("ARRAY[int4range(1, 2), NULL]", [Range(1, 2), None]),
    ("ARRAY['{[1,2),[4,5)}'::int4multirange]", [Multirange([Range(1, 2), Range(4, 5)])]),
    ("'12.34'::money", "$12.34"),
    ("ARRAY['12.34'::money]", ["$12.34"]),
    ("'<a>b</a>'::xml", "<a>b</a>"),
    ("ARRAY['<a/>'::xml, NULL]", ["<a/>", None]),
    ("ARRAY['a'::\"char\", '']", ["a", ""]),
    ("'a b'::tsvector", "'a' 'b'"),
    ("ARRAY['a b'::tsvector]", ["'a' 'b'"]),
    ("'0/16B3748'::pg_lsn", "0/16B3748"),
    ("'(0,1)'::tid", "(0,1)"),
    ("'(1,2)'::point", "(1,2)"),
    ("ARRAY['(1,2)'::point]", ["(1,2)"]),
    ("ARRAY['(1,2),(0,0)'::box, '(3,4),(1,1)']", "{(1,2),(0,0);(3,4),(1,1)}"),
    ("'1 2'::int2vector", "1 2"),
    ("'=r/app'::aclitem", "=r/app"),  # has no binary form at all
    ("ARRAY['=r/app'::aclitem]", ["=r/app"]),
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
            ipaddress.ip_address("::1"),
            ipaddress.ip_network("10.0.0.0/8"),
            datetime.timedelta(days=-1, seconds=5),
            "00000000-0000-0000-0000-000000000001",
            Decimal(5),
            7,
            datetime.datetime(2024, 1, 2, 3, 4, 5),
            "12",
        )
        assert db.fetchval("SELECT pg_typeof($1::int8 + 1)::text", 5) == "bigint"


@pytest.mark.parametrize("style", ["postgres", "postgres_verbose", "iso_8601", "sql_standard"])
def test_interval_styles(db: Postgres, style: str) -> None:
    """Whatever the session's style is, an interval is the same, both ways."""

    with db.lease() as lease:
        lease.execute(f"SET intervalstyle = '{style}'")

        @SETTINGS
        @given(value=VALUES["interval"])
        def check(value: Any) -> None:
            check.count += 1  # type: ignore[attr-defined]
            new = f"SELECT $1::interval /* {style} {check.count} */"  # type: ignore[attr-defined]
            for sql in (new, new, "SELECT $1::interval"):
                assert lease.fetchval(sql, value) == value

        check.count = 0  # type: ignore[attr-defined]
        check()


class Colour(enum.Enum):
    RED = "red"
    FIVE = 5
    DAY = datetime.date(2024, 2, 3)


class Pair(typing.NamedTuple):
    a: int
    b: int


def test_python_types_as_parameters(db: Postgres) -> None:
    for sql, value, text in [
        ("SELECT $1::text", Colour.RED, "red"),
        ("SELECT $1::int::text", Colour.FIVE, "5"),
        ("SELECT $1::date::text", Colour.DAY, "2024-02-03"),
        ("SELECT $1::text[]::text", [Colour.RED, None], "{red,NULL}"),
        ("SELECT $1::int[]::text", Pair(1, 2), "{1,2}"),
        ("SELECT $1::json::text", {"a": [1, None, 2**70, {"b": "ü"}]}, '{"a": [1, null, 1180591620717411303424, {"b": "ü"}]}'),
        ("SELECT $1::jsonb::text", Json([1, "x"]), '[1, "x"]'),
        ("SELECT $1::jsonb[]::text", [{"a": 1}, Json(None), None], '{"{\\"a\\": 1}","null",NULL}'),
        ("SELECT $1::int4range[]::text", [Range(1, 5), None], '{"[1,5)",NULL}'),
        ("SELECT $1::numrange::text", Range(Decimal("1.50"), None, "[]"), "[1.50,)"),
    ]:  # fmt: skip
        assert db.fetchval(sql, value) == text, sql
    with pytest.raises(TypeError, match="Decimal is not JSON serializable"):
        db.fetchval("SELECT $1::json", {"a": Decimal(1)})
    with pytest.raises(TypeError, match="argument 2 must be .*, not object"):
        db.fetchval("SELECT $1", object())
    with pytest.raises(TypeError, match="type object has no text form"):
        db.fetchval("SELECT $1", Range(object(), None))


class Shrinking(list[int]):
    """Takes itself out of the list that it is in."""

    def __init__(self, owner: list[Any]) -> None:
        self.owner = owner


@plain.register
def _(value: Shrinking) -> str:
    value.owner.clear()
    return "5"


def test_a_list_that_changes_while_it_is_read(db: Postgres) -> None:
    values: list[Any] = []
    values += [Shrinking(values), 1, 2]
    with pytest.raises(RuntimeError, match="argument 2 changed its size meanwhile"):
        db.fetchval("SELECT $1::int[]", values)
    assert db.fetchval("SELECT 5") == 5


def test_values_of_our_own() -> None:
    for value in (
        Interval(1, 2, 3), Range(1, 2, "(]"), Range(bounds="empty"), Multirange([Range(1, 2)]),
        Composite((1, None)), Hstore({"a": None}), Vector([1.5]),
    ):  # fmt: skip
        again = pickle.loads(pickle.dumps(value))
        assert (type(again), again, repr(again)) == (type(value), value, repr(value))
        assert eval(repr(value)) == value
    assert len({Range(1, 2), Range(1, 2), Interval(1), Interval(1)}) == 2
    assert [one for one in range(5) if one in Range(1, 3)] == [1, 2]
    assert [one for one in range(5) if one in Range(1, 3, "(]")] == [2, 3]
    assert [one for one in range(3) if one in Range(None, 1, "[]")] == [0, 1]
    assert 1 not in Range(bounds="empty") and not Range(bounds="empty")
    assert (Range(1).bounds, Range(None, 1, "[]").bounds, Range().bounds) == ("[)", "(]", "()")
    assert Range(1, 2) != Range(1, 2, "[]") and Interval(days=1) != datetime.timedelta(1)
    with pytest.raises(ValueError, match="bounds must be one of"):
        Range(1, 2, "<>")
    with pytest.raises(AttributeError):
        Range(1).lower = 2
    with pytest.raises(AttributeError):
        Interval(1).months = 2
    with pytest.raises(TypeError, match="made of Range"):
        Multirange([1])  # type: ignore[list-item]


GIVEN: list[Any] = [
    True, 0, 1, 5, -1, 40000, 2**31, 2**40, 0.0, 1.0, 1.5, 1e30, math.inf, [], [1], [None], [True], [1.5], [[1]],
    ["x"], [[2**40]],
]  # fmt: skip
WANTED = [
    "bool", "int2", "int4", "int8", "oid", "float4", "float8", "numeric", "text", "bytea", "uuid", "date", "time",
    "timetz", "timestamp", "timestamptz", "interval", "inet", "cidr", "macaddr", "macaddr8", "bit(5)", "varbit",
    "jsonb", "json", "int4range", "int4multirange", "int4[]", "int2[]", "text[]", "bool[]", "uuid[]", "float8[]",
    "jsonb[]", "int4range[]", "point", "money", "xml", "colours", "colours[]", "composites",
]  # fmt: skip


def test_types_are_checked_before_anything_is_sent(shared_postgres: PostgresServer) -> None:
    """What is refused here is what the server refuses, and not more than that."""
    shared_postgres.psql("CREATE TYPE colours AS ENUM ('red')")
    shared_postgres.psql("CREATE TYPE composites AS (a int)")
    refused = 0
    with sync.connect(f"{shared_postgres.unix_url}?connections=1", kind=Postgres) as db:
        for name in WANTED:
            kept = f"SELECT $1::{name} IS NULL"
            db.execute(kept, None)
            for number, value in enumerate(GIVEN):
                new, known = [_accepts(db, sql, value) for sql in (f"{kept} /* {number} */", kept)]
                # An empty array for json would be taken for an object, one for an interval as {1}.
                if not (name in ("json", "jsonb", "interval") and isinstance(value, list)):
                    assert bool(new) == bool(known), (name, value)
                if known is None:
                    refused += 1
                    with pytest.raises(
                        iokernel.TypeRefused, match=r"parameter \$1 is an? .*wants "
                    ) as caught:
                        db.execute(kept, value)
                    assert caught.value.outcome == "never-sent"
        assert db.execute("SELECT 1") == "SELECT 1"
    assert refused > 150
    shared_postgres.psql("DROP TYPE colours, composites")


def _accepts(db: Postgres, sql: str, value: Any) -> bool | None:
    """Does the server take it? None: it was not asked."""
    try:
        db.execute(sql, value)
    except iokernel.TypeRefused:
        return None
    except (DataError, StatementError):
        return False
    return True


def test_refusals_say_which_parameter(db: Postgres) -> None:
    sql = "SELECT $1::text, $2::int2, $3::int[]"
    with db.lease() as lease:
        lease.execute(sql, "secret", 1, [1])
        for args, text in [
            (("secret", True, None), r"parameter \$2 is a boolean; the statement wants smallint"),
            (("secret", 1.25, None), r"\$2 is a float that is not a whole number; .* smallint"),
            (("secret", 1, 770077007), r"\$3 is an integer; the statement wants integer\[\]"),
            (("secret", 1, [1, [2, 7.5]]), r"\$3 is an array with a float that .* integer\[\]"),
        ]:
            with pytest.raises(iokernel.TypeRefused, match=text) as caught:
                lease.execute(sql, *args)
            assert not any(
                value in str(caught.value) for value in ("secret", "1.25", "770077007", "7.5")
            )
        assert lease.fetchval(sql, "secret", 1, [1]) == "secret"
