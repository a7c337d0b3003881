"""Notices that files change: by watchfiles where that is installed, else by looking twice a second.

The watcher is a thread of the parent that writes to a descriptor, and nothing else.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

LOOK_S = 0.5
SUFFIXES = (".py", ".env", ".toml", ".html", ".jinja2")
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})


def _files(directories: list[str]) -> Iterator[tuple[str, int]]:
    for top in directories:
        for folder, inner, files in os.walk(top):
            inner[:] = [name for name in inner if name not in SKIPPED and name[0] != "."]
            for name in files:
                if name.endswith(SUFFIXES):
                    path = os.path.join(folder, name)
                    try:
                        yield path, os.stat(path).st_mtime_ns
                    except OSError:
                        continue  # gone since


def changed(before: dict[str, int], after: dict[str, int]) -> str | None:
    """Give a file that is new, other, or gone."""
    for path in before.keys() | after.keys():
        if before.get(path) != after.get(path):
            return path
    return None


class Watcher:
    """Writes a byte to a descriptor when files changed; ``path`` is one of them."""

    def __init__(self, directories: list[str], notify_fd: int) -> None:
        self.path = ""
        self._directories = [os.path.abspath(d) for d in directories]
        self._notify_fd = notify_fd
        self._ended = threading.Event()
        self._files = dict(_files(self._directories))
        self._thread = threading.Thread(target=self._run, name="reload", daemon=True)
        self.started = False

    def start(self) -> None:
        """Begin. The first state is that of the constructor."""
        self.started = True
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            import watchfiles  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            while not self._ended.wait(LOOK_S):
                self._look()
            return
        while not self._ended.is_set():
            for _ in watchfiles.watch(
                *self._directories, stop_event=self._ended, rust_timeout=1000, yield_on_timeout=True
            ):
                self._look()

    def _look(self) -> None:
        files = dict(_files(self._directories))
        path = changed(self._files, files)
        self._files = files
        if path is not None:
            self.path = path
            os.write(self._notify_fd, b"F")
