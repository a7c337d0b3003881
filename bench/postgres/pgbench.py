"""pgbench: PostgreSQL's own load generator, in C, with prepared statements: it reads no values."""

import re
import resource
import subprocess
from typing import Any

from loads import pgbench_script
from server import Server, programs


def measure(
    server: Server, load: str, port: int, clients: int, seconds: float, timeout: float
) -> dict[str, Any]:
    """Run for some seconds, of which pgbench takes whole ones only."""
    script = server.folder / f"{load}.pgbench"
    script.write_text(pgbench_script(load))
    whole = max(1, round(seconds))
    command = [
        str(programs() / "pgbench"), "-n", "-M", "prepared", "-c", str(clients),
        "-j", str(min(2, clients)), "-T", str(whole), "-f", str(script),
        "-h", "127.0.0.1", "-p", str(port), "-U", "app", "app",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().rpartition("\n")[2])
    requests = int(find(r"transactions actually processed: (\d+)", done.stdout))
    # Nothing is known of the server's processes: they have gone with the connections.
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "version": find(r"(?m)^pgbench \((.*)\)$", done.stdout),
        "requests_per_s": float(find(r"tps = ([\d.]+)", done.stdout)),
        "requests": requests,
        "cpu_application_us": cpu_s / requests * 1e6,
        "cpu_other_us": 0.0,
        "switches_voluntary": (after.ru_nvcsw - before.ru_nvcsw) / requests,
        "switches_forced": (after.ru_nivcsw - before.ru_nivcsw) / requests,
        "rss_mb": after.ru_maxrss * 1024 / 1e6,
    }


def find(pattern: str, text: str) -> str:
    """Return what the pattern's group matches."""
    match = re.search(pattern, text)
    if match is None:
        raise ValueError(f"pgbench printed nothing like {pattern!r}")
    return match[1]
