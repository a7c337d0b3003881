"""What asks: wrk for throughput; and one probe for a health check while the server computes."""

import re
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any

from server import Server, usage
from shared.meter import percentile

ECHO_BYTES = 1024
ECHO = f"""
wrk.method = "POST"
wrk.body = string.rep("x", {ECHO_BYTES})
wrk.headers["Content-Type"] = "application/octet-stream"
"""
PATHS = {"hello": "/", "json": "/json", "10kb": "/10kb", "echo": "/echo", "sleep": "/sleep"}
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}
PROBE_EVERY_S = 0.01


def _latency(output: str, share: str) -> float | None:
    found = re.search(rf"^\s+{share}%\s+([\d.]+)(us|ms|s)$", output, re.MULTILINE)
    return float(found[1]) * UNITS[found[2]] if found else None


def run_wrk(port: int, load: str, connections: int, seconds: float) -> str:
    """Return what wrk says. One thread: it can do far more requests than any of the servers."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if load == "echo":
            script.write(ECHO)
            script.flush()
            command += ["-s", script.name]
        command.append(f"http://127.0.0.1:{port}{PATHS[load]}")
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip() or f"wrk ended with {done.returncode}")
    for pattern in (r"Non-2xx or 3xx responses: \d+", r"Socket errors: .*"):
        if wrong := re.search(pattern, done.stdout):
            raise RuntimeError(wrong[0])
    return done.stdout


def throughput(
    server: Server, load: str, connections: int, warmup: int, seconds: int
) -> dict[str, Any]:
    """Measure requests per second of a closed loop on that many connections."""
    run_wrk(server.port, load, connections, warmup)
    before = usage(server.pid)
    output = run_wrk(server.port, load, connections, seconds)
    after = usage(server.pid)
    counted = re.search(r"^\s+(\d+) requests in ([\d.]+)(ms|s),", output, re.MULTILINE)
    rate = re.search(r"^Requests/sec:\s+([\d.]+)$", output, re.MULTILINE)
    if counted is None or rate is None:
        raise RuntimeError("wrk gives no figures")
    requests = max(int(counted[1]), 1)
    return {
        "requests_per_s": float(rate[1]),
        "requests": requests,
        "p50_us": _latency(output, "50"),
        "p99_us": _latency(output, "99"),
        "cpu_application_us": (after["cpu_ns"] - before["cpu_ns"]) / requests / 1e3,
        "cpu_other_us": 0.0,
        "switches_voluntary": (after["switches_voluntary"] - before["switches_voluntary"])
        / requests,
        "switches_forced": (after["switches_forced"] - before["switches_forced"]) / requests,
        "rss_mb": after["rss"] / 1e6,
    }


def _ask(s: socket.socket, path: str) -> None:
    s.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    got, end = b"", -1
    while end < 0 or len(got) < end:
        part = s.recv(65536)
        if not part:
            raise RuntimeError("the server closed the connection")
        got += part
        head, blank, _ = got.partition(b"\r\n\r\n")
        if blank and end < 0:
            length = re.search(rb"content-length: *(\d+)", head.lower())
            end = len(head) + 4 + (int(length[1]) if length else 0)
    if not got.startswith(b"HTTP/1.1 2"):
        raise RuntimeError(f"the health check failed: {got[:100]!r}")


def health(server: Server, seconds: float) -> dict[str, Any]:
    """Measure a health check while another client has the application compute over and over."""
    ended = threading.Event()

    def keep_busy() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
            while not ended.is_set():
                _ask(s, "/busy")

    busy = threading.Thread(target=keep_busy)
    busy.start()
    samples = []
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as s:
            _ask(s, "/healthz")
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                start = time.perf_counter()
                _ask(s, "/healthz")
                samples.append(time.perf_counter() - start)
                time.sleep(PROBE_EVERY_S)
    finally:
        ended.set()
        busy.join()
    ordered = sorted(samples)
    p50, p99 = percentile(ordered, 0.50), percentile(ordered, 0.99)
    if p50 is None or p99 is None:
        raise RuntimeError("no answer came")
    now = usage(server.pid)
    return {
        "requests_per_s": len(samples) / seconds,
        "p50_us": p50 * 1e6,
        "p99_us": p99 * 1e6,
        "cpu_application_us": 0.0,
        "cpu_other_us": 0.0,
        "switches_voluntary": 0.0,
        "switches_forced": 0.0,
        "rss_mb": now["rss"] / 1e6,
    }
