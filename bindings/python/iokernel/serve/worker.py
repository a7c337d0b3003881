"""A worker: loads the application and serves it until it is told to end.

It says "asgi" or "wsgi" and a line's end on a pipe to its parent once it accepts requests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from dataclasses import dataclass

from iokernel.errors import Error
from iokernel.serve.load import AppError, interface_of, load, read_env_file
from iokernel.serve.log import enable, log
from iokernel.serve.options import Options

FAILED_TO_START = 3  # the exit status that tells the parent that another try would be the same
PATIENCE_S = 5.0  # beyond the graceful timeout, for the application's own shutdown; then SIGKILL


class StartError(Exception):
    """The application, or its listener, cannot start; the text is for people."""


@dataclass
class Role:
    """What a process needs to be a worker."""

    urls: list[str]  # of its listeners
    parent: int  # whose pid the start-up line names
    ready_fd: int = -1
    alive_fd: int = -1  # ends with the parent; -1: there is no parent
    ready: bool = False

    def tell_ready(self, interface: str) -> None:
        """Tell the parent, if there is one, that requests are accepted."""
        self.ready = True
        if self.ready_fd >= 0:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.ready_fd, interface.encode() + b"\n")
            os.close(self.ready_fd)
            self.ready_fd = -1


def run(options: Options, role: Role) -> int:
    """Serve; give the exit status."""
    if role.alive_fd >= 0:
        # Ctrl-C goes to the whole group of a terminal, and the parent tells us what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if options.env_file is not None:
            read_env_file(options.env_file)
        app = load(options.app, directory=options.app_dir, factory=options.factory)
        enable(options.access_log)
        if interface_of(app, options.interface, options.app) == "asgi":
            from iokernel.serve import asgi

            return asgi.run(app, options, role)
        from iokernel.serve import wsgi

        return wsgi.run(app, options, role)
    except (AppError, StartError, Error) as error:
        log.critical("%s", error)
    except Exception:
        log.critical("%s failed %s", options.app, _when(role), exc_info=True)
    except SystemExit as error:
        log.critical("%s ended the process %s: %s", options.app, _when(role), error)
        if role.ready:
            raise  # with the status that it asks for
    sys.stderr.flush()
    return FAILED_TO_START if role.alive_fd >= 0 and not role.ready else 1


def _when(role: Role) -> str:
    return "while it served" if role.ready else "while it was loaded"
