"""Many calls, of which some are cancelled at random moments, on one connection behind a delaying proxy.

Each call is an ECHO of its own word, so a reply that went astray shows itself, whoever was given up before, during and
after it. At the end the server's books must agree: the same connection and no other, and as many ECHOs as the
kernel counted replies and tombstones. Prints one line, and ends with status 1 if something is wrong.

    million.py [--calls 1000000] [--cancel 0.34] [--tasks 1000] [--delay 0.001] [--jitter 0.001] [--seed 1]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import pathlib
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from iokernel.asyncio import Redis, connect  # noqa: E402
from kit import proxy  # noqa: E402
from kit.servers import RedisServer  # noqa: E402


class Tally:
    """What became of the calls."""

    def __init__(self) -> None:
        self.done = 0
        self.cancelled = 0
        self.wrong = 0

    @property
    def calls(self) -> int:
        """All that ended."""
        return self.done + self.cancelled


@contextlib.contextmanager
def proxy_process(port: int, delay: float, jitter: float, seed: int) -> Iterator[int]:
    """Runs the proxy in a process of its own; gives its port."""
    words = [str(port), "--delay", str(delay), "--jitter", str(jitter), "--seed", str(seed)]
    with subprocess.Popen(
        [sys.executable, proxy.__file__, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


async def work(
    client: Redis, name: int, calls: int, args: argparse.Namespace, tally: Tally
) -> None:
    """One task: one call after the other."""
    chance = random.Random(args.seed * 1_000_003 + name)
    loop = asyncio.get_running_loop()
    longest = 3 * (
        args.delay + args.jitter
    )  # a reply takes up to two thirds of this, and longer under load
    for i in range(calls):
        word = f"{name}:{i}"
        reply = client.echo(word)
        handle = None
        if chance.random() < args.cancel:
            moment = chance.random()
            if moment < 0.2:
                reply.cancel()  # before it is sent
            elif moment < 0.4:
                loop.call_soon(reply.cancel)
            else:
                handle = loop.call_later(chance.random() * longest, reply.cancel)
        try:
            answer = await reply
        except asyncio.CancelledError:
            tally.cancelled += 1
        else:
            tally.done += 1
            tally.wrong += answer != word.encode()
        if handle is not None:
            handle.cancel()


def books(server: RedisServer) -> tuple[int, int]:
    """Connections so far and ECHOs executed, as the server counts them."""
    connections = re.search(r"total_connections_received:(\d+)", server.cli("INFO", "stats"))
    echos = re.search(r"cmdstat_echo:calls=(\d+)", server.cli("INFO", "commandstats"))
    assert connections is not None
    return int(connections[1]), int(echos[1]) if echos else 0


async def main(server: RedisServer, port: int, args: argparse.Namespace) -> list[str]:
    """Everything; what is wrong, in words."""
    tally = Tally()
    async with connect(f"redis://127.0.0.1:{port}?timeout=300s") as client:
        number = await client.client_id()
        before, _ = books(server)
        started = time.monotonic()
        share, rest = divmod(args.calls, args.tasks)
        await asyncio.gather(
            *[work(client, i, share + (i < rest), args, tally) for i in range(args.tasks)]
        )
        seconds = time.monotonic() - started
        await client.ping()  # behind all tombstones
        same = await client.client_id() == number
        stats = client.stats()
        after, echos = books(server)
    connections = after - before - 2  # books asks over two of its own, and then over another one
    tombstones = stats["cancelled"]
    answered = stats["ended"]["done"] - 3  # without the two CLIENT IDs and the PING
    print(
        f"{tally.calls} calls by {args.tasks} tasks in {seconds:.1f} s ({tally.calls / seconds:.0f}/s): {tally.done} done, "
        f"{tally.cancelled} cancelled ({tally.cancelled / tally.calls:.1%}; {tombstones} after they were sent); "
        f"{tally.wrong} replies misdelivered, {stats['connects']} connection"
    )
    checks = {
        "not every call ended": tally.calls == args.calls,
        "replies were misdelivered": tally.wrong == 0,
        "it is another connection": same and stats["connects"] == 1 and stats["disconnects"] == 0,
        "the server saw other connections": connections == 0,
        "the server executed what was withdrawn, or not what was sent": echos
        == answered + tombstones,
        # The others of these were answered just before the program gave them up.
        "there are more replies than answers": tally.done <= answered,
    }
    return [what for what, right in checks.items() if not right]


def run() -> int:
    """The program; its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument(
        "--cancel",
        type=float,
        default=0.33,
        help="the share that is tried to be cancelled: some are answered before",
    )
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--delay", type=float, default=0.001, help="of the proxy, seconds each way")
    parser.add_argument("--jitter", type=float, default=0.001, help="up to so many seconds more")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with (
        RedisServer() as server,
        proxy_process(server.port, args.delay, args.jitter, args.seed) as port,
    ):
        wrong = asyncio.run(main(server, port, args))
    print("".join(f"WRONG: {what}\n" for what in wrong), end="", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(run())
