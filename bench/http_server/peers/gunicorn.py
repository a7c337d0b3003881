"""gunicorn: threads of its worker gthread, which keeps connections, as its default one does not."""

import sys
from importlib.metadata import version as installed

MODULES = ("gunicorn",)


def wsgi(app: str, port: int, threads: int) -> list[str]:
    return [
        sys.executable, "-m", "gunicorn", app, "--bind", f"127.0.0.1:{port}", "--workers", "1",
        "--worker-class", "gthread", "--threads", str(threads), "--keep-alive", "75",
        "--worker-connections", "4096", "--backlog", "4096", "--log-level", "warning",
    ]  # fmt: skip


def version() -> str:
    return f"gunicorn {installed('gunicorn')}"
