"""iokernel for asyncio, on any event loop that keeps its interface (uvloop too).

>>> from iokernel.asyncio import connect
>>> async with connect("redis://localhost") as cache:
...     await cache.set("greeting", "hello")
'OK'

A call is sent when it is made and returns a Reply, an awaitable that asyncio's functions take for a
future.
"""

from __future__ import annotations

from typing import Any, overload

from iokernel import _core
from iokernel._core import Reply
from iokernel.asyncio.client import C, Client, Lease, Task, task_factory
from iokernel.asyncio.http import Http, StreamResponse, Upgraded
from iokernel.asyncio.postgres import Postgres, PostgresLease, PostgresTransaction
from iokernel.asyncio.redis import Redis, RedisLease, Subscription, Transaction, Watch
from iokernel.asyncio.websocket import WebSocket
from iokernel.http import SCHEMES as HTTP_SCHEMES
from iokernel.http import (
    CodingError,
    Headers,
    RedirectError,
    Response,
    StatusError,
    UpgradeError,
)
from iokernel.postgres import SCHEMES as POSTGRES_SCHEMES
from iokernel.postgres import Record
from iokernel.redis import SCHEMES, Message
from iokernel.websocket import WebSocketClosed

__all__ = [
    "Client",
    "CodingError",
    "Headers",
    "Http",
    "Lease",
    "Message",
    "Postgres",
    "PostgresLease",
    "PostgresTransaction",
    "Record",
    "Redis",
    "RedisLease",
    "Reply",
    "RedirectError",
    "Response",
    "StatusError",
    "StreamResponse",
    "Subscription",
    "Task",
    "Transaction",
    "UpgradeError",
    "Upgraded",
    "Watch",
    "WebSocket",
    "WebSocketClosed",
    "connect",
    "task_factory",
]


@overload
def connect(url: str | _core.Client, *, decode: bool | str = False) -> Redis: ...
@overload
def connect(url: str | _core.Client, *, decode: bool | str = False, kind: type[C]) -> C: ...
def connect(
    url: str | _core.Client, *, decode: bool | str = False, kind: type[Any] | None = None
) -> Any:
    """Give the client for a URL, at once; it resolves, connects and stays connected by itself.

    With ``decode=True`` replies of bytes become str. By the URL's scheme it is a Redis, a
    Postgres or an Http; for other protocols it has no commands of its own, only ``call()``. It
    needs no running loop; calls do.

    Type checkers cannot read the scheme: for another one than Redis name the kind, as in
    ``connect("postgresql://...", kind=Postgres)``.

    Instead of a URL another client may be given, of any module: both share its connections, until
    that other one is closed.
    """
    given = url if isinstance(url, str) else url.url
    scheme = given.partition(":")[0].partition("+")[0].lower()
    by_scheme: type[Any] = Client
    if scheme in SCHEMES:
        by_scheme = Redis
    elif scheme in POSTGRES_SCHEMES:
        by_scheme = Postgres
    elif scheme in HTTP_SCHEMES:
        by_scheme = Http
        if decode:
            raise TypeError("decode= is not for HTTP: text() of a response decodes")
    if kind is None:
        kind = by_scheme
    elif not issubclass(kind, by_scheme) and kind is not Client:
        raise TypeError(
            f"a URL of scheme {scheme} is for {by_scheme.__name__}, not {kind.__name__}"
        )
    return kind(url, mode="asyncio", decode=decode)
