"""A worker: loads the application and serves it until it is told to end.

It writes lines to a pipe to its parent: "asgi" or "wsgi" once it accepts requests; then what
pulse.py has to tell.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from dataclasses import dataclass, field

from iokernel.errors import Error
from iokernel.serve.load import AppError, interface_of, load, read_env_file
from iokernel.serve.log import enable, log
from iokernel.serve.options import Options
from iokernel.serve.sockets import BindError, Bound

FAILED_TO_START = 3  # the exit status that tells the parent that another try would be the same
BEAT, RENEW = "beat", "renew"  # it moves; it has served enough
PATIENCE_S = 5.0  # beyond the graceful timeout, for the application's own shutdown; then SIGKILL


class StartError(Exception):
    """The application, or its listener, cannot start; the text is for people."""


@dataclass
class Role:
    """What a process needs to be a worker."""

    bound: Bound
    slot: int = 0
    pipe_fd: int = -1  # for what it tells the parent
    alive_fd: int = -1  # ends with the parent; -1: there is no parent
    ready: bool = False
    urls: list[str] = field(default_factory=list)  # of its listeners

    def tell(self, line: str) -> None:
        """Tell the parent, if there is one; a parent that stands is not waited for."""
        if self.pipe_fd >= 0:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):
                os.write(self.pipe_fd, line.encode() + b"\n")

    def tell_ready(self, interface: str) -> None:
        """Tell the parent that requests are accepted."""
        self.ready = True
        self.tell(interface)


def run(options: Options, role: Role) -> int:
    """Serve; give the exit status."""
    if role.alive_fd >= 0:
        # Ctrl-C goes to the whole group of a terminal, and the parent tells us what it means.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if options.timeout or options.start_timeout:
        faulthandler.enable()  # the parent sends SIGABRT, and this shows where it stood
    try:
        role.urls = role.bound.of_slot(role.slot)
        if options.env_file is not None:
            read_env_file(options.env_file)
        app = load(options.app, directory=options.app_dir, factory=options.factory)
        enable(options.access_log)
        if interface_of(app, options.interface, options.app) == "asgi":
            from iokernel.serve import asgi

            return asgi.run(app, options, role)
        if options.limit_concurrency is not None:
            raise StartError(
                "--limit-concurrency is for ASGI: a WSGI application has --threads requests at a "
                "time, and further ones wait"
            )
        from iokernel.serve import wsgi

        return wsgi.run(app, options, role)
    except (AppError, BindError, StartError, Error) as error:
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
