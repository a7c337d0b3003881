"""Granian: HTTP/1 alone, no websockets; ASGI with uvloop."""

import sys
from importlib.metadata import version as installed

MODULES = ("granian", "uvloop")


def _command(app: str, port: int, interface: str, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "granian", app, "--port", str(port), "--workers", "1",
        "--interface", interface, "--http", "1", "--no-ws", "--log-level", "warning",
        "--no-access-log", "--backlog", "4096", *more,
    ]  # fmt: skip


def asgi(app: str, port: int, threads: int) -> list[str]:
    return _command(app, port, "asginl", "--loop", "uvloop")


def wsgi(app: str, port: int, threads: int) -> list[str]:
    return _command(app, port, "wsgi", "--blocking-threads", str(threads))


def version() -> str:
    return f"Granian {installed('granian')} (uvloop {installed('uvloop')})"
