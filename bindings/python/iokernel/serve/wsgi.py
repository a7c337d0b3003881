"""A worker that serves a WSGI application (PEP 3333) on a pool of threads.

The threads of a listener share a port and take its requests in turns: iokernel._core.Crew says
which is next. iokernel._core.Wsgi makes the environ and takes the answer; what PEP 3333 says of
start_response, write and iterables is here.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any

from iokernel import _core
from iokernel.serve.asgi import server_of
from iokernel.serve.forwarded import Trust
from iokernel.serve.log import access, log
from iokernel.serve.options import Options
from iokernel.serve.pulse import Pulse
from iokernel.serve.worker import Role

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType]

BLOCK_BYTES = 65536
UNREAD = (
    "max_unread=1m"  # of an answer: the kernel keeps it for a slow client, and the thread goes on
)


class FileWrapper:
    """wsgi.file_wrapper: a file as an iterable of blocks."""

    def __init__(self, file: Any, block_bytes: int = BLOCK_BYTES) -> None:
        self._file = file
        self._block_bytes = block_bytes
        if hasattr(file, "close"):
            self.close = file.close

    def __iter__(self) -> FileWrapper:
        return self

    def __next__(self) -> bytes:
        block: bytes = self._file.read(self._block_bytes)
        if not block:
            raise StopIteration
        return block


class Body(io.RawIOBase):
    """A request's body that comes in parts; io.BufferedReader makes lines and sizes of it."""

    def __init__(self, taker: _core.Wsgi) -> None:
        self._taker: _core.Wsgi | None = taker
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for bytes; 0 at the body's end."""
        if not self._rest and self._taker is not None:
            self._rest = memoryview(self._taker.read())
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n

    def forget(self) -> None:
        """The request is over: what the application kept of it has ended."""
        self._taker = None
        self._rest = memoryview(b"")


class Answer:
    """One request's answer; start_response and write are methods of it."""

    def __init__(self, taker: _core.Wsgi) -> None:
        self._taker = taker
        self._head: tuple[int, str, list[tuple[str, str]]] | None = None
        self.sent = False  # the head has gone out
        self._whole = False  # and all of the body with it

    @property
    def status(self) -> int:
        """0 before start_response."""
        return self._head[0] if self._head is not None else 0

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """As PEP 3333 has it."""
        if exc_info is not None:
            try:
                if self.sent:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # no cycle through the traceback's frames
        elif self._head is not None:
            raise AssertionError("start_response was called twice, and without exc_info")
        self._head = (*_read_status(status), _check_headers(headers))
        return self.write

    def write(self, data: bytes) -> None:
        """Send a part of the body now."""
        if type(data) is not bytes:
            raise TypeError(f"the body must be bytes, not {type(data).__name__}")
        if self._whole:
            raise ValueError("the body has more bytes than its Content-Length says")
        if not self.sent:
            self._taker.start(*self._checked_head())
            self.sent = True
        if data:
            self._taker.write(data)

    def _checked_head(self) -> tuple[int, str, list[tuple[str, str]]]:
        if self._head is None:
            raise AssertionError("a body came before start_response was called")
        return self._head

    def _answer(self, data: bytes) -> None:
        """Send all there is, in one piece."""
        self._taker.answer(*self._checked_head(), data)
        self.sent = self._whole = True

    def run(self, body: Iterable[bytes]) -> None:
        """Send what the application returned, and end.

        What is known to be all goes out in one piece: a list of one, a first part as long as
        Content-Length says, or an iterable that says that it is no stream (Django's).
        """
        if not self.sent and type(body) in (list, tuple) and len(body) == 1:  # type: ignore[arg-type]
            body = iter(body)
            data = next(body)
            if type(data) is bytes:
                self._answer(data)
            else:
                self.write(data)
        elif not self.sent and getattr(body, "streaming", True) is False:
            self._answer(b"".join(body))
        else:
            for data in body:
                if type(data) is not bytes or self.sent or (data and not self._is_all(data)):
                    self.write(data)
                elif data:
                    self._answer(data)
        if not self.sent:
            if self._head is None:
                raise AssertionError("the application ended without a call of start_response")
            self._answer(b"")
        elif not self._whole:
            self._whole = True  # whether that goes well or not
            self._taker.end()

    def _is_all(self, data: bytes) -> bool:
        length = str(len(data))
        return any(
            value == length and name.lower() == "content-length"
            for name, value in self._checked_head()[2]
        )

    def fail(self) -> None:
        """The application failed: 500, or break off what has begun."""
        if not self.sent:
            self._head = (500, "Internal Server Error", [("content-type", "text/plain")])
            self._answer(b"Internal Server Error")
        elif not self._whole:
            self._taker.fail()


def _read_status(status: str) -> tuple[int, str]:
    if type(status) is not str:
        raise TypeError(f"the status must be a str, not {type(status).__name__}")
    code, _, reason = status.partition(" ")
    if len(code) != 3 or not code.isdecimal():
        raise ValueError(f"the status must be as '200 OK', not {status!r}")
    return int(code), reason


def _check_headers(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    if type(headers) is not list:
        raise TypeError(f"the headers must be a list, not {type(headers).__name__}")
    for pair in headers:
        if type(pair) is not tuple or len(pair) != 2:
            raise TypeError("each header must be a tuple (name, value)")
        for text in pair:
            if type(text) is not str:
                raise TypeError(f"header {pair[0]!r}: must be str, not {type(text).__name__}")
    return headers


class Pool:
    """The threads of one worker."""

    def __init__(self, app: App, options: Options, role: Role) -> None:
        self.app = app
        self.options = options
        self.listeners = [_core.Listener(_patient(url)) for url in role.urls]
        self._crews = [_core.Crew(listener, options.threads) for listener in self.listeners]
        self._trust = Trust(options.forwarded_allow_ips)
        self._supervised = role.alive_fd >= 0
        self._lock = threading.Lock()
        self.ended = threading.Event()
        self._running = 0
        self._threads = [
            threading.Thread(
                target=self._run, args=(crew, server_of(url)), name=f"wsgi-{n}", daemon=True
            )
            for crew, url in zip(self._crews, role.urls, strict=True)
            for n in range(options.threads)
        ]

    def start(self) -> None:
        """Run them."""
        self._running = len(self._threads)
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Take no more; the threads end when nothing is left to answer."""
        for listener in self.listeners:
            listener.close(self.options.graceful_timeout)

    def _environ(self, server: tuple[str, int | None]) -> dict[str, Any]:
        return {
            "SCRIPT_NAME": self.options.root_path,
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1] or (443 if self.options.ssl_certfile else 80)),
            "SERVER_SOFTWARE": f"iokernel/{_core.version}",
            "wsgi.version": (1, 0),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": len(self._threads) > 1,
            "wsgi.multiprocess": self._supervised,  # at a restart there are two, at least
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
            "wsgi.file_wrapper": FileWrapper,
        }

    def _run(self, crew: _core.Crew, server: tuple[str, int | None]) -> None:
        try:
            taker = _core.Wsgi(crew, self._environ(server), self._trust)
            while True:
                try:
                    environ = taker.next()
                except ValueError as error:  # of the last answer
                    log.error("an answer was refused, and became a 500: %s", error)
                    continue
                if environ is None:
                    return
                self._serve(taker, environ)
        except BaseException:
            log.critical("a thread of the pool failed", exc_info=True)
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            with self._lock:
                self._running -= 1
                if self._running == 0:
                    self.ended.set()

    def _serve(self, taker: _core.Wsgi, environ: dict[str, Any]) -> None:
        began = time.perf_counter()
        answer = Answer(taker)
        body = None
        if environ["wsgi.input"] is None:
            body = Body(taker)
            environ["wsgi.input"] = io.BufferedReader(body)
        try:
            result = self.app(environ, answer.start_response)
            try:
                answer.run(result)
            finally:
                if hasattr(result, "close"):
                    result.close()
        except _core.ClientGone:
            log.debug("%s: the client has gone", environ["REQUEST_URI"])
        except BaseException:  # sys.exit() ends its request, too, and not the server
            log.error(
                "%s %s: the application failed",
                environ["REQUEST_METHOD"], environ["REQUEST_URI"], exc_info=True,
            )  # fmt: skip
            with contextlib.suppress(Exception):  # what is left of it next() brings to an end
                answer.fail()
        finally:
            if body is not None:
                body.forget()
        if self.options.access_log:
            _log_access(environ, answer.status, time.perf_counter() - began)


def _patient(url: str) -> str:
    """Give the listener's URL with our own default, unless it says otherwise."""
    return url if "max_unread=" in url else f"{url}{'&' if '?' in url else '?'}{UNREAD}"


def _log_access(environ: dict[str, Any], status: int, seconds: float) -> None:
    access.info(
        '%s:%s "%s %s %s" %d %.1fms',
        environ.get("REMOTE_ADDR", "-"), environ.get("REMOTE_PORT", ""), environ["REQUEST_METHOD"],
        environ["REQUEST_URI"], environ["SERVER_PROTOCOL"], status, seconds * 1000,
    )  # fmt: skip


class _Signals:
    """What tells a worker to end: SIGTERM, or the end of its parent; and SIGQUIT, at once.

    A process that has no parent takes a second SIGTERM for that, and SIGINT for SIGTERM. One that
    has may get SIGTERM twice, as systemd tells all processes, and then the parent does. Other
    signals are the application's affair.
    """

    def __init__(self, role: Role) -> None:
        self.at_once = False
        self._told = False
        self._supervised = role.alive_fd >= 0
        self._alive_fd = role.alive_fd
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write_fd, warn_on_full_buffer=False)
        self._ending = {signal.SIGTERM} if self._supervised else {signal.SIGTERM, signal.SIGINT}
        for number in self._ending | {signal.SIGQUIT}:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        """Nothing: its number is written to the pipe."""

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for something for so long; tell whether the process is to end."""
        fds = [self._read_fd] + ([self._alive_fd] if self._alive_fd >= 0 else [])
        ready, _, _ = select.select(fds, [], [], timeout_s)
        if self._alive_fd in ready:
            log.error("the parent process has gone: ending")
            self._alive_fd = -1
            self._told = True
        if self._read_fd in ready:
            for number in os.read(self._read_fd, 4096):
                if number == signal.SIGQUIT:
                    self._told = self.at_once = True
                elif number in self._ending:
                    self.at_once |= self._told and not self._supervised
                    self._told = True
        return self._told


def run(app: App, options: Options, role: Role) -> int:
    """Serve; give the exit status. An Error of the listener if it cannot start."""
    signals = _Signals(role)
    pool = Pool(app, options, role)
    pool.start()
    role.tell_ready("wsgi")
    if role.alive_fd < 0:
        log.info("serving %s (WSGI)", ", ".join(listener.name for listener in pool.listeners))
    pulse = Pulse(options, role, pool.listeners)
    while not signals.wait(pulse.every_s):
        pulse.look(threads=True)
    if role.alive_fd < 0:
        log.info("ending")
    pool.close()
    end = time.monotonic() + options.graceful_timeout
    while not pool.ended.is_set():
        signals.wait(0.02)
        pulse.look()
        if signals.at_once or time.monotonic() >= end:
            log.warning("requests are cut off")
            break
    return 0
