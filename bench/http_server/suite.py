"""HTTP server: iokernel serve against uvicorn, Granian, Hypercorn and gunicorn, loaded by wrk.

Each measurement starts one server with one worker process, warms it up, and lets wrk ask on as
many connections as the scenario says. Names are interface/load/connections. In "health" one client
has the application compute for 200 ms over and over, and another asks /healthz. Prints a table,
then one JSON object as the last line.
"""

import argparse
import importlib
import shutil
from typing import Any

import report
from load import health, throughput
from server import Server, free_port
from shared.rounds import Rounds, parse, show

ASGI = ["iokernel", "uvicorn", "granian", "hypercorn"]
WSGI = ["iokernel", "gunicorn", "granian"]
PLAN = (
    {f"asgi/{load}/{c}": ASGI for load in ("hello", "json", "10kb", "echo") for c in (1, 64, 256)}
    | {f"asgi/sleep/{c}": ASGI for c in (1, 64, 256)}
    | {f"wsgi/{load}/{c}": WSGI for load in ("hello", "json", "10kb", "echo") for c in (1, 64, 256)}
    | {"wsgi/sleep/64": WSGI, report.HEALTH: ["iokernel", "uvicorn", "granian"]}
)
# 3 rounds of about 100 measurements of 1 + 2 seconds and 2 to start and stop: 25 minutes.
ROUNDS, SECONDS, WARMUP = 3, 2, 1
QUICK_ROUNDS, QUICK_SECONDS = 1, 1
THREADS = 4  # of WSGI, for all
SLEEPERS = 64  # the same, where each request sleeps: a thread for each connection


class Bench(Rounds):
    """One run."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.seconds = QUICK_SECONDS if options.quick else SECONDS
        super().__init__(options.rounds, PLAN, options.only)

    def obstacle(self, peer: str, scenario: str) -> str | None:
        if shutil.which("wrk") is None:
            return "wrk is not installed; `make setup` does it"
        try:
            module = importlib.import_module(f"peers.{peer}")
            for name in module.MODULES:
                importlib.import_module(name)
        except ImportError as error:
            return f"{error}"
        return None

    def measure(self, scenario: str, peer: str) -> dict[str, Any]:
        interface, load, connections = scenario.split("/")
        module = importlib.import_module(f"peers.{peer}")
        port = free_port()
        threads = SLEEPERS if load == "sleep" else THREADS
        command = getattr(module, interface)(f"app:{interface}", port, threads)
        with Server(command, port) as server:
            if load == "health":
                figures = health(server, self.seconds * 2)
            else:
                figures = throughput(server, load, int(connections), WARMUP, self.seconds)
        return figures | {"version": module.version()}


def main() -> None:
    options = parse("bench/run.py http_server", __doc__, ROUNDS, (QUICK_ROUNDS, QUICK_SECONDS))
    bench = Bench(options)
    bench.run()
    settings = {
        "seconds": bench.seconds, "warmup": WARMUP, "transport": "TCP on loopback",
        "worker_processes": 1, "wsgi_threads": THREADS, "wsgi_threads_sleep": SLEEPERS,
        "load": "wrk, 1 thread",
    }  # fmt: skip
    figures = bench.figures(settings, {})
    ratios = report.ratios(bench.results)
    show("http_server", bench.results, report.TITLES, ratios, figures, options.json_only)


if __name__ == "__main__":
    main()
