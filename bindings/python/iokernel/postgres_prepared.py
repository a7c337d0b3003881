"""What a statement takes and gives, as the server tells it without running the statement."""

from __future__ import annotations

from typing import Any, NamedTuple

from iokernel.postgres_steps import Steps

__all__ = ["Column", "Parameter"]

_NAMES = """
    SELECT format_type(oid::oid, NULL)
    FROM unnest($1::int8[]) WITH ORDINALITY t (oid, n) ORDER BY n"""


class Parameter(NamedTuple):
    """The type of a parameter: its OID, and its name as SQL writes it."""

    oid: int
    type: str


class Column(NamedTuple):
    """A column of the result: its name, and its type as that of a parameter."""

    name: str
    oid: int
    type: str


def describe(
    caller: Any, sql: str, timeout: float | None
) -> Steps[tuple[tuple[Parameter, ...], tuple[Column, ...]]]:
    """Ask for the parameters and the columns of a statement."""
    names, columns, parameters, _ = yield caller.call(["describe"], sql, timeout=timeout)
    oids = [*parameters, *columns]
    types: list[str] = []
    if oids:
        reply = yield caller.call(_NAMES, oids, timeout=timeout)
        types = [row[0] for row in reply[2]]
    of_columns = types[len(parameters) :]
    return (
        tuple(map(Parameter, parameters, types)),
        tuple(map(Column, names, columns, of_columns)),
    )
