"""uvicorn: with uvloop and httptools."""

import sys
from importlib.metadata import version as installed

MODULES = ("uvicorn", "uvloop", "httptools")


def asgi(app: str, port: int, threads: int) -> list[str]:
    return [
        sys.executable, "-m", "uvicorn", app, "--port", str(port), "--workers", "1",
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
        "--lifespan", "off", "--backlog", "4096",
    ]  # fmt: skip


def version() -> str:
    parts = " + ".join(f"{name} {installed(name)}" for name in MODULES[1:])
    return f"uvicorn {installed('uvicorn')} ({parts})"
