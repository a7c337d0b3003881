"""Values that Python has no type of its own for, and how other values go to a server.

Servers of rich protocols (PostgreSQL) take None, bool, numbers, str, bytes, lists and tuples as
they are. Every other value goes as what ``plain`` makes of it, mostly a text that the server reads
as it would read a literal in quotes. ``plain.register`` teaches it further classes:

>>> @iokernel.values.plain.register
... def _(value: Point) -> str:
...     return f"({value.x},{value.y})"
"""

from __future__ import annotations

import datetime
import decimal
import enum
import functools
import ipaddress
import json
import uuid
from collections.abc import Iterable
from typing import Any

__all__ = ["Composite", "Hstore", "Interval", "Json", "Multirange", "Range", "Vector", "plain"]


class Interval:
    """A length of time in months, days and microseconds, each of which may be negative.

    A month has no fixed length, so it does not become a timedelta; what has none does.
    """

    __slots__ = ("days", "microseconds", "months")
    months: int
    days: int
    microseconds: int

    def __init__(self, months: int = 0, days: int = 0, microseconds: int = 0) -> None:
        for name, value in zip(
            ("months", "days", "microseconds"), (months, days, microseconds), strict=True
        ):
            object.__setattr__(self, name, int(value))

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Interval cannot be changed")

    def _key(self) -> tuple[int, int, int]:
        return (self.months, self.days, self.microseconds)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Interval) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[object, ...]:
        return (Interval, self._key())

    def __repr__(self) -> str:
        return "Interval(months={}, days={}, microseconds={})".format(*self._key())

    def __str__(self) -> str:
        """Give the form of ISO 8601."""
        sign = "-" if self.microseconds < 0 else ""
        seconds, us = divmod(abs(self.microseconds), 1_000_000)
        hours, seconds = divmod(seconds, 3600)  # the server reads seconds as a double: few of them
        return f"P{self.months}M{self.days}DT{sign}{hours}H{sign}{seconds}.{us:06}S"


class Range:
    """All values between two bounds, of any type; a bound of None is none at all.

    ``bounds`` says whether they belong to it: "[)", "[]", "(]" or "()"; of "empty" there are none.
    """

    __slots__ = ("bounds", "lower", "upper")
    lower: Any
    upper: Any
    bounds: str

    def __init__(self, lower: Any = None, upper: Any = None, bounds: str = "[)") -> None:
        if bounds not in ("[)", "[]", "(]", "()", "empty"):
            raise ValueError("bounds must be one of [) [] (] () empty")
        if bounds == "empty":
            lower = upper = None
        else:
            bounds = ("(" if lower is None else bounds[0]) + (")" if upper is None else bounds[1])
        for name, value in (("lower", lower), ("upper", upper), ("bounds", bounds)):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a Range cannot be changed")

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return self.bounds == "empty"

    @property
    def lower_inc(self) -> bool:
        """Whether the lower bound belongs to it."""
        return self.bounds[0] == "["

    @property
    def upper_inc(self) -> bool:
        """Whether the upper bound belongs to it."""
        return self.bounds[-1] == "]"

    def __contains__(self, value: Any) -> bool:
        if self.empty:
            return False
        if self.lower is not None and (
            value < self.lower or (value == self.lower and not self.lower_inc)
        ):
            return False
        return self.upper is None or bool(
            value < self.upper or (value == self.upper and self.upper_inc)
        )

    def __bool__(self) -> bool:
        return not self.empty

    def _key(self) -> tuple[Any, Any, str]:
        return (self.lower, self.upper, self.bounds)

    def __eq__(self, other: object) -> bool:
        return self._key() == other._key() if isinstance(other, Range) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._key())

    def __reduce__(self) -> tuple[object, ...]:
        return (Range, self._key())

    def __repr__(self) -> str:
        return "Range({!r}, {!r}, {!r})".format(*self._key())

    def __str__(self) -> str:
        """Give the form that PostgreSQL reads."""
        if self.empty:
            return "empty"
        lower, upper = (
            "" if bound is None else _quoted(bound) for bound in (self.lower, self.upper)
        )
        return f"{self.bounds[0]}{lower},{upper}{self.bounds[1]}"


class Multirange(tuple[Range, ...]):
    """Ranges of one type, in their order, as PostgreSQL has them: a tuple of them."""

    __slots__ = ()

    def __new__(cls, ranges: Iterable[Range] = ()) -> Multirange:
        """Make it of ranges."""
        made = super().__new__(cls, ranges)
        if not all(isinstance(one, Range) for one in made):
            raise TypeError("a Multirange is made of Range")
        return made

    def __repr__(self) -> str:
        return f"Multirange({list(self)!r})"

    def __str__(self) -> str:
        """Give the form that PostgreSQL reads."""
        return "{" + ",".join(map(str, self)) + "}"


class Composite(tuple[Any, ...]):
    """The fields of a value of a composite type, as a parameter: ``Composite((1, "a"))``.

    (A plain tuple is an array, as a list is. Records that came from the server go as composites.)
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Composite({tuple(self)!r})"


class Hstore(dict[str, "str | None"]):
    """A dict that goes as an hstore; a plain dict goes as JSON."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Hstore({dict(self)!r})"


class Vector(list[float]):
    """A list that goes as a vector of pgvector; a plain list goes as an array."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Vector({list(self)!r})"


class Json:
    """Any value of JSON, as a parameter: ``Json([1, 2])``. A dict needs it not."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


# ---- what goes to the server --------------------------------------------------------------------


def _quoted(value: Any) -> str:
    """Give a value's text in quotes, as within a range, a composite or an hstore."""
    text = text_of(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def text_of(value: Any) -> str:
    """Give the text that the server reads as this value."""
    made = plain(value)
    value = value if made is NotImplemented else made
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return "{" + ",".join(_element(one) for one in value) + "}"
    raise TypeError(f"a value of type {type(value).__name__} has no text form for the server")


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    nested = isinstance(value, list | tuple) and plain(value) is NotImplemented
    return text_of(value) if nested else _quoted(value)


@functools.singledispatch
def plain(value: Any) -> Any:
    """Give the str, bytes, number, bool, list or None that goes to the server for a value.

    NotImplemented: it has none, or is plain itself.
    """
    return NotImplemented


for _kind in (
    datetime.date,  # datetime, too
    datetime.time,
    decimal.Decimal,
    uuid.UUID,
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    ipaddress.IPv4Interface,
    ipaddress.IPv6Interface,
    ipaddress.IPv4Network,
    ipaddress.IPv6Network,
    Interval,
    Range,
    Multirange,
):
    plain.register(_kind, str)


@plain.register
def _(value: datetime.timedelta) -> str:
    # In its str(), as "-1 day, 0:00:05", IntervalStyle would say what the sign is for.
    return f"P{value.days}DT{value.seconds}.{value.microseconds:06}S"


@plain.register
def _(value: enum.Enum) -> Any:
    made = plain(value.value)
    return value.value if made is NotImplemented else made


@plain.register
def _(value: dict) -> str:  # type: ignore[type-arg]
    return json.dumps(value, ensure_ascii=False)


@plain.register
def _(value: Json) -> str:
    return json.dumps(value.value, ensure_ascii=False)


@plain.register
def composite_text(value: Composite) -> str:
    """Give the literal of a composite: (1,"a",)."""
    return "(" + ",".join("" if one is None else _quoted(one) for one in value) + ")"


@plain.register
def _(value: Hstore) -> str:
    return ",".join(
        f"{_quoted(key)}=>{'NULL' if one is None else _quoted(one)}" for key, one in value.items()
    )


@plain.register
def _(value: Vector) -> str:
    return "[" + ",".join(map(repr, map(float, value))) + "]"
