"""The course of events: calls, a server that goes away and comes back, calls."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from typing import Any

import iokernel.sync
from iokernel.demo.load import Kind, Load, Tally
from iokernel.demo.servers import START_S, DemoError

PROGRESS_S = 0.1


class Facts:
    """What the demonstration found about one server."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.tally = Tally()
        self.rate = 0.0  # calls done in a second, before the stop
        self.rate_after = 0.0  # and after the start
        self.away_s = 0.0
        self.back_s = 0.0  # from the server's first answer to the next connection
        self.connections = (0, 0)  # as the server counts them, before the stop and at the end
        self.written = 0  # as the server has it at the end
        self.kernel: dict[str, Any] = {}  # the client's stats()


class Course:
    """Runs it for one server."""

    began = time.monotonic()
    live = sys.stdout.isatty()

    def __init__(self, args: argparse.Namespace, kind: Kind) -> None:
        self._args = args
        self._server = kind.server
        self._seen = (time.monotonic(), 0)
        self._load: Load | None = None
        self._client: Any = None
        self.facts = Facts(kind)

    def say(self, text: str) -> None:
        """Tell of an event."""
        clear = "\r\x1b[K" if self.live else ""
        at = time.monotonic() - self.began
        print(f"{clear}{at:6.2f} s  {self.facts.kind.title + ':':11} {text}", flush=True)

    def progress(self) -> str:
        """Say in a few words how it goes."""
        if self._load is None:
            return ""
        now, done = time.monotonic(), self._load.tally().of("done")
        then, before = self._seen
        self._seen = (now, done)
        rate, stats = (done - before) / max(now - then, 0.001), self._client.stats()
        title, connected = self.facts.kind.title, stats["connections"]
        return f"{title} {rate:9,.0f}/s, {connected} connected, {stats['inflight']:4} in flight  "

    async def _measure(self, load: Load, seconds: float) -> float:
        """Let it run; give the calls done in a second."""
        began, before = time.monotonic(), load.tally().of("done")
        await asyncio.sleep(seconds)
        return (load.tally().of("done") - before) / (time.monotonic() - began)

    async def _outage(self) -> None:
        """Take the server away for a while; the calls go on."""
        began = time.monotonic()
        self.say("stopping the server")
        await asyncio.to_thread(self._server.stop)
        stopped = time.monotonic()
        self.say("the server has ended; the calls go on")
        await asyncio.sleep(max(self._args.away - (stopped - began), 0.0))
        await asyncio.to_thread(self._server.start)
        self.facts.away_s = time.monotonic() - began
        self.say("the server answers again")

    async def _connected(self) -> None:
        """Wait until it has all its connections again."""
        began = time.monotonic()
        while self._client.stats()["connections"] < self.facts.kind.connections:
            if time.monotonic() > began + START_S:
                raise DemoError("the client does not connect again")
            await asyncio.sleep(0.01)
        self.facts.back_s = time.monotonic() - began
        self.say("connected again")

    async def _events(self, load: Load) -> None:
        facts, half = self.facts, self._args.seconds / 2
        facts.rate = await self._measure(load, half)
        before = await asyncio.to_thread(self._server.connections)
        await self._outage()
        await self._connected()
        facts.rate_after = await self._measure(load, half)
        facts.connections = before, await asyncio.to_thread(self._server.connections)

    async def run(self) -> None:
        """Run it all."""
        facts, kind = self.facts, self.facts.kind
        async with kind.connect() as client:
            with iokernel.sync.connect(client) as threads:  # the same connections
                self._client = client
                await client.ready(timeout=5)
                self._load = load = Load(kind, client, threads)
                also = f" and {kind.threads} threads" if kind.threads else ""
                word = "connection" if kind.connections == 1 else "connections"
                self.say(f"{kind.tasks} tasks{also} call, on {kind.connections} {word}")
                working = asyncio.ensure_future(load.run())
                try:
                    await self._events(load)
                finally:
                    load.stop()
                    await working
                self.say("all calls have ended")
                facts.tally = load.tally()
                facts.written = await asyncio.to_thread(self._server.written)
                facts.kernel = client.stats()


async def _watch(courses: list[Course]) -> None:
    """Show live how it goes."""
    while True:
        await asyncio.sleep(PROGRESS_S)
        print("\r\x1b[K" + "".join(course.progress() for course in courses), end="", flush=True)


async def run_all(courses: list[Course]) -> None:
    """Run all at once, on one event loop and one kernel thread."""
    watching = asyncio.ensure_future(_watch(courses)) if Course.live else None
    try:
        await asyncio.gather(*(course.run() for course in courses))
    finally:
        if watching is not None:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
