"""HTTP client: concurrent GETs against a private nginx in a closed loop, iokernel beside its peers.

The server answers from its configuration, over TCP on loopback, with connections kept alive. Each
measurement is a process of its own. In each round every scenario is measured with all its peers in
turn, and the order of the peers rotates from round to round, so that a machine that slows down
slows all of them. Prints a table, then one JSON object as the last line.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

import report
from server import BODY, SETTINGS, Server
from shared.rounds import Rounds, find_obstacle, parse, run_worker, show

FOLDER = Path(__file__).resolve().parent
TASKS = ["iokernel", "aiohttp", "httpx", "niquests", "pycurl"]
PLAN = {
    "asyncio/1": TASKS,
    "asyncio/100": TASKS,
    "asyncio/1000": TASKS,
    "uvloop/100": ["iokernel", "aiohttp"],
    "sync/1": ["iokernel", "requests", "httpx", "niquests", "pycurl"],
}
# 3 rounds of 22 measurements of 1.5 + 0.5 seconds and about 1 to start and stop: 4 minutes.
ROUNDS, SECONDS, WARMUP = 3, 1.5, 0.5
QUICK_ROUNDS, QUICK_SECONDS, QUICK_WARMUP = 1, 0.7, 0.3


class Bench(Rounds):
    """One run with one server."""

    def __init__(self, options: argparse.Namespace, server: Server) -> None:
        self.seconds = QUICK_SECONDS if options.quick else SECONDS
        self.warmup = QUICK_WARMUP if options.quick else WARMUP
        self.server = server
        super().__init__(options.rounds, PLAN, options.only)

    def obstacle(self, peer: str, scenario: str) -> str | None:
        if peer == "iokernel":
            return find_obstacle("iokernel.asyncio") or find_obstacle("iokernel.sync")
        try:
            importlib.import_module(peer)
        except Exception as error:  # absent, or its parts do not fit together
            return f"{type(error).__name__}: {error}"
        return None

    def measure(self, scenario: str, peer: str) -> dict[str, Any]:
        runner, callers = scenario.split("/")
        return run_worker([
            str(FOLDER / "worker.py"), peer, runner, callers,
            "--port", str(self.server.port), "--server-pid", str(self.server.pid),
            "--warmup", str(self.warmup), "--seconds", str(self.seconds),
        ])  # fmt: skip


def main() -> None:
    options = parse("bench/run.py http_client", __doc__, ROUNDS, (QUICK_ROUNDS, QUICK_SECONDS))
    with Server() as server:
        bench = Bench(options, server)
        settings = {
            "seconds": bench.seconds, "warmup": bench.warmup, "transport": "TCP on loopback",
            "body_bytes": len(BODY), "server": SETTINGS,
        }  # fmt: skip
        bench.run()
        figures = bench.figures(settings, {"nginx": server.version()})
    ratios = report.ratios(bench.results)
    show("http_client", bench.results, report.TITLES, ratios, figures, options.json_only)


if __name__ == "__main__":
    main()
