"""Which SQL types of SQLAlchemy need something of the dialect.

Most need only that the server is told a parameter's type (``$1::INTEGER``): the others it would
guess from what stands around it, as it does for a literal in quotes. Values come as the types'
own of Python already, but for ranges and numbers that are wished for as another type.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from typing import Any

from sqlalchemy import exc
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import pg_catalog, ranges
from sqlalchemy.engine import processors

from iokernel import values

FLOATS = frozenset((700, 701, 1021, 1022))  # and their arrays; likewise below
NUMBERS = frozenset((20, 21, 23, 26, 1700, 1005, 1007, 1016, 1028, 1231))


def _cast(kind: type[Any]) -> type[Any]:
    """Make the type whose parameters are cast to it."""
    return type(kind.__name__, (kind,), {"render_bind_cast": True})


class Interval(postgresql.INTERVAL):
    """An INTERVAL comes as a timedelta, or with months as an iokernel.values.Interval."""

    render_bind_cast = True

    @classmethod
    def adapt_emulated_to_native(cls, interval: Any, **kw: Any) -> Interval:  # type: ignore[override]
        """Make it of the generic type."""
        return cls(precision=interval.second_precision)


class _Numbers:
    """NUMERIC comes as Decimal, floats as float; the program may wish for the other one."""

    render_bind_cast = True
    asdecimal: Any
    _effective_decimal_return_scale: Any

    def bind_processor(self, dialect: Any) -> None:
        """Nothing: both go as they are."""

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any] | None:
        """Give the function that makes the one of the other, if one is needed."""
        if coltype in FLOATS:
            if not self.asdecimal:
                return None
            return processors.to_decimal_processor_factory(
                decimal.Decimal, self._effective_decimal_return_scale
            )
        if coltype not in NUMBERS:
            raise exc.InvalidRequestError(f"a column of the type with OID {coltype} is no number")
        return None if self.asdecimal else processors.to_float


class Numeric(_Numbers, sqltypes.Numeric[Any]):
    """As its base says."""


class Float(_Numbers, sqltypes.Float[Any]):
    """As its base says."""


class JSONIntIndex(sqltypes.JSON.JSONIntIndexType):
    """The number of an element."""

    __visit_name__ = "json_int_index"
    render_bind_cast = True


class JSONStrIndex(sqltypes.JSON.JSONStrIndexType):
    """The name of a field."""

    __visit_name__ = "json_str_index"
    render_bind_cast = True


def _range_out(value: Any) -> Any:
    if not isinstance(value, ranges.Range):
        return value
    return values.Range(value.lower, value.upper, "empty" if value.empty else value.bounds)


def _range_in(value: Any) -> Any:
    if not isinstance(value, values.Range):
        return value
    if value.empty:
        return ranges.Range(empty=True)
    return ranges.Range(value.lower, value.upper, bounds=value.bounds)  # type: ignore[arg-type]


class SingleRange(ranges.AbstractSingleRangeImpl[Any]):
    """SQLAlchemy has a class of its own for ranges, and so has iokernel."""

    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        """Make iokernel's."""
        return _range_out

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """Make SQLAlchemy's."""
        return _range_in


class MultiRange(ranges.AbstractMultiRangeImpl[Any]):
    """Likewise."""

    def bind_processor(self, dialect: Any) -> Callable[[Any], Any]:
        """Make iokernel's."""

        def process(value: Any) -> Any:
            if value is None or isinstance(value, str):
                return value
            return values.Multirange(map(_range_out, value))

        return process

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """Make SQLAlchemy's."""

        def process(value: Any) -> Any:
            return value if value is None else ranges.MultiRange(map(_range_in, value))

        return process


class _Vector:
    """Numbers with blanks between them, which only the system's tables have."""

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        """Make a list of them."""
        return lambda value: value if value is None else [int(one) for one in value.split()]


class Int2Vector(_Vector, pg_catalog.INT2VECTOR):
    """As its base says."""

    cache_ok = True


class OidVector(_Vector, pg_catalog.OIDVECTOR):
    """As its base says."""

    cache_ok = True


class _Network:
    """Comes as an object of ``ipaddress``, or as text if the engine is to have it so."""

    def result_processor(self, dialect: Any, coltype: Any) -> Callable[[Any], Any] | None:
        """Give what makes texts."""
        if dialect._native_inet_types is not False:
            return None
        return lambda value: value if value is None else str(value)


class Inet(_Network, postgresql.INET):
    """As its base says."""

    render_bind_cast = True


class Cidr(_Network, postgresql.CIDR):
    """As its base says."""

    render_bind_cast = True


_CAST = (
    sqltypes.ARRAY,
    sqltypes.BigInteger,
    sqltypes.Boolean,
    sqltypes.CHAR,
    sqltypes.Date,
    sqltypes.DateTime,
    sqltypes.Enum,
    sqltypes.Integer,
    sqltypes.LargeBinary,
    sqltypes.SmallInteger,
    sqltypes.String,
    sqltypes.Time,
    postgresql.OID,
    postgresql.REGCLASS,
    postgresql.REGCONFIG,
)
_NATIVE: dict[type[Any], type[Any]] = {
    sqltypes.ARRAY: postgresql.ARRAY,
    sqltypes.Enum: postgresql.ENUM,
    sqltypes.LargeBinary: postgresql.BYTEA,
}

COLSPECS: dict[type[Any], type[Any]] = {
    **{kind: _cast(_NATIVE.get(kind, kind)) for kind in _CAST},
    postgresql.CITEXT: postgresql.CITEXT,  # not as the String that it is, too
    postgresql.CIDR: Cidr,
    postgresql.INET: Inet,
    postgresql.INTERVAL: Interval,
    pg_catalog.INT2VECTOR: Int2Vector,
    pg_catalog.OIDVECTOR: OidVector,
    ranges.AbstractMultiRange: MultiRange,
    ranges.AbstractSingleRange: SingleRange,
    sqltypes.Float: Float,
    sqltypes.Interval: Interval,
    sqltypes.JSON.JSONIntIndexType: JSONIntIndex,
    sqltypes.JSON.JSONStrIndexType: JSONStrIndex,
    sqltypes.Numeric: Numeric,
}
