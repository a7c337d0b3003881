"""The callers: tasks and threads that call until they are told to stop, and count how it ended."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import iokernel.asyncio
import iokernel.sync
from iokernel.demo.servers import COUNTER, Server
from iokernel.errors import Error

OUTCOMES = ("done", "never-sent", "maybe-executed", "rejected")
# Shorter than a server is away, to show calls that give up before they are sent.
WRITE_TIMEOUT_S = 0.5


class Tally:
    """What one loop or thread did: calls by command, and how they ended by command and outcome."""

    def __init__(self) -> None:
        self.made: Counter[str] = Counter()
        self.ended: Counter[tuple[str, str]] = Counter()
        self.errors: Counter[str] = Counter()

    def note(self, command: str, error: Error) -> None:
        """A call ended with an exception."""
        self.ended[command, error.outcome] += 1
        self.errors[f"{type(error).__name__}, {error.outcome}"] += 1

    def add(self, other: Tally) -> None:
        """Take another's counts in."""
        self.made.update(dict(other.made))  # copied, as its thread goes on
        self.ended.update(dict(other.ended))
        self.errors.update(dict(other.errors))

    def of(self, outcome: str) -> int:
        """Count the calls that ended so."""
        return sum(n for (_, how), n in self.ended.items() if how == outcome)


@dataclass(frozen=True)
class Kind:
    """What is called: a command that may be repeated, and one that may not."""

    title: str
    server: Server
    connections: int  # that all callers share
    read: str
    write: str
    tasks: int
    threads: int
    connect: Callable[[], Any]  # a client for tasks
    # Of a client: the two calls, each with the caller's number.
    calls: Callable[[Any], dict[str, Callable[[int], Any]]]


def redis_load(server: Server, tasks: int, threads: int) -> Kind:
    """GET and INCR on one connection."""

    def calls(client: Any) -> dict[str, Callable[[int], Any]]:
        return {
            "GET": lambda number: client.get(f"demo:{number}"),
            "INCR": lambda _: client.incr(COUNTER, timeout=WRITE_TIMEOUT_S),
        }

    def connect() -> iokernel.asyncio.Redis:
        return iokernel.asyncio.connect(server.url)

    return Kind("Redis", server, 1, "GET", "INCR", tasks, threads, connect, calls)


def postgres_load(server: Server, tasks: int) -> Kind:
    """SELECT and INSERT on four connections, the default."""
    select = "SELECT id, name FROM items WHERE id = $1"
    insert = "INSERT INTO written VALUES ($1)"

    def calls(client: Any) -> dict[str, Callable[[int], Any]]:
        return {
            "SELECT": lambda number: client.fetchrow(select, number % 10_000, repeatable=True),
            "INSERT": lambda number: client.execute(insert, number, timeout=WRITE_TIMEOUT_S),
        }

    def connect() -> iokernel.asyncio.Postgres:
        return iokernel.asyncio.connect(server.url, kind=iokernel.asyncio.Postgres)

    return Kind("PostgreSQL", server, 4, "SELECT", "INSERT", tasks, 0, connect, calls)


class Load:
    """All callers of one kind."""

    def __init__(self, kind: Kind, tasks: Any, threads: Any) -> None:
        self._kind = kind
        self._tasks = kind.calls(tasks)
        self._threads = kind.calls(threads)
        self._end = threading.Event()
        self._tallies: list[Tally] = []
        self._failures: list[BaseException] = []

    def tally(self) -> Tally:
        """Give the counts of all so far."""
        total = Tally()
        for tally in list(self._tallies):
            total.add(tally)
        return total

    def stop(self) -> None:
        """Let every loop end after the call that it waits for."""
        self._end.set()

    def _new_tally(self) -> Tally:
        tally = Tally()
        self._tallies.append(tally)
        return tally

    def _commands(self, number: int) -> tuple[str, ...]:
        """Alternate between the two; every tenth caller only writes.

        Those meet the outage with calls that give up before they are sent.
        """
        kind = self._kind
        return (kind.write,) if number % 10 == 9 else (kind.read, kind.write)

    async def _task(self, tally: Tally, number: int) -> None:
        ended, commands = self._end, self._commands(number)
        calls: dict[str, Callable[[int], Awaitable[Any]]] = self._tasks
        while not ended.is_set():
            for command in commands:
                tally.made[command] += 1
                try:
                    await calls[command](number)
                    tally.ended[command, "done"] += 1
                except Error as error:
                    tally.note(command, error)

    def _thread(self, number: int) -> None:
        ended, commands, tally = self._end, self._commands(number), self._new_tally()
        try:
            while not ended.is_set():
                for command in commands:
                    tally.made[command] += 1
                    try:
                        self._threads[command](number)
                        tally.ended[command, "done"] += 1
                    except Error as error:
                        tally.note(command, error)
        except BaseException as failure:
            self._failures.append(failure)

    async def run(self) -> None:
        """Run all until stop()."""
        tally = self._new_tally()
        threads = [
            threading.Thread(target=self._thread, args=(number,), daemon=True)
            for number in range(self._kind.threads)
        ]
        for thread in threads:
            thread.start()
        try:
            await asyncio.gather(*(self._task(tally, n) for n in range(self._kind.tasks)))
        except BaseException:
            self.stop()
            raise
        finally:
            for thread in threads:
                await asyncio.to_thread(thread.join)
        if self._failures:
            raise self._failures[0]
