"""iokernel serve."""

import sys

import iokernel

MODULES = ("iokernel.serve",)


def _command(app: str, port: int, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "iokernel", "serve", app, "--bind", f"127.0.0.1:{port}",
        "--workers", "1", "--log-level", "warning", "--health", "/healthz", *more,
    ]  # fmt: skip


def asgi(app: str, port: int, threads: int) -> list[str]:
    return _command(app, port, "--lifespan", "off")


def wsgi(app: str, port: int, threads: int) -> list[str]:
    return _command(app, port, "--threads", str(threads))


def version() -> str:
    return f"iokernel {iokernel.__version__}"
