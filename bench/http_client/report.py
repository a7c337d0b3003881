"""What iokernel promises about HTTP clients: ratios of measurements; and the names in the table."""

from shared.report import Results, Titles, paired

# The comparisons that iokernel promises something about: scenario, peer.
RATIOS = {
    "asyncio_c100_vs_aiohttp": ("asyncio/100", "aiohttp"),
    "asyncio_c1_vs_aiohttp": ("asyncio/1", "aiohttp"),
    "sync_c1_vs_requests": ("sync/1", "requests"),
    "asyncio_c1000_vs_aiohttp": ("asyncio/1000", "aiohttp"),
    "uvloop_c100_vs_aiohttp": ("uvloop/100", "aiohttp"),
    "asyncio_c100_vs_pycurl": ("asyncio/100", "pycurl"),
    "sync_c1_vs_pycurl": ("sync/1", "pycurl"),
}


def ours(scenario: str) -> str:
    """Return our own peer of a scenario."""
    return "iokernel"


def ratios(results: Results) -> dict[str, float | None]:
    """Return all ratios; None where one side was not measured."""
    return {
        name: paired(results, (scenario, ours(scenario)), (scenario, peer))
        for name, (scenario, peer) in RATIOS.items()
    }


def scenario_title(scenario: str) -> str:
    """Return what the table says above a scenario."""
    runner, callers = scenario.split("/")
    return f"GET: {runner}, {callers} {'threads' if runner == 'sync' else 'tasks'}"


TITLES = Titles({"pycurl": "pycurl (no tasks)"}, scenario_title, ours)
