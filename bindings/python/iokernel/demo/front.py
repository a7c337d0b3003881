"""The third part: a front end and three replicas, HTTP from end to end, while Python computes.

Tasks ask the front end for pages, each of which it makes of what one replica, Redis and PostgreSQL
say. In the middle it is made to compute for a while: its event loop answers nothing then, but its
I/O thread answers the health check, which is asked and timed all along.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import quote

import iokernel.asyncio
import iokernel.sync
from iokernel.asyncio import Http
from iokernel.demo import web
from iokernel.demo.servers import Server
from iokernel.errors import Error

__all__ = ["Front", "run_front"]

REPLICAS = 3
TASKS = 50
ITEMS = 10_000
HEALTH = "/healthz"
HEALTH_EVERY_S = 0.005


class WebServer(Server):
    """An application of web.py on a unix socket, served by ``iokernel serve``."""

    def __init__(self, directory: str, name: str, app: str, environment: dict[str, str]) -> None:
        super().__init__(directory, name)
        self._app = app
        self._path = os.path.join(self.directory, "http.sock")
        self.environment = environment

    @property
    def url(self) -> str:
        """What iokernel connects to."""
        return f"http+unix://{quote(self._path)}"

    def command(self) -> list[str]:
        """Give the words that start it."""
        words = ("serve", f"iokernel.demo.web:{self._app}", "--bind", f"unix:{self._path}")
        return [sys.executable, "-m", "iokernel", *words, "--health", HEALTH]

    def answers(self) -> bool:
        """Tell whether it is ready."""
        if not os.path.exists(self._path):
            return False
        with (
            contextlib.suppress(Error),
            iokernel.sync.connect(self.url, kind=iokernel.sync.Http) as client,
        ):
            return client.get(HEALTH, timeout=1).ok
        return False

    def connections(self) -> int:
        """Nobody asks."""
        return 0

    def written(self) -> int:
        """Nothing is."""
        return 0


class Front:
    """What it runs on, and what it found."""

    def __init__(self, seconds: float, computes: float, say: Callable[[str], None]) -> None:
        self.seconds, self.computes = seconds, computes
        self.say = say
        self.done = 0
        self.failed: Counter[str] = Counter()
        self.by_replica: Counter[str] = Counter()
        self.rate = 0.0  # pages in a second before the computation
        self.visits = 0  # as Redis has it at the end
        self.health: list[float] = []  # seconds, while Python computes
        self.sick = 0  # checks that were not answered by 200
        self.longest = 0.0  # seconds that a page took
        self.computed = 0.0

    def serve(self, stack: contextlib.ExitStack, redis: Server, postgres: Server | None) -> Server:
        """Start the replicas and the front end."""
        place = os.path.dirname(redis.directory)
        replicas = [
            stack.enter_context(WebServer(place, name, "replica", {web.REPLICA: name}))
            for name in (f"replica{number}" for number in range(REPLICAS))
        ]
        services = {
            "redis": redis.url,
            "postgres": None if postgres is None else postgres.url,
            "replicas": [replica.url for replica in replicas],
        }
        return stack.enter_context(
            WebServer(place, "front", "front", {web.SERVICES: json.dumps(services)})
        )

    async def _ask(self, client: Http, number: int, end: asyncio.Event) -> None:
        while not end.is_set():
            number = (number + TASKS) % ITEMS
            began = time.monotonic()
            try:
                page = (await client.get(f"/page/{number}")).raise_for_status().json()
            except Error as error:
                self.failed[type(error).__name__] += 1
                continue
            self.longest = max(self.longest, time.monotonic() - began)
            if page["item"] != number or page["name"] not in (None, f"item {number}"):
                self.failed["the page of another item"] += 1
            self.by_replica[page["replica"]] += 1
            self.done += 1

    async def _check(self, client: Http, end: asyncio.Event) -> None:
        while not end.is_set():
            began = time.monotonic()
            healthy = (await client.get(HEALTH)).ok
            self.health.append(time.monotonic() - began)
            self.sick += not healthy
            await asyncio.sleep(HEALTH_EVERY_S)

    async def _compute(self, client: Http) -> None:
        """Let the front end compute; check its health meanwhile."""
        end = asyncio.Event()
        checking = asyncio.ensure_future(self._check(client, end))
        response = await client.get(f"/compute/{self.computes}", timeout=self.computes + 30)
        end.set()
        await checking
        self.computed = response.raise_for_status().json()["computed"]

    async def run(self, url: str) -> None:
        """Run it all."""
        async with iokernel.asyncio.connect(url, kind=Http) as client:
            end = asyncio.Event()
            self.say(f"{TASKS} tasks ask for pages")
            asking = [asyncio.ensure_future(self._ask(client, n, end)) for n in range(TASKS)]
            began = time.monotonic()
            await asyncio.sleep(self.seconds)
            self.rate = self.done / (time.monotonic() - began)
            self.say(f"the front end computes for {self.computes:g} s")
            await self._compute(client)
            self.say("it answers again")
            await asyncio.sleep(self.seconds)
            end.set()
            await asyncio.gather(*asking)
            self.say("all pages have come")


async def _count_visits(redis: Server) -> int:
    async with iokernel.asyncio.connect(redis.url) as client:
        return int(await client.call("GET", web.VISITS) or 0)


async def run_front(front: Front, url: str, redis: Server) -> None:
    """Run it, and ask Redis what came of it."""
    await front.run(url)
    front.visits = await _count_visits(redis)
