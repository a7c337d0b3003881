"""What iokernel promises about its HTTP server: ratios of measurements; and the table's names."""

import statistics

from shared.report import Results, Titles, paired

OURS = "iokernel"
# Requests per second, ours over theirs: scenario, peer.
RATIOS = {
    "asgi_hello_c64_vs_uvicorn": ("asgi/hello/64", "uvicorn"),
    "asgi_hello_c64_vs_granian": ("asgi/hello/64", "granian"),
    "asgi_hello_c1_vs_uvicorn": ("asgi/hello/1", "uvicorn"),
    "wsgi_hello_c64_vs_gunicorn": ("wsgi/hello/64", "gunicorn"),
    "asgi_hello_c1_vs_granian": ("asgi/hello/1", "granian"),
    "asgi_hello_c256_vs_uvicorn": ("asgi/hello/256", "uvicorn"),
    "asgi_hello_c256_vs_granian": ("asgi/hello/256", "granian"),
    "asgi_hello_c64_vs_hypercorn": ("asgi/hello/64", "hypercorn"),
    "asgi_json_c64_vs_uvicorn": ("asgi/json/64", "uvicorn"),
    "asgi_10kb_c64_vs_uvicorn": ("asgi/10kb/64", "uvicorn"),
    "asgi_echo_c64_vs_uvicorn": ("asgi/echo/64", "uvicorn"),
    "asgi_echo_c64_vs_granian": ("asgi/echo/64", "granian"),
    "asgi_sleep_c256_vs_uvicorn": ("asgi/sleep/256", "uvicorn"),
    "wsgi_hello_c64_vs_granian": ("wsgi/hello/64", "granian"),
    "wsgi_hello_c1_vs_gunicorn": ("wsgi/hello/1", "gunicorn"),
}
# Latency, ours over theirs: less is better.
HEALTH = "asgi/health/1"
LOAD_TITLES = {
    "hello": "13 bytes",
    "json": "JSON",
    "10kb": "10 KB",
    "echo": "POST of 1 KB, echoed",
    "sleep": "a handler that sleeps 10 ms",
    "health": "a health check while the application computes for 200 ms, over and over",
}


def p99_ratio(results: Results, scenario: str, peer: str) -> float | None:
    """Return the median of the rounds' ratios of p99."""
    found = results.get(scenario, {})
    pairs = zip(found.get(OURS, []), found.get(peer, []), strict=False)
    ratios = [a["p99_us"] / b["p99_us"] for a, b in pairs if a and b]
    return round(statistics.median(ratios), 5) if ratios else None


def ratios(results: Results) -> dict[str, float | None]:
    """Return all ratios; None where one side was not measured."""
    found = {
        name: paired(results, (scenario, OURS), (scenario, peer))
        for name, (scenario, peer) in RATIOS.items()
    }
    found["health_busy_p99_vs_uvicorn"] = p99_ratio(results, HEALTH, "uvicorn")
    found["health_busy_p99_vs_granian"] = p99_ratio(results, HEALTH, "granian")
    return found


def scenario_title(scenario: str) -> str:
    """Return what the table says above a scenario."""
    interface, load, connections = scenario.split("/")
    noun = "connection" if connections == "1" else "connections"
    return f"{interface.upper()}, {LOAD_TITLES[load]}, {connections} {noun}"


TITLES = Titles({}, scenario_title, lambda scenario: OURS)
