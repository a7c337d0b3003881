"""A storm of forks: `fork_storm.py FORKS` forks at random moments, while threads and an event loop of the parent make
calls, and each child makes some through the handles that it inherited.

Every reply is compared with what was asked for. A child that is not done in time is ended by its alarm and counts as
hung; one that has a socket of its parent open says so. A call that fails ends the storm, as forks without traffic show
nothing. The last line has the counts, and the longest wait of a call next to the longest that a process was late which
only sleeps: what the machine is to blame for. The status is 0 when all is well.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import faulthandler
import os
import pathlib
import random
import select
import signal
import socket
import stat
import sys
import threading
import time
import traceback
import warnings

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from iokernel import asyncio as aio  # noqa: E402
from iokernel import sync  # noqa: E402
from kit.servers import RedisServer  # noqa: E402

CALL_S = 60
"""The deadline of a call: far beyond what a busy machine delays one, so that to miss it means to hang."""
CHILD_S = 2 * CALL_S
"""How long a child may take."""
CHILDREN_MAX = 4
FAILED, SHARED = 1, 3
CALLS = 5


def sockets() -> set[int]:
    """The inode of each TCP socket that this process has open; an event loop has some of other families."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            about = os.fstat(int(number))
            if stat.S_ISSOCK(about.st_mode):
                with socket.socket(fileno=os.dup(int(number))) as copy:
                    if copy.family in (socket.AF_INET, socket.AF_INET6):
                        found.add(about.st_ino)
    return found


class Storm:
    """The parent's side: its traffic, and what became of its children."""

    def __init__(self, url: str, seed: int) -> None:
        self.client = sync.connect(f"{url}?timeout={CALL_S}s")
        self.loop_client = aio.connect(self.client)
        self.random = random.Random(seed)
        self.enough = threading.Event()
        self.errors: list[str] = []
        self.calls: dict[str, int] = {}
        self.children: set[int] = set()
        self.forks = 0
        self.ended = {"done": 0, "failed": 0, "hung": 0, "shared": 0}

    def thread(self, name: str) -> None:
        """Calls one after the other, and some many at once."""
        n = 0
        try:
            while not self.enough.is_set():
                word = f"{name} {n}".encode()
                assert self.client.echo(word) == word
                words = [b"%s of %d" % (word, i) for i in range(5)]
                assert self.client.call_many([("ECHO", w) for w in words]) == words
                n += 6
        except BaseException:
            self.errors.append(traceback.format_exc())
        self.calls[name] = n

    async def _task(self, name: str) -> int:
        n = 0
        while not self.enough.is_set():
            word = f"{name} {n}".encode()
            assert await self.loop_client.echo(word) == word
            n += 1
        return n

    async def _tasks(self) -> None:
        self.calls["loop"] = sum(
            await asyncio.gather(*[self._task(f"task {i}") for i in range(20)])
        )

    def loop(self) -> None:
        """Runs an event loop with some tasks."""
        try:
            asyncio.run(self._tasks())
        except BaseException:
            self.errors.append(traceback.format_exc())

    def run(self, forks: int) -> None:
        """Forks so often, with traffic all the while."""
        number = self.client.client_id()
        threads = [threading.Thread(target=self.thread, args=(f"thread {i}",)) for i in range(3)]
        threads.append(threading.Thread(target=self.loop))
        for thread in threads:
            thread.start()
        while self.forks < forks and not self.errors:
            signal.alarm(4 * CHILD_S)
            time.sleep(self.random.random() ** 4 * 0.02)
            self.fork(self.forks)
            self.forks += 1
            while len(self.children) >= CHILDREN_MAX:
                self.wait()
        while self.children:
            self.wait()
        self.enough.set()
        for thread in threads:
            thread.join()
        if self.client.client_id() != number or self.client.stats()["connects"] != 1:
            self.errors.append("the parent's connection is not the first one any more")

    def fork(self, n: int) -> None:
        """One child, of one of several kinds."""
        before = sockets()
        assert before, "the parent's connection"
        kind = self.random.random()
        pid = os.fork()
        if pid != 0:
            self.children.add(pid)
            return
        status = FAILED
        try:
            signal.alarm(CHILD_S)
            status = SHARED if sockets() & before else self.child(n, kind)
            if sockets() & before:
                status = SHARED
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)

    def child(self, n: int, kind: float) -> int:
        """What a child does: nothing, calls in a loop, or calls on the thread, perhaps after a further fork."""
        if kind < 0.1:
            return 0
        if kind < 0.3:
            asyncio.run(self.in_a_loop(n))
            return 0
        if kind < 0.4:
            pid = os.fork()
            if pid != 0:
                return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) and FAILED
            signal.alarm(CHILD_S)
        for i in range(CALLS):
            word = f"child {n} {i}".encode()
            assert self.client.echo(word) == word
        return 0

    async def in_a_loop(self, n: int) -> None:
        """All at once, on an event loop of the child's own."""
        words = [f"child {n} {i}".encode() for i in range(CALLS)]
        calls = [self.loop_client.echo(word) for word in words]
        assert await asyncio.gather(*calls) == words

    def wait(self) -> None:
        """For the end of one child."""
        pid, status = os.wait()
        self.children.remove(pid)
        code = os.waitstatus_to_exitcode(status)
        names = {0: "done", SHARED: "shared", -signal.SIGALRM: "hung"}
        self.ended[names.get(code, "failed")] += 1


def start_witness() -> tuple[int, int]:
    """A process that only sleeps; it tells how late it was at most, in seconds, when the first pipe is closed."""
    stop_read, stop = os.pipe()
    told, tell = os.pipe()
    if os.fork() != 0:
        os.close(stop_read)
        os.close(tell)
        return stop, told
    os.close(stop)
    late, pause = 0.0, 0.005
    while True:
        started = time.monotonic()
        if select.select([stop_read], [], [], pause)[0]:
            os.write(tell, f"{late:.3f}".encode())
            os._exit(0)
        late = max(late, time.monotonic() - started - pause)


def main() -> int:
    """The program: 0 when all was well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("forks", type=int, nargs="?", default=10_000)
    parser.add_argument("--url", help="of a Redis; else one is started")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    # Newer interpreters warn of each fork with threads, which is what this is about.
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    faulthandler.register(signal.SIGALRM, chain=True)  # who hangs says where, and ends
    with contextlib.ExitStack() as stack:
        url = arguments.url or stack.enter_context(RedisServer()).url
        stop, told = start_witness()
        storm = Storm(url, arguments.seed)
        started = time.monotonic()
        storm.run(arguments.forks)
        seconds = time.monotonic() - started
        os.close(stop)
        late = float(os.read(told, 100))
        os.wait()
    for error in storm.errors:
        print(error, file=sys.stderr)
    ended = storm.ended
    calls = sum(storm.calls.values())
    longest = storm.client.stats()["total"]["max"]
    print(
        f"{storm.forks} forks: {ended['done']} children well, {ended['failed']} failed, "
        f"{ended['hung']} hung, {ended['shared']} sockets shared; {len(storm.errors)} errors in "
        f"{calls} calls of the parent; {seconds:.1f} s, {storm.forks / seconds:.0f} forks/s, "
        f"{calls / seconds:.0f} calls/s; the longest call took {longest:.2f} s, and one that only "
        f"slept was {late:.2f} s late"
    )
    return 0 if ended["done"] == arguments.forks and not storm.errors else 1


if __name__ == "__main__":
    raise SystemExit(main())
