"""What iokernel promises about PostgreSQL: ratios of measurements; and the names in the table."""

from shared.report import Results, Titles, paired

# The comparisons that iokernel promises something about: scenario, peer.
RATIOS = {
    "point_c100_vs_asyncpg4": ("point/asyncio/100", "asyncpg4"),
    "point_c100_1ms_vs_asyncpg4": ("point_1ms/asyncio/100", "asyncpg4"),
    "point_c1_vs_asyncpg": ("point/asyncio/1", "asyncpg1"),
    "rows10k_vs_asyncpg": ("rows10k/asyncio/1", "asyncpg1"),
    "sync_c1_vs_psycopg": ("point/sync/1", "psycopg1"),
    "point_c100_vs_asyncpg10": ("point/asyncio/100", "asyncpg10"),
    "point_c100_vs_asyncpg100": ("point/asyncio/100", "asyncpg100"),
    "point_c100_vs_pgbench4": ("point/asyncio/100", "pgbench4"),
    "point_c100_1ms_vs_asyncpg100": ("point_1ms/asyncio/100", "asyncpg100"),
    "point_c100_uvloop_vs_asyncpg4": ("point/uvloop/100", "asyncpg4"),
    "rows100_c100_vs_asyncpg4": ("rows100/asyncio/100", "asyncpg4"),
    "insert_c100_vs_asyncpg4": ("insert/asyncio/100", "asyncpg4"),
    "transaction_c100_vs_asyncpg4": ("transaction/asyncio/100", "asyncpg4"),
}
LOAD_TITLES = {
    "point": "SELECT of one row",
    "point_1ms": "SELECT of one row, 1 ms away",
    "rows100": "SELECT of 100 rows",
    "rows10k": "SELECT of 10,000 rows",
    "insert": "INSERT",
    "transaction": "BEGIN, SELECT, UPDATE, COMMIT",
}


def ours(scenario: str) -> str:
    """Return our own peer of a scenario."""
    return "iokernel1" if scenario.endswith("/1") else "iokernel4"


def ratios(results: Results) -> dict[str, float | None]:
    """Return all ratios; None where one side was not measured."""
    return {
        name: paired(results, (scenario, ours(scenario)), (scenario, peer))
        for name, (scenario, peer) in RATIOS.items()
    }


def scenario_title(scenario: str) -> str:
    """Return what the table says above a scenario."""
    load, runner, callers = scenario.split("/")
    unit = "threads" if runner == "sync" else "tasks"
    return f"{LOAD_TITLES[load]}: {runner}, {callers} {unit}"


TITLES = Titles({}, scenario_title, ours)
