#!/usr/bin/env python3
"""Draw the picture of the Redis bench from what `bench/run.py redis` printed.

    bench/run.py redis | tee build/redis.txt
    .venv/bin/python bench/plot.py build/redis.txt docs/img/redis-bench.png

The input is a file whose last line is the bench's JSON object, or `-` for standard input.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # No screen is needed, and often none is there.

from matplotlib import pyplot  # noqa: E402

PANELS = (
    ("one asyncio loop", "tasks", ["asyncio/1", "asyncio/10", "asyncio/100", "asyncio/1000"]),
    ("one uvloop loop", "tasks", ["uvloop/1", "uvloop/10", "uvloop/100", "uvloop/1000"]),
    ("plain threads", "threads", ["sync/1", "sync/10"]),
    ("no interpreter", "in flight", ["native/1", "native/10", "native/100", "native/1000"]),
)
# Peer, its name in the legend, its colour: ours alone is warm.
PEERS = (
    ("iokernel", "iokernel", "#d1495b"),
    ("c_client", "C on libiokernel", "#edae49"),
    ("raw", "raw protocol", "#30638e"),
    ("glide", "valkey-glide", "#5b8fb0"),
    ("redispy", "redis-py + hiredis", "#8fb8ca"),
    ("coredis", "coredis", "#c3d7df"),
    ("redis_benchmark", "redis-benchmark", "#6c757d"),
)
PICTURE_INCHES, DOTS_PER_INCH = (10.0, 3.6), 110


def read(source: str) -> dict[str, Any]:
    """Return the JSON object of the last line."""
    text = sys.stdin.read() if source == "-" else Path(source).read_text()
    found: dict[str, Any] = json.loads(text.strip().rpartition("\n")[2])
    return found


def draw_panel(axes: Any, results: dict[str, Any], title: str, unit: str, names: list[str]) -> None:
    """Draw one group of bars for each scenario."""
    shown = [peer for peer in PEERS if any(peer[0] in results.get(name, {}) for name in names)]
    width = 0.84 / max(len(shown), 1)
    for i, (peer, label, colour) in enumerate(shown):
        rates = [results.get(name, {}).get(peer, {}).get("requests_per_s", 0) for name in names]
        places = [at + (i - (len(shown) - 1) / 2) * width for at in range(len(names))]
        axes.bar(places, rates, width, label=label, color=colour, zorder=2)
    axes.set_title(title, fontsize=10)
    axes.set_yscale("log")
    axes.set_xticks(range(len(names)), [name.partition("/")[2] for name in names])
    axes.set_xlabel(unit, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(axis="y", color="#dddddd", linewidth=0.6, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: bench/plot.py FILE|- PICTURE.png")
    figures = read(sys.argv[1])["figures"]
    results = figures["results"]
    panels = [panel for panel in PANELS if any(name in results for name in panel[2])]
    if not panels:
        sys.exit("plot: these figures have no scenario that the picture knows")
    picture, all_axes = pyplot.subplots(
        1, len(panels), sharey=True, figsize=PICTURE_INCHES, squeeze=False,
        width_ratios=[len(panel[2]) for panel in panels], layout="constrained",
    )  # fmt: skip
    legend = {}
    for axes, panel in zip(all_axes[0], panels, strict=True):
        draw_panel(axes, results, *panel)
        legend |= dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    all_axes[0][0].set_ylabel("GET requests per second", fontsize=9)
    order = [label for _, label, _ in PEERS if label in legend]
    picture.legend(
        [legend[label] for label in order], order,
        loc="outside lower center", ncols=len(order), fontsize=8, frameon=False,
    )  # fmt: skip
    machine = figures["machine"]
    picture.suptitle(
        f"GET of 64 bytes over loopback, {machine['cpus']} CPUs, Python {machine['python']}; "
        "logarithmic scale",
        fontsize=10,
    )
    target = Path(sys.argv[2])
    target.parent.mkdir(parents=True, exist_ok=True)
    picture.savefig(target, dpi=DOTS_PER_INCH)


if __name__ == "__main__":
    main()
