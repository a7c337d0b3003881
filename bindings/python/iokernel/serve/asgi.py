"""A worker that serves an ASGI application: the event loop, lifespan, and the end.

The requests themselves never come here: iokernel._core.Asgi takes them from the kernel, runs the
application's coroutines and sends what they say.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
import urllib.parse
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from iokernel import _core
from iokernel.serve.forwarded import Trust
from iokernel.serve.log import access, enable, log
from iokernel.serve.options import Options
from iokernel.serve.pulse import Pulse
from iokernel.serve.worker import PATIENCE_S, Role, StartError

LOOK_S = 0.02  # how often the end looks whether the last request has been answered
CUT_S = 1.0  # for tasks to take notice that they are cancelled
SPARE_S = 1.0  # before the parent's patience ends, to leave in good order

App = Callable[..., Awaitable[None]]
Message = MutableMapping[str, Any]


class Lifespan:
    """The application's start and end, by ASGI's lifespan protocol."""

    def __init__(self, app: App, mode: str) -> None:
        self.state: dict[str, Any] = {}
        self._app = app
        self._mode = mode
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._told: asyncio.Queue[Message | None] = asyncio.Queue()  # None: the task has ended
        self._task: asyncio.Task[None] | None = None
        self._error: BaseException | None = None

    async def _main(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self.state,
        }
        try:
            await self._app(scope, self._inbox.get, self._send)
        except Exception as error:
            self._error = error
        finally:
            self._told.put_nowait(None)

    async def _send(self, message: Message) -> None:
        if not str(message.get("type")).startswith("lifespan."):
            raise RuntimeError(f"{message.get('type')!r} is no message of lifespan")
        self._told.put_nowait(message)

    async def start(self) -> None:
        """Return when the application is ready; StartError if it refuses."""
        if self._mode == "off":
            return
        self._task = asyncio.get_running_loop().create_task(self._main())
        self._inbox.put_nowait({"type": "lifespan.startup"})
        told = await self._told.get()
        if told is None:
            self._task = None
            if self._mode == "on":
                why = f": {self._error!r}" if self._error is not None else ""
                raise StartError(f"the application does not support lifespan{why}") from self._error
            if self._error is not None:
                log.debug("the application does not support lifespan: %r", self._error)
        elif told["type"] == "lifespan.startup.failed":
            raise StartError(
                f"the application refused to start: {told.get('message') or 'it does not say why'}"
            )
        elif told["type"] != "lifespan.startup.complete":
            raise StartError(f"the application answered lifespan.startup by {told['type']}")

    async def stop(self, timeout_s: float, at_once: asyncio.Event) -> None:
        """Tell it of the end, and wait for it."""
        if self._task is None:
            return
        self._inbox.put_nowait({"type": "lifespan.shutdown"})
        told_task = asyncio.ensure_future(self._told.get())
        if not await _first(told_task, at_once, timeout_s):
            how = "was cut off" if at_once.is_set() else "did not end in time"
            log.error("the application's shutdown %s", how)
            return
        told = told_task.result()
        if told is None and self._error is not None:
            log.error("the application's shutdown failed", exc_info=self._error)
        elif told is not None and told["type"] == "lifespan.shutdown.failed":
            log.error("the application's shutdown failed: %s", told.get("message") or "")


async def _first(task: asyncio.Future[Any], event: asyncio.Event, timeout_s: float | None) -> bool:
    """Tell whether the task ended before the event came and the time was up; else cancel it."""
    waiter = asyncio.ensure_future(event.wait())
    await asyncio.wait({task, waiter}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if not task.done():
        task.cancel()
        return False
    return True


def server_of(url: str) -> tuple[str, int | None]:
    """Give what scope["server"] says of a listener."""
    fd = int(urllib.parse.parse_qs(url.partition("?")[2])["fd"][0])
    with socket.socket(fileno=fd) as s:
        name = s.getsockname()
        family = s.family
        s.detach()
    return (str(name), None) if family == socket.AF_UNIX else (name[0], name[1])


def _on_error(scope: dict[str, Any], error: BaseException | None, gone: bool) -> None:
    what = f"{scope.get('method', scope['type'])} {scope['raw_path'].decode('latin-1')}"
    if gone:
        log.debug("%s: the client had gone: %r", what, error)
    elif error is None:
        log.error("%s: the application returned without an answer", what)
    else:
        log.error("%s: the application failed", what, exc_info=error)


def _on_access(scope: dict[str, Any], status: int, seconds: float) -> None:
    client = scope.get("client")
    where = f"{client[0]}:{client[1]}" if client else "-"
    target = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    access.info(
        '%s "%s %s%s HTTP/%s" %d %.1fms',
        where, scope.get("method", "GET"), target, f"?{query}" if query else "",
        scope["http_version"], status, seconds * 1000,
    )  # fmt: skip


class Server:
    """One worker's listeners with one application."""

    def __init__(self, app: App, options: Options, role: Role) -> None:
        self.options = options
        self.role = role
        self.app = app
        self.lifespan = Lifespan(app, options.lifespan)
        self.served: list[_core.Asgi] = []
        self._end = asyncio.Event()
        self._at_once = asyncio.Event()
        self._ended_at: float | None = None
        self._beats: asyncio.Future[None] | None = None

    def _on_signal(self, number: signal.Signals) -> None:
        """End. SIGQUIT: at once; without a parent, which would say so, also a second SIGTERM.

        A worker may get SIGTERM twice for one wish: systemd signals all processes of a unit, and
        then the parent hands its own on.
        """
        supervised = self.role.alive_fd >= 0
        if number == signal.SIGQUIT or (self._end.is_set() and not supervised):
            self._at_once.set()
        elif not supervised:
            log.info("ending")
        self._set_end()

    def _on_parent_gone(self) -> None:
        asyncio.get_running_loop().remove_reader(self.role.alive_fd)
        log.error("the parent process has gone: ending")
        self._set_end()

    def _set_end(self) -> None:
        if not self._end.is_set():
            self._ended_at = time.monotonic()
            self._end.set()

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        numbers = [signal.SIGTERM, signal.SIGQUIT]
        if self.role.alive_fd < 0:
            numbers.append(signal.SIGINT)
        else:
            loop.add_reader(self.role.alive_fd, self._on_parent_gone)
        for number in numbers:
            loop.add_signal_handler(number, self._on_signal, number)

    async def run(self) -> int:
        """Serve until told to end."""
        self._watch()
        start = asyncio.ensure_future(self.lifespan.start())
        if not await _first(start, self._end, None):
            log.warning("told to end before the application had started")
            return 0
        start.result()
        enable(self.options.access_log)
        try:
            for url in self.role.urls:
                self.served.append(self._serve(url))
            self.role.tell_ready("asgi")
            if self.role.alive_fd < 0:
                log.info("serving %s (ASGI)", ", ".join(a.listener.name for a in self.served))
            self._beats = asyncio.ensure_future(self._beat())
            await self._end.wait()
            await self._drain()
        finally:
            patience = self.options.graceful_timeout + PATIENCE_S - SPARE_S
            ended_at = self._ended_at or time.monotonic()  # else a listener failed
            rest = ended_at + patience - time.monotonic()
            await self.lifespan.stop(rest, self._at_once)
        return 0

    async def _beat(self) -> None:
        """Tell the parent, until all has ended, that the loop moves."""
        pulse = Pulse(self.options, self.role, [served.listener for served in self.served])
        while pulse.every_s is not None:
            await asyncio.sleep(pulse.every_s)
            pulse.look()

    def _serve(self, url: str) -> _core.Asgi:
        return _core.Asgi(
            self.app,
            _core.Listener(url),
            server=server_of(url),
            root_path=self.options.root_path,
            state=self.lifespan.state,
            trust=Trust(self.options.forwarded_allow_ips),
            on_error=_on_error,
            on_access=_on_access if self.options.access_log else None,
            calls_max=self.options.limit_concurrency or 0,
        )

    async def _drain(self) -> None:
        """Answer what is under way, for as long as that may take."""
        end = time.monotonic() + self.options.graceful_timeout
        for served in self.served:
            served.close(self.options.graceful_timeout)
        # Those that the application has answered already may be on their way to slow clients.
        while any(served.busy or served.open for served in self.served):
            if self._at_once.is_set() or time.monotonic() >= end:
                log.warning("%d requests are cut off", sum(served.busy for served in self.served))
                for served in self.served:
                    served.cancel()
                await self._take_notice()
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._at_once.wait(), LOOK_S)

    async def _take_notice(self) -> None:
        end = time.monotonic() + CUT_S
        while any(served.busy for served in self.served) and time.monotonic() < end:
            await asyncio.sleep(LOOK_S)


def run(app: App, options: Options, role: Role) -> int:
    """Serve; give the exit status. StartError, or an Error of the listener, if it cannot start."""

    async def serve() -> int:
        return await Server(app, options, role).run()

    if options.loop == "uvloop":
        import uvloop

        return int(uvloop.run(serve()))
    return asyncio.run(serve())
