"""Clients and leases of any protocol, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from iokernel import _core
from iokernel._core import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

    from iokernel._core import Argument

# Messages that have come already are taken without suspending; after so many the loop has a turn.
STREAK_MAX = 64

C = TypeVar("C", bound="Client")
L = TypeVar("L", bound="Lease")
T = TypeVar("T")

Task = _core.task_type()
"""An asyncio.Task that a Reply resumes without a detour; see task_factory."""


def task_factory(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, T], **options: Any
) -> asyncio.Task[T]:
    """Make tasks that cost less for each call that they await; otherwise they are as asyncio's.

    >>> asyncio.get_running_loop().set_task_factory(iokernel.asyncio.task_factory)

    Only tasks that are made from then on are of this kind; both kinds live side by side.
    """
    return Task(coro, loop=loop, **options)


async def finish(steps: Generator[Any, Any, T]) -> T:
    """Go through the steps, each an awaitable, to the end."""
    try:
        step = next(steps)
        while True:
            try:
                value = await step
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(value)
    except StopIteration as end:
        result: T = end.value
        return result


class Client(_core.Client):
    """A service of any protocol, for asyncio."""

    __slots__ = ()

    if TYPE_CHECKING:

        def call(
            self,
            *args: Argument | None,
            timeout: float | None = None,
            repeatable: bool | None = None,
        ) -> Reply[Any]:
            """Send one command, given as its words."""

        def call_many(
            self, commands: Sequence[tuple[Argument, ...]], *, timeout: float | None = None
        ) -> list[Reply[Any]]:
            """Send many commands at once."""

        def ready(self, timeout: float | None = None) -> Reply[None]:
            """Wait until the service is usable."""

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def lease(self) -> Lease:
        """Give a connection of one's own, for as long as the ``async with`` block."""
        return Lease(self)


class Lease(_core.Lease):
    """A connection that a sequence of calls holds alone; it belongs to its event loop."""

    __slots__ = ()

    if TYPE_CHECKING:

        def call(
            self,
            *args: Argument | None,
            timeout: float | None = None,
            repeatable: bool | None = None,
        ) -> Reply[Any]:
            """Send one command, given as its words."""

        def call_many(
            self, commands: Sequence[tuple[Argument, ...]], *, timeout: float | None = None
        ) -> list[Reply[Any]]:
            """Send many commands at once."""

    async def __aenter__(self: L) -> L:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
