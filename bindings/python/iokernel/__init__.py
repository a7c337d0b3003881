"""iokernel: one C thread does all network input and output of a process.

>>> from iokernel.asyncio import connect          # or iokernel.sync
>>> cache = connect("redis://localhost")          # returns at once
>>> await cache.set("greeting", "hello")
"""

from __future__ import annotations

from iokernel._core import Client, Lease, Reply, Stream, command, configure, stats
from iokernel._core import version as __version__
from iokernel.errors import (
    Closed,
    DecodeError,
    Error,
    Forked,
    MaybeExecuted,
    NeverSent,
    Overloaded,
    Rejected,
    ReplyError,
    Timeout,
    TypeRefused,
    Unavailable,
    Unsafe,
    URLError,
    WatchError,
    WrongThread,
)

__all__ = [
    "Client",
    "Closed",
    "DecodeError",
    "Error",
    "Forked",
    "Lease",
    "MaybeExecuted",
    "NeverSent",
    "Overloaded",
    "Rejected",
    "Reply",
    "ReplyError",
    "Stream",
    "Timeout",
    "TypeRefused",
    "URLError",
    "Unavailable",
    "Unsafe",
    "WatchError",
    "WrongThread",
    "__version__",
    "command",
    "configure",
    "stats",
]
