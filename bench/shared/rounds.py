"""How every suite measures: in rounds, each scenario with all its peers in turn."""

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

from shared import report

# Far more than any measurement needs; a peer that hangs is reported and the bench goes on.
TIMEOUT_SECONDS = 60.0


class Rounds:
    """One run: what to measure, and what came of it. A suite says how, by the methods below.

    In each round every scenario is measured with all its peers in turn, and the order of the peers
    rotates from round to round, so that a machine that slows down slows all of them.
    """

    def __init__(self, rounds: int, plan: dict[str, list[str]], pattern: str) -> None:
        self.rounds = rounds
        self.skipped: dict[str, str] = {}
        self.failures: dict[str, str] = {}
        self.versions: dict[str, str] = {}
        self.plan = self.choose(plan, pattern)
        self.results: report.Results = {
            scenario: {peer: [] for peer in peers} for scenario, peers in self.plan.items()
        }

    def obstacle(self, peer: str, scenario: str) -> str | None:
        """Return why a peer cannot be measured."""
        raise NotImplementedError

    def label(self, peer: str, scenario: str) -> str:
        """Return the name under which the answer of obstacle() is kept."""
        return peer

    def measure(self, scenario: str, peer: str) -> dict[str, Any]:
        """Measure once."""
        raise NotImplementedError

    def choose(self, plan: dict[str, list[str]], pattern: str) -> dict[str, list[str]]:
        """Return the peers of each scenario, less what was not asked for and what is not here."""
        chosen: dict[str, list[str]] = {}
        for scenario, all_peers in plan.items():
            wanted = [p for p in all_peers if fnmatch.fnmatch(f"{scenario}/{p}", pattern)]
            if peers := [p for p in wanted if self.is_available(p, scenario)]:
                chosen[scenario] = peers
        if not chosen and not any(self.skipped.values()):
            scenario, peers = next(iter(plan.items()))
            raise SystemExit(
                f"bench: nothing is named {pattern!r}; names are scenario/peer, such as "
                f"{scenario}/{peers[0]!s}, and * stands for anything"
            )
        return chosen

    def is_available(self, peer: str, scenario: str) -> bool:
        """Find out once whether a peer can be measured; note why not."""
        name = self.label(peer, scenario)
        if name not in self.skipped:
            self.skipped[name] = self.obstacle(peer, scenario) or ""
            if self.skipped[name]:
                say(f"skipping {name}: {self.skipped[name]}")
        return not self.skipped[name]

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
        try:
            figures = self.measure(scenario, peer)
        except (RuntimeError, ValueError, subprocess.TimeoutExpired) as error:
            self.failures[f"{scenario} {peer}"] = str(error)
            say(f"FAILED: {scenario} {peer}: {error}")
            return None
        self.versions[peer] = figures["version"]
        return figures

    def figures(self, settings: dict[str, Any], versions: dict[str, str]) -> dict[str, Any]:
        """Return everything that was measured, and where."""
        return {
            "machine": machine(),
            "settings": {"rounds": self.rounds} | settings,
            "versions": versions | self.versions,
            "skipped": {name: why for name, why in self.skipped.items() if why},
            "failures": self.failures,
            "results": report.medians(self.results),
        }


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


def run_worker(command: list[str]) -> dict[str, Any]:
    """Run a worker, a Python process; return the figures that it prints."""
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, timeout=TIMEOUT_SECONDS
    )
    if done.returncode != 0:
        last = done.stderr.strip().rpartition("\n")[2]
        raise RuntimeError(last or f"the worker ended with {done.returncode}")
    return last_line(done.stdout)


def last_line(output: str) -> dict[str, Any]:
    """Return the JSON object of the last line."""
    figures: dict[str, Any] = json.loads(output.strip().rpartition("\n")[2])
    return figures


def find_obstacle(module: str) -> str | None:
    """Return why a module of iokernel cannot be used."""
    found = subprocess.run([sys.executable, "-c", f"import {module}"], capture_output=True)
    return None if found.returncode == 0 else f"{module} is not installed; `make` does it"


def parse(prog: str, doc: str | None, rounds: int, quick: tuple[int, float]) -> argparse.Namespace:
    """Read the command line; quick: rounds and seconds of --quick."""
    parser = argparse.ArgumentParser(prog=prog, description=doc)
    parser.add_argument("--rounds", type=int, help=f"default {rounds}; with --quick {quick[0]}")
    parser.add_argument("--quick", action="store_true", help=f"{quick[1]} s a measurement")
    parser.add_argument("--json-only", action="store_true", help="no table")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="such as 'asyncio/*/raw'")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be 1 or more")
    options.rounds = options.rounds or (quick[0] if options.quick else rounds)
    return options


def show(
    name: str,
    results: report.Results,
    titles: report.Titles,
    ratios: dict[str, float | None],
    figures: dict[str, Any],
    json_only: bool,
) -> None:
    """Print the table, the ratios, and the JSON object as the last line."""
    if not json_only:
        print(report.table(results, titles), end="\n\n")
        for key, ratio in ratios.items():
            print(f"{key:40} {'-' if ratio is None else f'{ratio:.2f}'}")
    print(json.dumps({"bench": name, "ratios": ratios, "figures": figures}), flush=True)
