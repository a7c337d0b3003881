"""The log of the server: standard error, one line each.

    12:03:05.120 info  [4711] worker is ready

Loggers are ``iokernel.serve`` and ``iokernel.access``; an application that configures logging by
itself, with handlers on either, gets the lines instead.
"""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("iokernel.serve")
access = logging.getLogger("iokernel.access")


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return super().format(record)


def configure(level: str, with_access: bool) -> None:
    """Write from this level on to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Format("%(asctime)s.%(msecs)03d %(level)-7s [%(process)d] %(message)s", "%H:%M:%S")
    )
    for logger in (log, access):
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    access.disabled = not with_access
