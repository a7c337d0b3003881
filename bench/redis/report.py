"""What is made of the measurements: medians, ratios, a table."""

import statistics
from collections.abc import Iterable
from typing import Any

# results[scenario][peer] is a list of one measurement per round (None where it failed).
Results = dict[str, dict[str, list[dict[str, Any] | None]]]

PEER_TITLES = {
    "iokernel": "iokernel",
    "redispy": "redis-py",
    "glide": "valkey-glide",
    "coredis": "coredis",
    "raw": "raw protocol",
    "redis_benchmark": "redis-benchmark",
    "c_client": "C on libiokernel",
}

# The comparisons that iokernel promises something about: (scenario, peer) over (scenario, peer).
RATIOS = {
    "asyncio_c1_vs_redispy": (("asyncio/1", "iokernel"), ("asyncio/1", "redispy")),
    "asyncio_c100_vs_redispy": (("asyncio/100", "iokernel"), ("asyncio/100", "redispy")),
    "asyncio_c100_vs_raw": (("asyncio/100", "iokernel"), ("asyncio/100", "raw")),
    "asyncio_c1000_vs_redispy": (("asyncio/1000", "iokernel"), ("asyncio/1000", "redispy")),
    "asyncio_c1000_vs_raw": (("asyncio/1000", "iokernel"), ("asyncio/1000", "raw")),
    "asyncio_c1000_vs_glide": (("asyncio/1000", "iokernel"), ("asyncio/1000", "glide")),
    "asyncio_c1000_vs_c_client": (("asyncio/1000", "iokernel"), ("native/1000", "c_client")),
    "sync_1thread_vs_redispy": (("sync/1", "iokernel"), ("sync/1", "redispy")),
    "sync_10threads_vs_redispy": (("sync/10", "iokernel"), ("sync/10", "redispy")),
    "c_client_vs_redis_benchmark_d100": (
        ("native/100", "c_client"),
        ("native/100", "redis_benchmark"),
    ),
    "c_client_vs_redis_benchmark_d1000": (
        ("native/1000", "c_client"),
        ("native/1000", "redis_benchmark"),
    ),
}


def with_uvloop() -> dict[str, tuple[tuple[str, str], tuple[str, str]]]:
    """Return the ratios and, for each of asyncio, its like on uvloop."""
    both = dict(RATIOS)
    for name, sides in RATIOS.items():
        if name.startswith("asyncio"):
            (s1, p1), (s2, p2) = sides
            swap = ("asyncio/", "uvloop/")
            both[f"{name}_uvloop"] = ((s1.replace(*swap), p1), (s2.replace(*swap), p2))
    return both


def paired(results: Results, over: tuple[str, str], under: tuple[str, str]) -> float | None:
    """Return the median of the rounds' ratios: what was measured within seconds is compared."""
    rounds = zip(
        results.get(over[0], {}).get(over[1], []),
        results.get(under[0], {}).get(under[1], []),
        strict=False,
    )
    ratios = [a["requests_per_s"] / b["requests_per_s"] for a, b in rounds if a and b]
    return round(statistics.median(ratios), 3) if ratios else None


def ratios(results: Results) -> dict[str, float | None]:
    """Return all ratios; None where one side was not measured."""
    found = {name: paired(results, *sides) for name, sides in with_uvloop().items()}
    native = [found[f"c_client_vs_redis_benchmark_d{depth}"] for depth in (100, 1000)]
    known = [ratio for ratio in native if ratio is not None]
    # The worse of the two depths: the promise is for both.
    found["c_client_vs_redis_benchmark"] = min(known) if known else None
    return found


def significant(value: float) -> float:
    """Round to four digits: the fifth is noise."""
    return float(f"{value:.4g}")


def summary(rounds: Iterable[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Return the median of each figure, and the slowest and the fastest round."""
    good = [measured for measured in rounds if measured]
    if not good:
        return None
    medians = {}
    for name in good[0]:
        values = [measured[name] for measured in good if measured.get(name) is not None]
        if values and isinstance(values[0], (int, float)):
            medians[name] = significant(statistics.median(values))
    rates = [measured["requests_per_s"] for measured in good]
    medians["requests_per_s_min"] = significant(min(rates))
    medians["requests_per_s_max"] = significant(max(rates))
    medians["rounds"] = len(good)
    return medians


def medians(results: Results) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the summary of each scenario and peer that was measured."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for scenario, peers in results.items():
        for peer, rounds in peers.items():
            if figures := summary(rounds):
                found.setdefault(scenario, {})[peer] = figures
    return found


def number(value: float | None, digits: int = 0) -> str:
    """Return a figure for the table; a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


COLUMNS = (
    "peer", "requests/s", "slowest", "fastest", "ours is", "p50 us", "p99 us",
    "CPU us: app", "other", "server", "switches", "wakes", "RSS MB",
)  # fmt: skip


def row(results: Results, scenario: str, peer: str, figures: dict[str, Any]) -> list[str]:
    """Return one peer's cells."""
    ours = "c_client" if scenario.startswith("native") else "iokernel"
    ratio = None if peer == ours else paired(results, (scenario, ours), (scenario, peer))
    wakes = figures["wakeups"] + figures["port_wakeups"] if "wakeups" in figures else None
    switches = figures["switches_voluntary"] + figures["switches_forced"]
    return [
        PEER_TITLES[peer],
        number(figures["requests_per_s"]),
        number(figures["requests_per_s_min"]),
        number(figures["requests_per_s_max"]),
        "-" if ratio is None else f"{ratio:.2f} x",
        number(figures.get("p50_us")),
        number(figures.get("p99_us")),
        number(figures["cpu_application_us"], 2),
        number(figures["cpu_other_us"], 2),
        number(figures["cpu_server_us"], 2),
        number(switches, 3),
        number(wakes, 3),
        number(figures["rss_mb"]),
    ]


def table(results: Results) -> str:
    """Return all scenarios as text. CPU, switches and wakes are per request."""
    lines = []
    for scenario, peers in medians(results).items():
        runner, _, callers = scenario.partition("/")
        unit = {"native": "in flight", "sync": "threads"}.get(runner, "tasks")
        rows = [list(COLUMNS)] + [row(results, scenario, p, f) for p, f in peers.items()]
        widths = [max(len(cells[i]) for cells in rows) for i in range(len(COLUMNS))]
        lines.append(f"\n{runner}, {callers} {unit}")
        for cells in rows:
            first, *others = zip(cells, widths, strict=True)
            text = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append("  " + "  ".join(text))
    return "\n".join(lines)
