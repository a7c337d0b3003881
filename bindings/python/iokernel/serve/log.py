"""The log of the server: standard error, one line each.

    12:03:05.120 info  [4711] worker is ready

Loggers are ``iokernel.serve`` and ``iokernel.access``; an application that configures logging by
itself, with handlers on either, gets the lines instead.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

log = logging.getLogger("iokernel.serve")
access = logging.getLogger("iokernel.access")


class _Escapes:
    """What str.translate asks for each character: those that do not print become \\x1b."""

    def __getitem__(self, code: int) -> str:
        text = chr(code)
        if text.isprintable() or text == "\t":
            raise LookupError  # leave it
        return repr(text)[1:-1]


def _escape(text: str) -> str:
    return text if text.isprintable() else text.translate(_Escapes())


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        record.level = record.levelname.lower()
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Make one line of the message: a client's path may have any character in it."""
        record.message = _escape(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Leave the lines of a traceback, and nothing that would steer a terminal."""
        trace = super().formatException(ei)
        return "\n".join(_escape(line) for line in trace.split("\n"))


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
    enable(with_access)


def enable(with_access: bool) -> None:
    """Again: logging.config disables loggers that the application's configuration does not name."""
    log.disabled = False
    access.disabled = not with_access
