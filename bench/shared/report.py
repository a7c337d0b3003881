"""What is made of the measurements of any suite: medians, ratios of rounds, a table."""

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

# results[scenario][peer] is a list of one measurement per round (None where it failed).
Results = dict[str, dict[str, list[dict[str, Any] | None]]]


@dataclass(frozen=True)
class Titles:
    """How a suite's table names things."""

    peers: dict[str, str]
    scenario: Callable[[str], str]
    ours: Callable[[str], str]  # The peer of a scenario that the others are compared with.


def paired(results: Results, over: tuple[str, str], under: tuple[str, str]) -> float | None:
    """Return the median of the rounds' ratios: what was measured within seconds is compared."""
    rounds = zip(
        results.get(over[0], {}).get(over[1], []),
        results.get(under[0], {}).get(under[1], []),
        strict=False,
    )
    ratios = [a["requests_per_s"] / b["requests_per_s"] for a, b in rounds if a and b]
    return round(statistics.median(ratios), 3) if ratios else None


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


def row(
    results: Results, scenario: str, peer: str, figures: dict[str, Any], titles: Titles
) -> list[str]:
    """Return one peer's cells."""
    ours = titles.ours(scenario)
    ratio = None if peer == ours else paired(results, (scenario, ours), (scenario, peer))
    wakes = figures["wakeups"] + figures["port_wakeups"] if "wakeups" in figures else None
    switches = figures["switches_voluntary"] + figures["switches_forced"]
    return [
        titles.peers.get(peer, peer),
        number(figures["requests_per_s"]),
        number(figures["requests_per_s_min"]),
        number(figures["requests_per_s_max"]),
        "-" if ratio is None else f"{ratio:.2f} x",
        number(figures.get("p50_us")),
        number(figures.get("p99_us")),
        number(figures["cpu_application_us"], 2),
        number(figures["cpu_other_us"], 2),
        number(figures.get("cpu_server_us"), 2),
        number(switches, 3),
        number(wakes, 3),
        number(figures["rss_mb"]),
    ]


def table(results: Results, titles: Titles) -> str:
    """Return all scenarios as text. CPU, switches and wakes are per request."""
    lines = []
    for scenario, peers in medians(results).items():
        rows = [list(COLUMNS)] + [row(results, scenario, p, f, titles) for p, f in peers.items()]
        widths = [max(len(cells[i]) for cells in rows) for i in range(len(COLUMNS))]
        lines.append(f"\n{titles.scenario(scenario)}")
        for cells in rows:
            first, *others = zip(cells, widths, strict=True)
            text = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
            lines.append("  " + "  ".join(text))
    return "\n".join(lines)
