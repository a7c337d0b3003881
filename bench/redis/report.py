"""What iokernel promises about Redis: ratios of the measurements; and the names in the table."""

from shared.report import Results, Titles, paired

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


def ratios(results: Results) -> dict[str, float | None]:
    """Return all ratios; None where one side was not measured."""
    found = {name: paired(results, *sides) for name, sides in with_uvloop().items()}
    native = [found[f"c_client_vs_redis_benchmark_d{depth}"] for depth in (100, 1000)]
    known = [ratio for ratio in native if ratio is not None]
    # The worse of the two depths: the promise is for both.
    found["c_client_vs_redis_benchmark"] = min(known) if known else None
    return found


def scenario_title(scenario: str) -> str:
    """Return what the table says above a scenario."""
    runner, _, callers = scenario.partition("/")
    unit = {"native": "in flight", "sync": "threads"}.get(runner, "tasks")
    return f"{runner}, {callers} {unit}"


def ours(scenario: str) -> str:
    """Return our own peer of a scenario."""
    return "c_client" if scenario.startswith("native") else "iokernel"


TITLES = Titles(PEER_TITLES, scenario_title, ours)
