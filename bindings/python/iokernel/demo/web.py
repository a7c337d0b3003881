"""The applications of the demonstration's third part: plain ASGI, served by ``iokernel serve``.

``replica`` is run three times, and tells an item. ``front`` asks one replica, Redis and PostgreSQL
for each request, all through the kernel, and can be made to compute for a while, so that its event
loop stands still.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import iokernel.asyncio
from iokernel.asyncio import Http, Postgres, Redis

__all__ = ["front", "replica"]

VISITS = "demo:visits"
REPLICA = "IOKERNEL_DEMO_REPLICA"  # environment: the replica's name
SERVICES = "IOKERNEL_DEMO_SERVICES"  # of the front: URLs of Redis, PostgreSQL and the replicas
SELECT = "SELECT name FROM items WHERE id = $1"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


async def _lifespan(receive: Receive, send: Send, start: Callable[[], None]) -> None:
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            start()
            await send({"type": "lifespan.startup.complete"})
        else:
            await send({"type": "lifespan.shutdown.complete"})
            return


async def _answer(send: Send, value: object, status: int = 200) -> None:
    body = json.dumps(value).encode()
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def replica(scope: Message, receive: Receive, send: Send) -> None:
    """Answer /items/N."""
    if scope["type"] == "lifespan":
        await _lifespan(receive, send, lambda: None)
        return
    number = int(scope["path"].rpartition("/")[2])
    await _answer(send, {"replica": os.environ[REPLICA], "item": number})


class Front:
    """The front end."""

    def __init__(self) -> None:
        self._redis: Redis
        self._postgres: Postgres | None = None
        self._replicas: list[Http] = []

    def _connect(self) -> None:
        urls = json.loads(os.environ[SERVICES])
        self._redis = iokernel.asyncio.connect(urls["redis"], kind=Redis)
        if urls["postgres"] is not None:
            self._postgres = iokernel.asyncio.connect(urls["postgres"], kind=Postgres)
        self._replicas = [iokernel.asyncio.connect(url, kind=Http) for url in urls["replicas"]]

    async def _name(self, number: int) -> str | None:
        if self._postgres is None:
            return None
        return str(await self._postgres.fetchval(SELECT, number, repeatable=True))

    async def _page(self, number: int) -> dict[str, object]:
        web = self._replicas[number % len(self._replicas)]
        visit, name, response = await asyncio.gather(
            self._redis.incr(VISITS), self._name(number), web.get(f"/items/{number}")
        )
        return {"visit": visit, "name": name, **response.json()}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer /page/N and /compute/SECONDS."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send, self._connect)
            return
        what, _, argument = scope["path"][1:].partition("/")
        if what == "page":
            await _answer(send, await self._page(int(argument)))
        elif what == "compute":
            began = time.monotonic()
            while time.monotonic() < began + float(argument):  # it holds the event loop up
                sum(range(1000))
            await _answer(send, {"computed": time.monotonic() - began})
        else:
            await _answer(send, {"error": "no such page"}, 404)


front = Front()
