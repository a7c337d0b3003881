"""What a worker measures about itself and the server: CPU by side, switches, memory, latency.

Reads /proc only at the two ends of the measured window, so it costs the measurement nothing.
"""

import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


def thread_cpu_ns(task: Path) -> int:
    """Return the CPU time of one thread; 0 if it has gone (its share is then counted as other)."""
    try:
        # The first number of schedstat is the time on a CPU in nanoseconds; the ticks of `stat`
        # are 10 ms, too coarse for a window of a second.
        return int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0


def process_cpu_ns(pid: int) -> int:
    """Return the CPU time of all threads of another process."""
    return sum(thread_cpu_ns(task) for task in Path(f"/proc/{pid}/task").iterdir())


def rss_bytes() -> int:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def tree_cpu_ns(pid: int) -> int:
    """Return the CPU time of a process and its children: PostgreSQL has one for each connection."""
    cpu = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        children = (task / "children").read_text().split()
        cpu += thread_cpu_ns(task) + sum(
            thread_cpu_ns(Path(f"/proc/{c}/task/{c}")) for c in children
        )
    return cpu


@dataclass(frozen=True)
class Snapshot:
    """One end of the window. CPU in nanoseconds."""

    at: float
    requests: int
    cpu_application: int
    cpu_process: int
    cpu_server: int
    switches_voluntary: int
    switches_forced: int

    @classmethod
    def take(cls, requests: int, threads: list[int], server_pid: int) -> "Snapshot":
        """Look now; `threads` are the kernel's ids of the threads that the application runs on."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        application = sum(thread_cpu_ns(Path(f"/proc/self/task/{thread}")) for thread in threads)
        return cls(
            at=time.perf_counter(),
            requests=requests,
            cpu_application=application,
            cpu_process=time.process_time_ns(),
            cpu_server=tree_cpu_ns(server_pid),
            switches_voluntary=usage.ru_nvcsw,
            switches_forced=usage.ru_nivcsw,
        )


def percentile(ordered: list[float], share: float) -> float | None:
    """Return the value that `share` of the sorted samples do not pass; None without samples."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def between(first: Snapshot, last: Snapshot, samples: list[float]) -> dict[str, Any]:
    """Return the figures of one window. CPU and switches are per request, latencies in seconds."""
    seconds = last.at - first.at
    requests = last.requests - first.requests
    each = max(requests, 1)
    process = last.cpu_process - first.cpu_process
    # The two clocks differ by what ran between their readings: never show that as less than none.
    application = min(last.cpu_application - first.cpu_application, process)
    ordered = sorted(samples)
    microseconds = 1e6
    p50, p99 = percentile(ordered, 0.50), percentile(ordered, 0.99)
    return {
        "requests_per_s": requests / seconds,
        "requests": requests,
        "seconds": seconds,
        "samples": len(ordered),
        "p50_us": None if p50 is None else p50 * microseconds,
        "p99_us": None if p99 is None else p99 * microseconds,
        "cpu_application_us": application / each / 1e3,
        "cpu_other_us": (process - application) / each / 1e3,
        "cpu_server_us": (last.cpu_server - first.cpu_server) / each / 1e3,
        "switches_voluntary": (last.switches_voluntary - first.switches_voluntary) / each,
        "switches_forced": (last.switches_forced - first.switches_forced) / each,
        "rss_mb": rss_bytes() / 1e6,
    }
