"""The command line of ``iokernel serve``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from iokernel.serve.forwarded import Trust

LEVELS = ("critical", "error", "warning", "info", "debug")
DEFAULT_BIND = "127.0.0.1:8000"
PASSWORD = "IOKERNEL_SSL_KEYFILE_PASSWORD"  # never an argument, which everybody sees

_EPILOG = """\
signals, to the first process:
  SIGTERM, SIGINT   accept no more, answer what is under way, end; a second one: at once
  SIGHUP            new workers with the code as it is now; the old ones end when those are ready
  SIGTTIN, SIGTTOU  a worker more, a worker less

exit status: 0 ended as asked to; 1 could not start, as an address was taken or the application
did not load or refused to start; 2 wrong options

a --bind is HOST:PORT, PORT, :PORT (every address of the machine), unix:PATH or fd://N; limits of
the listener may follow, as in "0.0.0.0:80?max_connections=5000&header_timeout=5s"
"""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    app: str
    bind: list[str] = field(default_factory=list)
    workers: int = 1
    interface: str = "auto"
    factory: bool = False
    app_dir: str = "."
    env_file: str | None = None
    reload: bool = False
    reload_dir: list[str] = field(default_factory=list)
    lifespan: str = "auto"
    loop: str = "auto"
    threads: int = 4
    limit_concurrency: int | None = None
    graceful_timeout: float = 30.0
    root_path: str = ""
    health: str | None = None
    forwarded_allow_ips: str = "127.0.0.1,::1,unix:"
    proxy_protocol: bool = False
    ssl_certfile: list[str] = field(default_factory=list)
    ssl_keyfile: list[str] = field(default_factory=list)
    ssl_keyfile_password: str | None = field(default=None, repr=False)
    ssl_keyfile_password_file: str | None = None
    ssl_ca_certs: str | None = None
    pid: str | None = None
    umask: int | None = None
    max_requests: int = 0
    max_requests_jitter: int = 0
    timeout: float = 0.0
    start_timeout: float = 0.0
    log_level: str = "info"
    log_config: str | None = None
    access_log: bool = False


def _number(least: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be {least} or more, not {text}")
        return number

    read.__name__ = "int"  # what argparse calls a text that is no number
    return read


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"must be from 0 to a million, not {text}")
    return seconds


def _limit(text: str) -> float:
    seconds = _seconds(text)
    if 0 < seconds < 1:
        raise argparse.ArgumentTypeError(f"must be a second or more, or 0 for none, not {text}")
    return seconds


_limit.__name__ = "float"


def _umask(text: str) -> int:
    if not 1 <= len(text) <= 4 or not set(text) <= set("01234567") or int(text, 8) > 0o777:
        raise argparse.ArgumentTypeError(f"must be octal, such as 027, not {text!r}")
    return int(text, 8)


def _certificate(text: str) -> str:
    if not text or "," in text:
        raise argparse.ArgumentTypeError(
            f"must be a file without a comma in its name, not {text!r}"
        )
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or any(c <= " " or c in "?#" or c > "~" for c in text):
        raise argparse.ArgumentTypeError(f"must be a path such as /healthz, not {text!r}")
    return text


def _root(text: str) -> str:
    if text and not text.startswith("/"):
        raise argparse.ArgumentTypeError(f"must begin with a slash, not {text!r}")
    return text.rstrip("/")


def _proxies(text: str) -> str:
    try:
        Trust(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; or unix: or *") from None
    return text


def _bind(text: str) -> str:
    if "?" in text:
        try:
            parse_qsl(text.partition("?")[2], keep_blank_values=True, strict_parsing=True)
        except ValueError:
            raise argparse.ArgumentTypeError(
                f"{text!r}: behind ? must stand options as key=value, joined by &"
            ) from None
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="iokernel serve",
        description="Serve an ASGI or WSGI application over HTTP/1.1. All of the network's work "
        "is done by a thread that never waits for Python.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("app", metavar="MODULE:APP", help="such as main:app; MODULE alone: its app or application")
    add(
        "-b", "--bind", action="append", default=[], type=_bind, metavar="ADDRESS",
        help=f"may be given several times (default {DEFAULT_BIND}, or what systemd passed on)",
    )  # fmt: skip
    _add_application(parser)
    _add_processes(parser)
    _add_network(parser)
    group = parser.add_argument_group("log")
    group.add_argument("--log-level", choices=LEVELS, default="info", help="(%(default)s)")
    group.add_argument(
        "--log-config", metavar="FILE",
        help="for logging.config: .json and .yaml as a dictionary, others as an ini file",
    )  # fmt: skip
    group.add_argument("--access-log", action="store_true", help="a line for each request")
    return parser


def _add_application(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("application").add_argument
    add(
        "--interface", choices=("auto", "asgi", "wsgi"), default="auto",
        help="what it speaks; auto: by what it takes",
    )  # fmt: skip
    add("--factory", action="store_true", help="APP is a function that makes the application")
    add(
        "--app-dir",
        default=".",
        metavar="DIR",
        help="where MODULE is looked for first (%(default)s)",
    )
    add("--env-file", metavar="FILE", help="lines NAME=VALUE for the environment, where not set")
    add(
        "--lifespan", choices=("auto", "on", "off"), default="auto",
        help="ASGI's start and end; auto: if the application knows it, on: it must",
    )  # fmt: skip
    add(
        "--loop", choices=("auto", "asyncio", "uvloop"), default="auto",
        help="the event loop; auto: asyncio's, as ours does no work of the network",
    )  # fmt: skip
    add(
        "--root-path", type=_root, default="", metavar="PATH",
        help="where a proxy has the application mounted",
    )  # fmt: skip


def _add_processes(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("processes and threads").add_argument
    add(
        "-w", "--workers", type=_number(0), default=None,
        metavar="N",
        help="processes (1, or WEB_CONCURRENCY); 0: none but the first, for debuggers",
    )  # fmt: skip
    add(
        "--threads",
        type=_number(1),
        default=4,
        metavar="N",
        help="of WSGI, per worker (%(default)s)",
    )
    add("--reload", action="store_true", help="new workers when a Python file changes")
    add(
        "--reload-dir", action="append", default=[], metavar="DIR",
        help="what to watch instead of --app-dir; several times",
    )  # fmt: skip
    add(
        "--graceful-timeout", type=_seconds, default=30.0, metavar="S",
        help="for requests under way at the end (%(default)s)",
    )  # fmt: skip
    add(
        "--limit-concurrency", type=_number(1), metavar="N",
        help="requests with an ASGI application at a time, per worker; further ones wait, then get "
        "503",
    )  # fmt: skip
    add(
        "--max-requests", type=_number(0), default=0, metavar="N",
        help="replace a worker when it has served so many, and lose none (0: never)",
    )  # fmt: skip
    add(
        "--max-requests-jitter", type=_number(0), default=0, metavar="N",
        help="and up to so many more, by chance, so that not all are replaced at a time (0)",
    )  # fmt: skip
    add(
        "--timeout", type=_limit, default=0.0, metavar="S",
        help="replace a worker whose event loop, or all of whose threads, have not moved for so "
        "long (0: never)",
    )  # fmt: skip
    add(
        "--start-timeout", type=_limit, default=0.0, metavar="S",
        help="for a worker to load the application and to be ready (0: any)",
    )  # fmt: skip
    add("--pid", metavar="FILE", help="write the pid of the first process there, while it runs")
    add(
        "--umask", type=_umask, metavar="MODE",
        help="of all processes, in octal (as it is); a unix socket's mode is by it, too",
    )  # fmt: skip


def _add_network(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("network").add_argument
    add(
        "--health", type=_path, metavar="PATH",
        help="answered by the I/O thread, whatever the application does",
    )  # fmt: skip
    add(
        "--forwarded-allow-ips", metavar="IPS", type=_proxies,
        default=os.environ.get("FORWARDED_ALLOW_IPS") or "127.0.0.1,::1,unix:",
        help="addresses and networks of proxies whose X-Forwarded-For and -Proto, or Forwarded, "
        "are believed; unix: for unix sockets, * for all (%(default)s)",
    )  # fmt: skip
    add(
        "--proxy-protocol", action="store_true",
        help="connections begin with its line, and come from those proxies only",
    )  # fmt: skip
    add(
        "--ssl-certfile", action="append", default=[], type=_certificate, metavar="FILE",
        help="serve TLS with this certificate chain; several times: chosen by the name that the "
        "client asks for, else the first",
    )  # fmt: skip
    add(
        "--ssl-keyfile", action="append", default=[], type=_certificate, metavar="FILE",
        help="its key, if that is not in the same file; as often as --ssl-certfile",
    )  # fmt: skip
    add(
        "--ssl-keyfile-password-file", metavar="FILE",
        help=f"the password of the keys, in one line; or in the environment, as {PASSWORD}",
    )  # fmt: skip
    add("--ssl-ca-certs", metavar="FILE", help="ask clients for certificates of these authorities")


def _web_concurrency(parser: argparse.ArgumentParser) -> int:
    text = os.environ.get("WEB_CONCURRENCY") or "1"
    if not text.isascii() or not text.isdigit():
        parser.error(f"WEB_CONCURRENCY must be a number of workers, 0 or more, not {text!r}")
    return int(text)


def _check_tls(parser: argparse.ArgumentParser, options: Options) -> None:
    if not options.ssl_certfile:
        for name in ("ssl_keyfile", "ssl_keyfile_password_file", "ssl_ca_certs"):
            if getattr(options, name):
                parser.error(f"--{name.replace('_', '-')} needs --ssl-certfile")
    if options.ssl_keyfile and len(options.ssl_keyfile) != len(options.ssl_certfile):
        parser.error("--ssl-keyfile must be given as often as --ssl-certfile, or never")


def parse(words: list[str] | None) -> Options:
    """Read the command line, or end the process with status 2."""
    parser = _parser()
    given = vars(parser.parse_args(words))
    given["ssl_keyfile_password"] = os.environ.pop(PASSWORD, None)  # none of the application's
    if given["workers"] is None:
        given["workers"] = _web_concurrency(parser)
    options = Options(**given)
    _check_tls(parser, options)
    for name in ("reload", "max_requests", "timeout", "start_timeout"):
        if getattr(options, name) and options.workers == 0:
            parser.error(f"--{name.replace('_', '-')} needs a worker: --workers 1 or more")
    if options.max_requests_jitter and not options.max_requests:
        parser.error("--max-requests-jitter needs --max-requests")
    if options.loop == "uvloop":
        try:
            import uvloop  # noqa: F401
        except ImportError:
            parser.error("--loop uvloop: uvloop is not installed")
    return options
