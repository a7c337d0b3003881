"""Redis: GET of 64 bytes in a closed loop, iokernel beside its peers, in one interleaved run.

One private redis-server serves the whole bench over TCP on loopback. Each measurement is a process
of its own. In each round every scenario is measured with all its peers in turn, and the order of
the peers rotates from round to round, so that a machine that slows down slows all of them. Prints a
table, then one JSON object as the last line.
"""

import argparse
import fnmatch
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import native
import report
from server import Server
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
# Far more than any measurement needs; a peer that hangs is reported and the bench goes on.
TIMEOUT_SECONDS = 60.0


class Bench:
    """One run: what to measure, and what came of it."""

    def __init__(self, options: argparse.Namespace, server: Server) -> None:
        self.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
        self.seconds = QUICK_SECONDS if options.quick else SECONDS
        self.warmup = QUICK_WARMUP if options.quick else WARMUP
        self.server = server
        self.redis_benchmark = native.RedisBenchmark()
        self.skipped: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.plan = self.choose(options.only)
        self.results: report.Results = {
            scenario: {peer: [] for peer in peers} for scenario, peers in self.plan.items()
        }

    def choose(self, pattern: str) -> dict[str, list[str]]:
        """Return the peers of each scenario, less what was not asked for and what is not here."""
        plan: dict[str, list[str]] = {}
        for runner, callers in CALLERS.items():
            for count in callers:
                scenario = f"{runner}/{count}"
                wanted = [p for p in PEERS[runner] if fnmatch.fnmatch(f"{scenario}/{p}", pattern)]
                peers = [p for p in wanted if self.is_available(p, runner)]
                if peers:
                    plan[scenario] = peers
        return plan

    def is_available(self, peer: str, runner: str) -> bool:
        """Find out once whether a peer can be measured; note why not."""
        name = f"{peer} ({runner})" if peer == "iokernel" else peer
        if name not in self.skipped:
            self.skipped[name] = self.obstacle(peer, runner) or ""
            if self.skipped[name]:
                say(f"skipping {name}: {self.skipped[name]}")
        return not self.skipped[name]

    def obstacle(self, peer: str, runner: str) -> str | None:
        if peer == "c_client":
            return native.build_c_client()
        if peer == "redis_benchmark":
            return None if self.redis_benchmark.program else "redis-benchmark is not installed"
        if peer == "iokernel":
            module = "iokernel.sync" if runner == "sync" else "iokernel.asyncio"
            found = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
            return None if found.returncode == 0 else f"{module} is not installed; `make` does it"
        return None

    def run(self) -> None:
        """Measure everything."""
        total = self.rounds * sum(len(peers) for peers in self.plan.values())
        started, done = time.monotonic(), 0
        for turn in range(self.rounds):
            for scenario, peers in self.plan.items():
                shift = turn % len(peers)
                for peer in peers[shift:] + peers[:shift]:
                    left = (time.monotonic() - started) / done * (total - done) if done else 0
                    eta = f", {left:.0f} s left" if done else ""
                    at = f"round {turn + 1}/{self.rounds}, {done + 1}/{total}"
                    say(f"{at}{eta}: {scenario} {peer}")
                    self.results[scenario][peer].append(self.attempt(scenario, peer))
                    done += 1

    def attempt(self, scenario: str, peer: str) -> dict[str, Any] | None:
        """Measure once; a failure is noted, not fatal."""
        runner, _, callers = scenario.partition("/")
        try:
            figures = self.measure(peer, runner, int(callers))
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            self.failures[f"{scenario} {peer}"] = str(error)
            say(f"FAILED: {scenario} {peer}: {error}")
            return None
        self.versions[peer] = figures["version"]
        return figures

    def measure(self, peer: str, runner: str, callers: int) -> dict[str, Any]:
        if peer == "c_client":
            return native.c_client(
                self.server, KEY, callers, self.warmup, self.seconds, TIMEOUT_SECONDS
            )
        if peer == "redis_benchmark":
            return self.redis_benchmark.measure(
                self.server, KEY, callers, self.seconds, TIMEOUT_SECONDS
            )
        command = [
            sys.executable, str(FOLDER / "worker.py"), peer, runner, str(callers),
            "--port", str(self.server.port), "--server-pid", str(self.server.pid),
            "--warmup", str(self.warmup), "--seconds", str(self.seconds),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        if done.returncode != 0:
            last = done.stderr.strip().rpartition("\n")[2]
            raise RuntimeError(last or f"the worker ended with {done.returncode}")
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures

    def figures(self) -> dict[str, Any]:
        """Return everything that was measured, and where."""
        return {
            "machine": machine(),
            "settings": {
                "rounds": self.rounds, "seconds": self.seconds, "warmup": self.warmup,
                "value_bytes": VALUE_SIZE, "transport": "TCP on loopback",
            },
            "versions": {"redis-server": self.server.version()} | self.versions,
            "skipped": {name: why for name, why in self.skipped.items() if why},
            "failures": self.failures,
            "results": report.medians(self.results),
        }  # fmt: skip


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": models[0] if models else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average_1min": round(os.getloadavg()[0], 2),
    }


def say(text: str) -> None:
    """Tell how it goes, on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py redis", description=__doc__)
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}; with --quick {QUICK_ROUNDS}")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_SECONDS} s a measurement")
    parser.add_argument("--json-only", action="store_true", help="no table")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="such as 'asyncio/*/raw'")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    return options


def main() -> None:
    options = parse()
    with Server() as server:
        if server.ask(b"SET", KEY.encode(), b"x" * VALUE_SIZE) != b"+OK\r\n":
            sys.exit("bench: the server did not take the value")
        bench = Bench(options, server)
        bench.run()
        figures = bench.figures()
    if not options.json_only:
        print(report.table(bench.results), end="\n\n")
    ratios = report.ratios(bench.results)
    if not options.json_only:
        for name, ratio in ratios.items():
            print(f"{name:40} {'-' if ratio is None else f'{ratio:.2f}'}")
    print(json.dumps({"bench": "redis", "ratios": ratios, "figures": figures}), flush=True)


if __name__ == "__main__":
    main()
