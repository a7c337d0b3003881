"""The peers that are programs of their own: redis-benchmark and the C client on libiokernel."""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from server import Server
from shared.meter import process_cpu_ns

ROOT = Path(__file__).resolve().parents[2]
C_CLIENT = ROOT / "build" / "c" / "bench" / "c_client"
# Enough for a rate within a few percent, short enough to cost nothing: 20 to 100 ms.
PILOT_REQUESTS = {1: 2_000, 10: 20_000, 100: 100_000, 1000: 100_000}


def build_c_client() -> str | None:
    """Make the C client if it is not there; return why that did not work."""
    if C_CLIENT.exists():
        return None
    print("bench: building the C client (make c)", file=sys.stderr, flush=True)
    made = subprocess.run(["make", "-C", str(ROOT), "c"], stdout=sys.stderr, stderr=sys.stderr)
    return None if made.returncode == 0 and C_CLIENT.exists() else "`make c` did not build it"


def c_client(
    server: Server, key: str, depth: int, warmup: float, seconds: float, timeout: float
) -> dict[str, Any]:
    """Measure the C client with `depth` calls in flight on its one connection."""
    command = [
        str(C_CLIENT), "--url", f"redis://127.0.0.1:{server.port}", "--key", key,
        "--depth", str(depth), "--warmup", str(warmup), "--seconds", str(seconds),
        "--server-pid", str(server.pid),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2] or f"exit {done.returncode}")
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


class RedisBenchmark:
    """redis-benchmark with one connection and `depth` requests per pipeline.

    It sends `depth` requests, waits for all their replies, and sends the next `depth`. It counts
    requests, not seconds, so the number of requests comes from the rate seen before: in a pilot
    run, then in the last round.
    """

    def __init__(self) -> None:
        self.program = shutil.which("redis-benchmark")
        self.rates: dict[int, float] = {}

    def measure(
        self, server: Server, key: str, depth: int, seconds: float, timeout: float
    ) -> dict[str, Any]:
        """Run for about `seconds`."""
        if depth not in self.rates:
            pilot = self.run(server, key, depth, PILOT_REQUESTS[depth], timeout)
            self.rates[depth] = pilot["requests_per_s"]
        requests = max(depth, int(self.rates[depth] * seconds))
        figures = self.run(server, key, depth, requests, timeout)
        self.rates[depth] = figures["requests_per_s"]
        return figures

    def run(
        self, server: Server, key: str, depth: int, requests: int, timeout: float
    ) -> dict[str, Any]:
        """Run for that many requests. CPU, switches and memory include its short start and end."""
        assert self.program is not None
        command = [
            self.program, "-h", "127.0.0.1", "-p", str(server.port), "-c", "1", "-P", str(depth),
            "-n", str(requests), "--csv", "GET", key,
        ]  # fmt: skip
        server_before, started = process_cpu_ns(server.pid), time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or time.monotonic() - started > timeout:
            raise RuntimeError(f"redis-benchmark: exit {process.returncode}")
        row = list(csv.DictReader(output[output.index('"test"') :].splitlines()))[-1]
        cpu_s = usage.ru_utime + usage.ru_stime
        return {
            "version": f"redis-benchmark of redis {server.version()}",
            "requests_per_s": float(row["rps"]),
            "requests": requests,
            "p50_us": float(row["p50_latency_ms"]) * 1e3,
            "p99_us": float(row["p99_latency_ms"]) * 1e3,
            "cpu_application_us": cpu_s / requests * 1e6,
            "cpu_other_us": 0.0,
            "cpu_server_us": (process_cpu_ns(server.pid) - server_before) / requests / 1e3,
            "switches_voluntary": usage.ru_nvcsw / requests,
            "switches_forced": usage.ru_nivcsw / requests,
            "rss_mb": usage.ru_maxrss * 1024 / 1e6,
        }
