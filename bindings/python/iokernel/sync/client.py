"""Clients and leases of any protocol, for plain threads."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from iokernel import _core

C = TypeVar("C", bound="Client")
L = TypeVar("L", bound="Lease")
T = TypeVar("T")


def finish(steps: Generator[Any, Any, T]) -> T:
    """Go through the steps, each a value that is there already, to the end."""
    try:
        step = next(steps)
        while True:
            step = steps.send(step)
    except StopIteration as end:
        result: T = end.value
        return result


class Client(_core.Client):
    """A service of any protocol, for plain threads."""

    __slots__ = ()

    def __enter__(self: C) -> C:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def lease(self) -> Lease:
        """Give a connection of one's own, for as long as the ``with`` block."""
        return Lease(self)


class Lease(_core.Lease):
    """A connection that a sequence of calls holds alone; it belongs to the thread that made it."""

    __slots__ = ()

    def __enter__(self: L) -> L:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
