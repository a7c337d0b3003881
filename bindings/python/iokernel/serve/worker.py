"""A worker: loads the application and serves it until it is told to end.

It says "asgi" or "wsgi" and a line's end on a pipe to its parent once it accepts requests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from dataclasses import dataclass

from iokernel.errors import Error
from iokernel.serve.load import AppError, interface_of, load, read_env_file
from iokernel.serve.log import log
from iokernel.serve.options import Options

FAILED_TO_START = 3  # the exit status that tells the parent that another try would be the same


class StartError(Exception):
    """The application, or its listener, cannot start; the text is for people."""


@dataclass
class Role:
    """What a process needs to be a worker."""

    urls: list[str]  # of its listeners
    parent: int  # whose pid the start-up line names
    ready_fd: int = -1
    alive_fd: int = -1  # ends with the parent; -1: there is no parent

    def tell_ready(self, interface: str) -> None:
        """Tell the parent, if there is one, that requests are accepted."""
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
        if interface_of(app, options.interface, options.app) == "asgi":
            from iokernel.serve import asgi

            return asgi.run(app, options, role)
        from iokernel.serve import wsgi

        return wsgi.run(app, options, role)
    except (AppError, StartError, Error) as error:
        log.critical("%s", error)
    except Exception:
        trace = traceback.format_exc()
        log.critical("%s failed while it was loaded:\n%s", options.app, trace.rstrip())
    except SystemExit as error:
        log.critical("%s ended the process while it was loaded: %s", options.app, error)
    sys.stderr.flush()
    return FAILED_TO_START if role.alive_fd >= 0 else 1
