"""Redis: GET of 64 bytes in a closed loop, iokernel beside its peers, in one interleaved run.

One private redis-server serves the whole bench over TCP on loopback. Each measurement is a process
of its own. In each round every scenario is measured with all its peers in turn, and the order of
the peers rotates from round to round, so that a machine that slows down slows all of them. Prints a
table, then one JSON object as the last line.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import native
import report
from server import Server
from shared.rounds import TIMEOUT_SECONDS, Rounds, find_obstacle, parse, run_worker, show
from worker import KEY, VALUE_SIZE

FOLDER = Path(__file__).resolve().parent
ASYNC_PEERS = ["iokernel", "redispy", "glide", "coredis", "raw"]
PEERS = {
    "asyncio": ASYNC_PEERS,
    "uvloop": ASYNC_PEERS,
    "sync": ["iokernel", "redispy", "glide"],
    "native": ["c_client", "redis_benchmark"],
}
CALLERS = {
    "asyncio": [1, 10, 100, 1000],
    "uvloop": [1, 10, 100, 1000],
    "sync": [1, 10],
    "native": [1, 10, 100, 1000],
}
# 5 rounds of 54 measurements of 1.4 + 0.25 seconds and 0.6 to start and stop: about 10 minutes.
ROUNDS, SECONDS, WARMUP = 5, 1.4, 0.25
QUICK_ROUNDS, QUICK_SECONDS, QUICK_WARMUP = 2, 0.5, 0.15


class Bench(Rounds):
    """One run with one server."""

    def __init__(self, options: argparse.Namespace, server: Server) -> None:
        self.seconds = QUICK_SECONDS if options.quick else SECONDS
        self.warmup = QUICK_WARMUP if options.quick else WARMUP
        self.server = server
        self.redis_benchmark = native.RedisBenchmark()
        plan = {
            f"{runner}/{count}": PEERS[runner] for runner in CALLERS for count in CALLERS[runner]
        }
        super().__init__(options.rounds, plan, options.only)

    def label(self, peer: str, scenario: str) -> str:
        return f"{peer} ({scenario.partition('/')[0]})" if peer == "iokernel" else peer

    def obstacle(self, peer: str, scenario: str) -> str | None:
        if peer == "c_client":
            return native.build_c_client()
        if peer == "redis_benchmark":
            return None if self.redis_benchmark.program else "redis-benchmark is not installed"
        if peer == "iokernel":
            return find_obstacle(
                "iokernel.sync" if scenario.startswith("sync") else "iokernel.asyncio"
            )
        return None

    def measure(self, scenario: str, peer: str) -> dict[str, Any]:
        runner, _, count = scenario.partition("/")
        callers = int(count)
        if peer == "c_client":
            return native.c_client(
                self.server, KEY, callers, self.warmup, self.seconds, TIMEOUT_SECONDS
            )
        if peer == "redis_benchmark":
            return self.redis_benchmark.measure(
                self.server, KEY, callers, self.seconds, TIMEOUT_SECONDS
            )
        return run_worker([
            str(FOLDER / "worker.py"), peer, runner, str(callers),
            "--port", str(self.server.port), "--server-pid", str(self.server.pid),
            "--warmup", str(self.warmup), "--seconds", str(self.seconds),
        ])  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Return how it was measured."""
        return {
            "seconds": self.seconds, "warmup": self.warmup,
            "value_bytes": VALUE_SIZE, "transport": "TCP on loopback",
        }  # fmt: skip


def main() -> None:
    options = parse("bench/run.py redis", __doc__, ROUNDS, (QUICK_ROUNDS, QUICK_SECONDS))
    with Server() as server:
        if server.ask(b"SET", KEY.encode(), b"x" * VALUE_SIZE) != b"+OK\r\n":
            sys.exit("bench: the server did not take the value")
        bench = Bench(options, server)
        bench.run()
        figures = bench.figures(bench.settings(), {"redis-server": server.version()})
    ratios = report.ratios(bench.results)
    show("redis", bench.results, report.TITLES, ratios, figures, options.json_only)


if __name__ == "__main__":
    main()
