"""``iokernel serve module:app``: a server for ASGI and WSGI applications.

options.py has the command line, sockets.py what is bound, supervisor.py the parent process,
worker.py a worker, which loads the application by load.py and runs it by asgi.py or wsgi.py, and
tells of itself by pulse.py. reload.py watches files, log.py writes the log, pidfile.py a pid.

The parent binds the sockets and forks the workers; it never imports the application. So a worker
that dies takes nothing along, and a new one has the code as it is then.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

from iokernel.serve import log
from iokernel.serve.options import Options, parse
from iokernel.serve.pidfile import PidFile, PidFileError
from iokernel.serve.sockets import BindError, Bound, bind_all

__all__ = ["main"]


def main(words: list[str] | None = None) -> int:
    """Serve until a signal; 0: ended as asked to, 1: could not start, 2: wrong options."""
    options = parse(words)
    if options.umask is not None:
        os.umask(options.umask)
    with ExitStack() as stack:
        try:
            log.configure(options.log_level, options.access_log, options.log_config)
            if options.pid is not None:
                stack.callback(PidFile(options.pid).remove)
            bound = bind_all(options)
        except (BindError, log.LogConfigError, PidFileError) as error:
            print(f"iokernel serve: {error}", file=sys.stderr)
            return 1
        return _run(options, bound)


def _run(options: Options, bound: Bound) -> int:
    from iokernel.serve.supervisor import Supervisor
    from iokernel.serve.worker import Role, run

    if options.workers == 0:
        try:
            return run(options, Role(bound))
        finally:
            bound.remove()
    outcome = Supervisor(options, bound).run()
    if isinstance(outcome, int):
        return outcome
    return run(options, outcome)  # this process is a worker
