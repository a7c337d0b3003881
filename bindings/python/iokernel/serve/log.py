"""The log of the server: standard error, one line each.

    12:03:05.120 info  [4711] worker is ready

Loggers are ``iokernel.serve`` and ``iokernel.access``; an application that configures logging by
itself, with handlers on either, gets the lines instead; as does who gives --log-config.
"""

from __future__ import annotations

import json
import logging
import logging.config
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


class LogConfigError(Exception):
    """The file of --log-config cannot be used; the text is for people."""


def _configure_by(path: str) -> None:
    kind = path.rpartition(".")[2].lower()
    with open(path, encoding="utf-8") as file:
        if kind == "json":
            logging.config.dictConfig(json.load(file))
        elif kind in ("yaml", "yml"):
            import yaml  # type: ignore[import-untyped, unused-ignore]

            logging.config.dictConfig(yaml.safe_load(file))
        else:
            logging.config.fileConfig(file, disable_existing_loggers=False)


def configure(level: str, with_access: bool, path: str | None = None) -> None:
    """Write from this level on to standard error; or as a file says. LogConfigError."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _Format("%(asctime)s.%(msecs)03d %(level)-7s [%(process)d] %(message)s", "%H:%M:%S")
    )
    for logger in (log, access):
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    if path is not None:
        try:
            _configure_by(path)
        except Exception as error:  # whatever logging.config, or a handler in there, thinks of
            cause = error.__cause__ or error
            why = getattr(cause, "strerror", None) or f"{type(cause).__name__}: {cause}"
            raise LogConfigError(f"--log-config {path}: {why}") from None
    enable(with_access)


def enable(with_access: bool) -> None:
    """Again: logging.config disables loggers that the application's configuration does not name."""
    log.disabled = False
    access.disabled = not with_access
