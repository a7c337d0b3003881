"""Hypercorn: with uvloop."""

import sys
from importlib.metadata import version as installed

MODULES = ("hypercorn", "uvloop")


def asgi(app: str, port: int, threads: int) -> list[str]:
    return [
        sys.executable, "-m", "hypercorn", app, "--bind", f"127.0.0.1:{port}", "--workers", "1",
        "--worker-class", "uvloop", "--log-level", "warning", "--backlog", "4096",
    ]  # fmt: skip


def version() -> str:
    return f"Hypercorn {installed('hypercorn')} (uvloop {installed('uvloop')})"
