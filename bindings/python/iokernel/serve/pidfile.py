"""The file of --pid: it names the first process while that lives, and nobody else's is taken."""

from __future__ import annotations

import contextlib
import os


class PidFileError(Exception):
    """It cannot be written; the text is for people."""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def _named(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (FileNotFoundError, ValueError):
        return None


class PidFile:
    """Written as a whole, and removed by whoever wrote it."""

    def __init__(self, path: str) -> None:
        self._path = os.path.abspath(path)
        self._pid = os.getpid()
        try:
            other = _named(path)
            if other is not None and other > 0 and other != self._pid and _lives(other):
                raise PidFileError(f"--pid {path}: process {other} runs, which the file names")
            new = f"{self._path}.{self._pid}"
            with open(new, "w", encoding="ascii") as file:
                file.write(f"{self._pid}\n")
            os.replace(new, self._path)
        except OSError as error:
            raise PidFileError(f"--pid {path}: {error.strerror}") from None

    def remove(self) -> None:
        """Do nothing in a child, nor if another process has taken the file over."""
        if os.getpid() == self._pid and _named(self._path) == self._pid:
            with contextlib.suppress(OSError):
                os.unlink(self._path)
