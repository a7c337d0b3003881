"""PostgreSQL: queries, inserts and transactions in a closed loop, iokernel beside its peers.

One private PostgreSQL serves the whole bench over TCP on loopback, for some scenarios through a
proxy that adds 0.5 ms each way. Each measurement is a process of its own. In each round every
scenario is measured with all its peers in turn, and the order of the peers rotates from round to
round, so that a machine that slows down slows all of them. The number after a peer's name is that
of its connections. Prints a table, then one JSON object as the last line.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any

import pgbench
import report
from server import DELAY_US, POOLER_CONNECTIONS, SETTINGS, Server
from shared.rounds import TIMEOUT_SECONDS, Rounds, find_obstacle, parse, run_worker, show

FOLDER = Path(__file__).resolve().parent
ONE = ["iokernel1", "asyncpg1", "psycopg1", "psqlpy2", "pgbench1"]  # Two are the fewest of psqlpy.
MANY = ["iokernel4", "asyncpg4", "asyncpg10", "asyncpg100", "psycopg4", "psqlpy4", "pgbench4"]
SHARING = [*MANY, "psycopg_pipeline4", "asyncpg_pgbouncer100"]
# iokernel with as many connections as asyncpg has, where one task waits for one result at a time,
# is iokernel1.
PLAN = {
    "point/asyncio/1": ONE,
    "point/asyncio/10": SHARING,
    "point/asyncio/100": SHARING,
    "point/asyncio/500": SHARING,
    "point/uvloop/100": ["iokernel4", "asyncpg4", "asyncpg10", "asyncpg100"],
    "point/sync/1": ["iokernel1", "psycopg1"],
    "point_1ms/asyncio/1": ["iokernel1", "asyncpg1"],
    "point_1ms/asyncio/100": [peer for peer in SHARING if peer != "asyncpg_pgbouncer100"],
    "point_1ms/asyncio/500": ["iokernel4", "asyncpg4", "asyncpg10", "asyncpg100"],
    "rows100/asyncio/1": ONE,
    "rows100/asyncio/100": MANY,
    "rows10k/asyncio/1": ONE,
    "insert/asyncio/1": ONE,
    "insert/asyncio/100": SHARING,
    "transaction/asyncio/1": ONE,
    "transaction/asyncio/100": MANY,
}
# 3 rounds of 85 measurements of 1 + 0.3 seconds and about 1 to start and stop: 10 minutes.
ROUNDS, SECONDS, WARMUP = 3, 1.0, 0.3
QUICK_ROUNDS, QUICK_SECONDS, QUICK_WARMUP = 1, 0.5, 0.2


class Bench(Rounds):
    """One run with one server."""

    def __init__(self, options: argparse.Namespace, server: Server) -> None:
        self.seconds = QUICK_SECONDS if options.quick else SECONDS
        self.warmup = QUICK_WARMUP if options.quick else WARMUP
        self.server = server
        super().__init__(options.rounds, PLAN, options.only)

    def label(self, peer: str, scenario: str) -> str:
        return f"{peer} at a distance" if "_1ms/" in scenario else peer

    def obstacle(self, peer: str, scenario: str) -> str | None:
        if "_1ms/" in scenario and "delay" in self.server.skipped:
            return self.server.skipped["delay"]
        name = peer.rstrip("0123456789")
        if name == "pgbench":
            return None
        if name == "iokernel":
            return find_obstacle("iokernel.asyncio") or find_obstacle("iokernel.sync")
        if name == "asyncpg_pgbouncer" and "pgbouncer" in self.server.skipped:
            return self.server.skipped["pgbouncer"]
        try:
            importlib.import_module(name.partition("_")[0])
        except Exception as error:  # absent, or its parts do not fit together
            return f"{type(error).__name__}: {error}"
        return None

    def measure(self, scenario: str, peer: str) -> dict[str, Any]:
        load, runner, callers = scenario.split("/")
        port = self.server.delayed_port if load.endswith("_1ms") else self.server.port
        load = load.removesuffix("_1ms")
        if load in ("insert", "transaction"):
            self.server.sql("TRUNCATE log; ")
            self.server.sql("VACUUM accounts")
        if peer.startswith("pgbench"):
            clients = int(peer.removeprefix("pgbench"))
            return pgbench.measure(self.server, load, port, clients, self.seconds, TIMEOUT_SECONDS)
        if peer.startswith("asyncpg_pgbouncer"):
            port = self.server.pooler_port
        return run_worker([
            str(FOLDER / "worker.py"), peer, runner, callers, "--load", load,
            "--port", str(port), "--server-pid", str(self.server.pid),
            "--warmup", str(self.warmup), "--seconds", str(self.seconds),
        ])  # fmt: skip


def main() -> None:
    options = parse("bench/run.py postgres", __doc__, ROUNDS, (QUICK_ROUNDS, QUICK_SECONDS))
    with Server() as server:
        bench = Bench(options, server)
        settings = {
            "seconds": bench.seconds, "warmup": bench.warmup, "transport": "TCP on loopback",
            "delay_each_way_us": DELAY_US, "pgbouncer_connections": POOLER_CONNECTIONS,
            "server": SETTINGS,
        }  # fmt: skip
        bench.run()
        versions = {"postgresql": server.version(), "pgbouncer": server.pooler_version()}
        figures = bench.figures(settings, versions)
    ratios = report.ratios(bench.results)
    show("postgres", bench.results, report.TITLES, ratios, figures, options.json_only)


if __name__ == "__main__":
    main()
