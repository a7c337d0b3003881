"""The demonstration: many tasks and some threads on a private Redis that is stopped in the middle.

``iokernel demo``, ``python -m iokernel.demo`` or ``make demo``. It starts a redis-server of its own
on a unix socket in a temporary directory, makes calls for a few seconds, takes the server away for
a second, and accounts for every call: what the replies told the program, what the kernel counted
and what the server has stored must agree.

The calls alternate between GET, which the kernel may repeat when a connection is lost, and INCR,
which it may not. The server saves its data when it is stopped, so that its counter can be compared
with the outcomes at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import iokernel.asyncio
import iokernel.sync
from iokernel.errors import Error

NAME = "iokernel-demo"
COUNTER = "demo:counter"
OUTCOMES = ("done", "never-sent", "maybe-executed", "rejected")
# Shorter than the server is away, to show calls that give up before they are sent.
INCR_TIMEOUT_S = 0.5
SERVER_START_S = 10.0
SOCKET_PATH_MAX = 100  # sun_path of unix(7) holds 108 bytes


class DemoError(Exception):
    """The demonstration cannot run, or showed something wrong."""


# ---- the server ---------------------------------------------------------------------------------


class Witness:
    """Asks the server over a plain socket, without iokernel."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, command: str) -> str:
        """Send one inline command; give the reply's text."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(SERVER_START_S)
            link.connect(self._path)
            link.sendall(command.encode() + b"\r\n")
            with link.makefile("rb") as stream:
                head = stream.readline().decode().rstrip()
                if head.startswith("$"):
                    return stream.read(max(int(head[1:]), 0)).decode()
                if head.startswith(("+", ":")):
                    return head[1:]
                raise OSError(f"the server answered {head!r}")

    def connections(self) -> int:
        """Count the connections that carry the demonstration's name."""
        return sum(f" name={NAME} " in line for line in self.ask("CLIENT LIST").splitlines())


class Server:
    """A private redis-server in a directory of its own."""

    def __init__(self, program: str, directory: str) -> None:
        self.path = os.path.join(directory, "redis.sock")
        self._program = program
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What iokernel connects to."""
        return f"redis+unix://{quote(self.path)}?client_name={NAME}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": self.path,
            "dir": self._directory,
            "logfile": os.path.join(self._directory, "server.log"),
            "save": "3600 1",  # so it also saves when it is told to end
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [self._program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; we stop it
        )
        end = time.monotonic() + SERVER_START_S
        while True:
            with contextlib.suppress(OSError):
                if Witness(self.path).ask("PING") == "PONG":
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                raise DemoError(f"{self._program} does not start: see {self._directory}/server.log")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it in good order; again is harmless."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SERVER_START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise DemoError("the server had to be killed") from None


@contextlib.contextmanager
def private_server() -> Iterator[Server]:
    """Run a server in a temporary directory, which stays if something went wrong."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        raise DemoError("neither redis-server nor valkey-server is installed")
    place = None if len(tempfile.gettempdir()) < SOCKET_PATH_MAX - 40 else "/tmp"
    directory = tempfile.mkdtemp(prefix="iokernel-demo-", dir=place)
    keep = False
    try:
        server = Server(program, directory)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    except DemoError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(directory)


# ---- the load -----------------------------------------------------------------------------------


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


class Load:
    """Tasks and threads that call until they are told to stop."""

    def __init__(self, tasks: iokernel.asyncio.Redis, threads: iokernel.sync.Redis) -> None:
        self._tasks = tasks
        self._threads = threads
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

    async def task(self, tally: Tally, number: int) -> None:
        """Alternate between GET and INCR, waiting for each reply; every tenth task does INCR only.

        Those meet the outage with calls that give up before they are sent.
        """
        client, ended = self._tasks, self._end
        key = f"demo:{number}"
        commands = ("INCR",) if number % 10 == 9 else ("GET", "INCR")
        while not ended.is_set():
            for command in commands:
                tally.made[command] += 1
                try:
                    if command == "GET":
                        await client.get(key)
                    else:
                        await client.incr(COUNTER, timeout=INCR_TIMEOUT_S)
                    tally.ended[command, "done"] += 1
                except Error as error:
                    tally.note(command, error)

    def thread(self, number: int) -> None:
        """Do the same from a plain thread."""
        client, ended, tally = self._threads, self._end, self._new_tally()
        key = f"demo:{number}"
        try:
            while not ended.is_set():
                for command in ("GET", "INCR"):
                    tally.made[command] += 1
                    try:
                        if command == "GET":
                            client.get(key)
                        else:
                            client.incr(COUNTER, timeout=INCR_TIMEOUT_S)
                        tally.ended[command, "done"] += 1
                    except Error as error:
                        tally.note(command, error)
        except BaseException as failure:
            self._failures.append(failure)

    async def run(self, n_tasks: int, n_threads: int) -> None:
        """Run all until stop()."""
        tally = self._new_tally()
        threads = [
            threading.Thread(target=self.thread, args=(number,), daemon=True)
            for number in range(n_threads)
        ]
        for thread in threads:
            thread.start()
        try:
            await asyncio.gather(*(self.task(tally, number) for number in range(n_tasks)))
        except BaseException:
            self.stop()
            raise
        finally:
            for thread in threads:
                await asyncio.to_thread(thread.join)
        if self._failures:
            raise self._failures[0]


# ---- the course of events -----------------------------------------------------------------------


class Facts:
    """What the demonstration found."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.rate = 0.0  # calls done in a second, before the stop
        self.rate_after = 0.0  # and after the start
        self.away_s = 0.0
        self.back_s = 0.0  # from the server's first answer to the next connection
        self.connections = (0, 0)  # as the server counts them, before the stop and at the end
        self.counter = 0  # as the server has it at the end
        self.kernel: dict[str, Any] = {}  # the client's stats()


class Course:
    """Runs it all and shows live how it goes, where somebody can see that."""

    def __init__(self, args: argparse.Namespace, server: Server) -> None:
        self._args = args
        self._server = server
        self._witness = Witness(server.path)
        self._live = sys.stdout.isatty()
        self._began = time.monotonic()
        self._seen = (self._began, 0)
        self.facts = Facts()

    def say(self, text: str) -> None:
        """Tell of an event."""
        clear = "\r\x1b[K" if self._live else ""
        print(f"{clear}{time.monotonic() - self._began:6.2f} s  {text}", flush=True)

    def _progress(self, load: Load, stats: dict[str, Any]) -> None:
        now, done = time.monotonic(), load.tally().of("done")
        then, before = self._seen
        self._seen = (now, done)
        rate = (done - before) / max(now - then, 0.001)
        print(
            f"\r\x1b[K{now - self._began:6.2f} s  {rate:9,.0f} calls/s  {done:11,} done  "
            f"{stats['connections']} connected  {stats['inflight']:5} in flight  "
            f"{stats['queued']:5} queued",
            end="",
            flush=True,
        )

    async def _watch(self, load: Load, client: iokernel.asyncio.Redis) -> None:
        while True:
            await asyncio.sleep(0.1)
            self._progress(load, client.stats())

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

    async def _connected(self, client: iokernel.Client) -> None:
        """Wait until it is connected again."""
        began = time.monotonic()
        while not client.stats()["connections"]:
            if time.monotonic() > began + SERVER_START_S:
                raise DemoError("the client does not connect again")
            await asyncio.sleep(0.01)
        self.facts.back_s = time.monotonic() - began
        self.say("connected again")

    async def _events(self, load: Load, client: iokernel.Client) -> None:
        facts, half = self.facts, self._args.seconds / 2
        facts.rate = await self._measure(load, half)
        before = await asyncio.to_thread(self._witness.connections)
        await self._outage()
        await self._connected(client)
        facts.rate_after = await self._measure(load, half)
        facts.connections = before, await asyncio.to_thread(self._witness.connections)

    async def run(self) -> Facts:
        """Run it all."""
        args, facts = self._args, self.facts
        async with iokernel.asyncio.connect(self._server.url) as tasks:
            with iokernel.sync.connect(tasks) as threads:  # the same connection
                await tasks.ready(timeout=5)
                load = Load(tasks, threads)
                self.say(f"{args.tasks} tasks and {args.threads} threads call")
                working = asyncio.ensure_future(load.run(args.tasks, args.threads))
                watching = asyncio.ensure_future(self._watch(load, tasks)) if self._live else None
                try:
                    await self._events(load, tasks)
                finally:
                    load.stop()
                    if watching is not None:
                        watching.cancel()
                    await working
                self.say("all calls have ended")
                facts.tally = load.tally()
                facts.counter = int(self._witness.ask(f"GET {COUNTER}") or 0)
                facts.kernel = tasks.stats()
        return facts


# ---- the report ---------------------------------------------------------------------------------


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:9.3f}"


def _show_phases(facts: Facts) -> None:
    print("\nlatency by phase, in ms       p50       p99       max")
    for phase in ("submit", "queue", "service", "pickup", "total"):
        figures = facts.kernel[phase]
        row = " ".join(_milliseconds(figures[key]) for key in ("p50", "p99", "max"))
        print(f"  {phase:20} {row}")


def _show_outcomes(facts: Facts) -> None:
    tally = facts.tally
    print(f"\noutcome       {'GET':>12} {'INCR':>12} {'both':>12}")
    for outcome in OUTCOMES:
        parts = [tally.ended[command, outcome] for command in ("GET", "INCR")]
        print(f"  {outcome:14}" + " ".join(f"{n:12,}" for n in (*parts, sum(parts)))[2:])
    made = [tally.made[command] for command in ("GET", "INCR")]
    print("  calls made    " + " ".join(f"{n:12,}" for n in (*made, sum(made)))[2:])
    print(f"\nrepeated by the kernel, after the connection was lost: {facts.kernel['retries']:,}")
    for error, n in sorted(tally.errors.items()):
        print(f"raised {n:,} times: {error}")


def _problems(facts: Facts) -> list[str]:
    """Name every sum that does not add up."""
    tally, found = facts.tally, []
    made, ended = sum(tally.made.values()), sum(tally.ended.values())
    if made != ended:
        found.append(f"{made} calls were made, but {ended} have ended")
    for outcome in OUTCOMES:
        kernel = facts.kernel["ended"][outcome]
        seen = tally.of(outcome) + (outcome == "done")  # ready() is a call to the kernel, too
        if kernel != seen:
            found.append(f"the kernel counts {kernel} calls as {outcome}, the program {seen}")
    done, maybe = tally.ended["INCR", "done"], tally.ended["INCR", "maybe-executed"]
    if not done <= facts.counter <= done + maybe:
        found.append(f"the counter is {facts.counter}, not within {done} and {done + maybe}")
    if tally.ended["GET", "done"] == 0 or done == 0:
        found.append("no call was done")
    if facts.connections != (1, 1):
        found.append("the server counts {} and {} connections, not 1".format(*facts.connections))
    return found


def report(facts: Facts) -> list[str]:
    """Print what was found; give what is wrong with it."""
    tally = facts.tally
    done, maybe = tally.ended["INCR", "done"], tally.ended["INCR", "maybe-executed"]
    print(f"\ncalls per second: {facts.rate:,.0f} before the stop, {facts.rate_after:,.0f} after")
    print(
        "connections that the server counts: {} before the stop, {} after".format(
            *facts.connections
        )
    )
    print(f"the server was away for {facts.away_s:.2f} s; {facts.back_s:.2f} s later all was well")
    _show_phases(facts)
    _show_outcomes(facts)
    print(f"\nthe server's counter:          {facts.counter:12,}")
    print(f"  at least (INCR done):        {done:12,}")
    print(f"  at most (and maybe-executed):{done + maybe:12,}")
    problems = _problems(facts)
    for problem in problems:
        print(f"WRONG: {problem}")
    if not problems:
        print("\nEvery call is accounted for: the program, the kernel and the server agree.")
    return problems


def _options(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="iokernel demo", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--tasks", type=int, default=1000, help="asyncio tasks (%(default)s)")
    parser.add_argument("--threads", type=int, default=4, help="plain threads (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of calls (%(default)s)")
    parser.add_argument(
        "--away", type=float, default=1.0, help="seconds without server (%(default)s)"
    )
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    """Run it; 0 when everything adds up."""
    args = _options(words)
    try:
        with private_server() as server:
            facts = asyncio.run(Course(args, server).run())
            return 1 if report(facts) else 0
    except (DemoError, Error) as error:
        print(f"iokernel demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
