"""Types that a PostgreSQL database has of its own, and decoders that a program wishes for.

The codec knows the types that are built into every server. Those of a database (enums, composites,
extensions' types) have other OIDs in each, and come as text: what they are is asked for by
``learn_types()`` once for a client, and not for each connection, since the same column must not
give one thing on an old connection and another on a new one. From then on this module makes their
values of the texts.

``decoders`` is the dict of a client: by a column's OID who makes its values of what there is
without.
"""

from __future__ import annotations

import datetime
import decimal
import functools
import ipaddress
import json
import re
import struct
import uuid
from collections.abc import Callable
from typing import Any, TypeAlias

from iokernel._core import record
from iokernel.values import Composite, Hstore, Interval, Multirange, Range, Vector

Decoder: TypeAlias = Callable[[Any], Any]
Decoders: TypeAlias = dict[int, Decoder]

FIRST_OID = 16384  # FirstNormalObjectId of the server
RECORD, RECORD_ARRAY = 2249, 2287  # of no named type: what its fields are the text does not say

BY_NAME = """
    SELECT oid::int8, typarray::int8, typdelim::text FROM pg_type WHERE oid = to_regtype($1)"""
BY_OID = "SELECT oid::int8, typarray::int8, typdelim::text FROM pg_type WHERE oid = $1::int8"
# (The multirange of a range is a column that servers before 14 do not have.)
ALL = f"""
    SELECT t.oid::int8, t.typarray::int8, t.typdelim::text, t.typtype::text, t.typname::text,
        coalesce(r.rngsubtype, t.typbasetype)::int8,
        coalesce(to_jsonb(r) ->> 'rngmultitypid', '0')::int8,
        ARRAY(SELECT attname::text FROM pg_attribute a WHERE a.attrelid = t.typrelid
            AND attnum > 0 AND NOT attisdropped ORDER BY attnum),
        ARRAY(SELECT atttypid::int8 FROM pg_attribute a WHERE a.attrelid = t.typrelid
            AND attnum > 0 AND NOT attisdropped ORDER BY attnum)
    FROM pg_type t LEFT JOIN pg_range r ON r.rngtypid = t.oid
    WHERE t.oid >= {FIRST_OID} AND t.typtype IN ('b', 'c', 'd', 'e', 'r')
        AND NOT (t.typtype = 'b' AND t.typelem <> 0 AND t.typlen = -1)
    ORDER BY t.oid"""


# ---- texts of containers ------------------------------------------------------------------------

_ESCAPED = re.compile(r'\\(.)|""', re.DOTALL)


def _unquoted(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[1] or '"', text)


def read_array(text: str, decode: Decoder, delimiter: str) -> list[Any]:
    """Give the elements of an array's text: {1,NULL,"a",{2}}."""
    if text.startswith("["):  # lower bounds: [0:1]={1,2}
        text = text[text.index("=") + 1 :]
    item = re.compile(rf'"((?:[^"\\]|\\.)*)"|([^"{{}}{re.escape(delimiter)}]+)', re.DOTALL)
    stack: list[list[Any]] = [[]]
    at = 0
    while at < len(text):
        if text[at] == "{":
            stack.append([])
        elif text[at] == "}":
            inner = stack.pop()
            stack[-1].append(inner)
        elif text[at] != delimiter:
            found = item.match(text, at)
            if found is None:
                break
            quoted = found[1] is not None
            plain = _unquoted(found[1]) if quoted else found[2]
            stack[-1].append(None if not quoted and plain == "NULL" else decode(plain))
            at = found.end()
            continue
        at += 1
    if len(stack) != 1 or len(stack[0]) != 1 or at < len(text):
        raise ValueError("a text that is not an array")
    return stack[0][0]  # type: ignore[no-any-return]


def read_fields(text: str) -> list[str | None]:
    """Give the fields of a composite's text: (1,"a b",) has three, the last of them NULL."""
    if len(text) < 2 or text[0] != "(" or text[-1] != ")":
        raise ValueError("a text that is not a composite")
    if text == "()":
        return []
    item = re.compile(r'((?:"(?:[^"\\]|\\.|"")*"|\\.|[^",\\])*)(,|$)', re.DOTALL)
    fields: list[str | None] = []
    at, end = 1, len(text) - 1
    while True:
        found = item.match(text, at, end)
        if found is None:
            raise ValueError("a text that is not a composite")
        fields.append(_bare(found[1]) if found[1] else None)
        at = found.end()
        if not found[2]:
            return fields


_PIECE = re.compile(r'"((?:[^"\\]|\\.|"")*)"|((?:\\.|[^"\\])+)', re.DOTALL)


def _bare(text: str) -> str:
    """Give a text without its quotes and escapes, which may begin anywhere in it."""
    return "".join(
        _unquoted(found[1] if found[1] is not None else found[2]) for found in _PIECE.finditer(text)
    )


_RANGE = re.compile(
    r'([\[(])((?:"(?:[^"\\]|\\.|"")*"|\\.|[^",\\])*),((?:"(?:[^"\\]|\\.|"")*"|\\.|[^"\])\\])*)([\])])',
    re.DOTALL,
)


def _range_of(found: re.Match[str], decode: Decoder) -> Range:
    lower, upper = (decode(_bare(one)) if one else None for one in found.group(2, 3))
    return Range(lower, upper, found[1] + found[4])


def read_range(text: str, decode: Decoder) -> Range:
    """Give the range of a text: [1,5), empty."""
    if text == "empty":
        return Range(bounds="empty")
    found = _RANGE.fullmatch(text)
    if found is None:
        raise ValueError("a text that is not a range")
    return _range_of(found, decode)


def read_multirange(text: str, decode: Decoder) -> Multirange:
    """Give the ranges of a text: {[1,5),[7,8)}."""
    return Multirange([_range_of(found, decode) for found in _RANGE.finditer(text)])


_PAIR = re.compile(
    r'"((?:[^"\\]|\\.)*)"=>(?:"((?:[^"\\]|\\.)*)"|NULL)(?:, |$)',
    re.DOTALL,
)


def read_hstore(text: str) -> Hstore:
    """Give the pairs of an hstore's text: "a"=>"1", "b"=>NULL."""
    made = Hstore()
    at = 0
    while at < len(text):
        found = _PAIR.match(text, at)
        if found is None:
            raise ValueError("a text that is not an hstore")
        made[_unquoted(found[1])] = None if found[2] is None else _unquoted(found[2])
        at = found.end()
    return made


def read_vector(text: str) -> Vector:
    """Give the numbers of a vector's text: [1,2.5]."""
    return Vector(map(float, json.loads(text)))


# ---- texts of scalars, as within composites -----------------------------------------------------

_FRACTION = re.compile(r"\.(\d+)")
_ZONE = re.compile(r"([+-]\d\d)$")


def _moment(kind: Callable[[str], Any], text: str) -> Any:
    """Read a moment; one that Python's types do not reach stays text."""
    whole = _FRACTION.sub(lambda found: "." + found[1].ljust(6, "0"), text)
    try:
        made = kind(_ZONE.sub(r"\1:00", whole) if ":" in whole else whole)
    except ValueError:
        return text
    if isinstance(made, datetime.datetime) and made.tzinfo is not None:
        return made.astimezone(datetime.timezone.utc)
    return made


_INTERVAL = re.compile(
    r"(?:(-?\d+) years? ?)?(?:([+-]?\d+) mons? ?)?(?:([+-]?\d+) days? ?)?"
    r"(?:([+-]?)(\d+):(\d\d):(\d\d)(?:\.(\d+))?)?"
)


def _interval(text: str) -> Any:
    """Read an interval in the style postgres, the server's default; others stay text."""
    found = _INTERVAL.fullmatch(text)
    if found is None:
        return text
    years, months, days, hours, minutes, seconds = (
        int(found[number] or 0) for number in (1, 2, 3, 5, 6, 7)
    )
    us = ((hours * 60 + minutes) * 60 + seconds) * 10**6 + int((found[8] or "").ljust(6, "0"))
    us = -us if found[4] == "-" else us
    months += years * 12
    if months == 0:
        try:
            return datetime.timedelta(days, microseconds=us)
        except OverflowError:
            pass
    return Interval(months, days, us)


def _address(text: str) -> Any:
    return ipaddress.ip_interface(text) if "/" in text else ipaddress.ip_address(text)


def _single(text: str) -> float:
    single: float = struct.unpack("f", struct.pack("f", float(text)))[0]
    return single


def _bytes(text: str) -> Any:
    return bytes.fromhex(text[2:]) if text.startswith("\\x") else text


_SCALARS: Decoders = {
    16: "t".__eq__,
    17: _bytes,
    20: int,
    21: int,
    23: int,
    26: int,
    650: ipaddress.ip_network,
    700: _single,
    701: float,
    869: _address,
    1082: functools.partial(_moment, datetime.date.fromisoformat),
    1083: functools.partial(_moment, datetime.time.fromisoformat),
    1114: functools.partial(_moment, datetime.datetime.fromisoformat),
    1184: functools.partial(_moment, datetime.datetime.fromisoformat),
    1186: _interval,
    1266: functools.partial(_moment, datetime.time.fromisoformat),
    1700: decimal.Decimal,
    2950: uuid.UUID,
}
_RANGES = {3904: 23, 3906: 1700, 3908: 1114, 3910: 1184, 3912: 1082, 3926: 20}
_MULTIRANGES = {4451: 23, 4532: 1700, 4533: 1114, 4534: 1184, 4535: 1082, 4536: 20}
_ARRAYS = {
    1000: 16, 1001: 17, 1016: 20, 1005: 21, 1007: 23, 1028: 26, 651: 650, 1021: 700, 1022: 701,
    1041: 869, 1182: 1082, 1183: 1083, 1115: 1114, 1185: 1184, 1187: 1186, 1270: 1266, 1231: 1700,
    2951: 2950, 3905: 3904, 3907: 3906, 3909: 3908, 3911: 3910, 3913: 3912, 3927: 3926, 6150: 4451,
    6151: 4532, 6152: 4533, 6153: 4534, 6155: 4535, 6157: 4536, 1003: 25, 1009: 25, 1014: 25,
    1015: 25, 199: 114, 3807: 3802, 143: 142, 1563: 25, 1561: 25, 1040: 25, 775: 25,
}  # fmt: skip


def _of_text(decoders: Decoders, oid: int) -> Decoder:
    """Give the decoder of a type's text, as it stands within another one's."""
    if oid >= FIRST_OID:
        return decoders.get(oid, str)
    built_in = _of_built_in(decoders, oid)
    own = decoders.get(oid)
    if own is None or oid in _ARRAYS:
        return built_in
    return lambda text: own(built_in(text))


def _of_built_in(decoders: Decoders, oid: int) -> Decoder:
    if oid in _ARRAYS:
        return _array(_of_text(decoders, _ARRAYS[oid]), ",")
    if oid in _RANGES:
        return functools.partial(read_range, decode=_of_text(decoders, _RANGES[oid]))
    if oid in _MULTIRANGES:
        return functools.partial(read_multirange, decode=_of_text(decoders, _MULTIRANGES[oid]))
    return _SCALARS.get(oid, str)


# ---- the dict of a client -----------------------------------------------------------------------


def _array(decode: Decoder, delimiter: str) -> Decoder:
    """Give the decoder of arrays; those of built-in types are lists already."""

    def nested(value: Any) -> Any:
        if isinstance(value, list):
            return [nested(one) for one in value]
        return None if value is None else decode(value)

    def decode_array(value: Any) -> Any:
        return read_array(value, decode, delimiter) if isinstance(value, str) else nested(value)

    return decode_array


def _composite(decoders: Decoders, names: list[str], types: list[int]) -> Decoder:
    # The fields' decoders are looked for at each value: they may be set, or learned, after this.
    def decode(text: str) -> Any:
        values = read_fields(text)
        if len(values) != len(types):  # the type was altered since
            return Composite(values)
        return record(
            names,
            [
                None if one is None else _of_text(decoders, oid)(one)
                for oid, one in zip(types, values, strict=True)
            ],
        )

    return decode


def _later(decoders: Decoders, oid: int) -> Decoder:
    return lambda text: _of_text(decoders, oid)(text)


def set_decoder(decoders: Decoders, kind: str | int, decode: Decoder | None, rows: Any) -> None:
    """Let a type's values, and those in its arrays, be made by a function; None: by nobody more."""
    if not rows:
        raise LookupError(f"the database has no type {kind}")
    for oid, array, delimiter in rows:
        if decode is None:
            for key in (oid, -oid, array):
                decoders.pop(key, None)
        else:
            decoders[oid] = decoders[-oid] = decode
            if array:
                decoders[array] = _array(decode, delimiter)


def learn(decoders: Decoders, rows: Any) -> int:
    """Take in the types that the database has of its own; give how many.

    Those that the program itself has set stay: -OID is among the decoders as a mark of it.
    """
    if -RECORD not in decoders:
        decoders[RECORD] = decode_record = lambda text: Composite(read_fields(text))
        decoders[RECORD_ARRAY] = _array(decode_record, ",")
    for oid, array, delimiter, kind, name, base, multirange, names, types in rows:
        decode = decoders.get(-oid)
        if decode is not None:
            pass
        elif kind == "c":
            decode = _composite(decoders, names, types)
        elif kind == "r":
            decode = functools.partial(read_range, decode=_later(decoders, base))
            if multirange:
                decoders[multirange] = functools.partial(
                    read_multirange, decode=_later(decoders, base)
                )
        elif kind == "d":
            decode = _later(decoders, base)
        elif name == "hstore":
            decode = read_hstore
        elif name in ("vector", "halfvec"):
            decode = read_vector
        if decode is not None:
            decoders[oid] = decode
        if array:
            decoders[array] = _array(decode or str, delimiter)
    return len(rows)
