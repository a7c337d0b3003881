"""A TCP proxy that hurts: late, slow, cut at an exact byte, half closed, silent, paused, refusing.

In tests it runs on a thread of its own, and is told what to do by the test:

    with Proxy(server.port) as proxy, sync.connect(f"redis://127.0.0.1:{proxy.port}") as client:
        proxy.pause()

As a program (`python proxy.py SERVER_PORT --delay 0.001`) it prints its port and runs until its
standard input ends. It knows nothing of the protocol that passes through.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

CHUNK = 65536
CHUNKS_MAX = 256
"""So many chunks wait in each direction of a connection; then nothing more is read."""


class _Way:
    """One direction of a connection."""

    def __init__(self, source: socket.socket, target: socket.socket, limit: int | None) -> None:
        self.source = source
        self.target = target
        self.limit = limit  # bytes that may pass; None: all
        self.passed = 0
        self.queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(CHUNKS_MAX)
        self.due = 0.0  # of the newest chunk: order is kept, whatever the delays are


class _Link:
    """A connection of a client, and the one to the server that was made for it."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.up: _Way | None = None
        self.down: _Way | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self.cut = False


class Proxy:
    """Listens on `port` of 127.0.0.1 and passes on to another port there.

    `delay_up` and `delay_down` (seconds, each chunk; and up to `jitter` more by chance) and `rate`
    (bytes a second in each direction, None: no limit) may be changed at any time. `accepted` counts
    connections, `cuts` those that the proxy cut, `passed_up` and `passed_down` bytes.
    """

    def __init__(
        self, server_port: int, *, delay: float = 0.0, jitter: float = 0.0, seed: int = 0
    ) -> None:
        self.server_port = server_port
        self.delay_up = self.delay_down = delay
        self.jitter = jitter
        self.rate: float | None = None
        self.silent = False
        """Connections are accepted from now on, and nothing ever comes or goes."""
        self.reset = False
        """Clients see a cut as a reset; else as an orderly end."""
        self.accepted = 0
        self.cuts = 0
        self.passed_up = 0
        self.passed_down = 0
        self._chance = random.Random(seed)
        self._next_cut: tuple[int | None, int | None] = (None, None)
        self._links: set[_Link] = set()
        self._drains: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._running = asyncio.Event()
        self._running.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._reserved: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._main, name="proxy")
        self._thread.start()
        self._do(self._start_accepting)

    # ---- what a test asks for ----

    @property
    def open(self) -> int:
        """Connections to the server that it has not closed yet, be they cut or not."""
        return len(self._links) + self.draining

    @property
    def draining(self) -> int:
        """Those that were cut: once it is 0, the server has acted on all that it got."""
        return len(self._drains)

    def cut_next(self, *, up: int | None = None, down: int | None = None) -> None:
        """Cut the next connection when so many bytes went to the server, or to the client.

        Exactly these bytes arrive. The server sees an orderly end after them, so that it acts on
        them; what it answers later is thrown away.
        """
        self._next_cut = (up, down)

    def cut(self) -> None:
        """Cut all connections now."""
        self._do(lambda: [self._cut(link) for link in list(self._links)])

    def half_close(self) -> None:
        """End what the server says, on all connections: clients may go on sending."""

        def end() -> None:
            for link in self._links:
                link.client.shutdown(socket.SHUT_WR)

        self._do(end)

    def pause(self) -> None:
        """Let nothing pass; connections stay open, and what comes waits."""
        self._do(self._running.clear)

    def resume(self) -> None:
        """End a pause."""
        self._do(self._running.set)

    def refuse(self) -> None:
        """Refuse new connections; the others stay."""

        def stop() -> None:
            self._stop_accepting()
            self._listener.close()
            # Bound but not listening: nobody else gets the port.
            self._reserved = socket.socket()
            self._reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._reserved.bind(("127.0.0.1", self.port))

        self._do(stop)

    def admit(self) -> None:
        """Accept connections again after `refuse`."""

        def start() -> None:
            assert self._reserved is not None
            self._listener, self._reserved = self._reserved, None
            self._listener.listen(128)
            self._start_accepting()

        self._do(start)

    def close(self) -> None:
        """End all."""

        async def end() -> None:
            self._stop_accepting()
            tasks = [task for link in self._links for task in link.tasks] + list(self._drains)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for link in list(self._links):
                self._forget(link)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._listener.close()
        if self._reserved is not None:
            self._reserved.close()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- its own thread ----

    def _main(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _do(self, what: Callable[[], T]) -> T:
        async def run() -> T:
            return what()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _start_accepting(self) -> None:
        self._listener.setblocking(False)
        self._accepting = self._loop.create_task(self._accept())

    def _stop_accepting(self) -> None:
        if self._accepting is not None:
            self._accepting.cancel()
            self._loop.remove_reader(self._listener)
            self._accepting = None

    async def _accept(self) -> None:
        while True:
            client, _ = await self._loop.sock_accept(self._listener)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            link = _Link(client)
            self._links.add(link)
            if not self.silent:
                link.tasks.append(self._loop.create_task(self._serve(link)))

    async def _serve(self, link: _Link) -> None:
        (up, down), self._next_cut = self._next_cut, (None, None)
        link.server = server = socket.socket()
        server.setblocking(False)
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await self._loop.sock_connect(server, ("127.0.0.1", self.server_port))
        except OSError:
            self._forget(link)
            return
        link.up = _Way(link.client, server, up)
        link.down = _Way(server, link.client, down)
        pumps = [
            pump
            for way in (link.up, link.down)
            for pump in (self._read(link, way), self._write(link, way))
        ]
        tasks = [self._loop.create_task(pump) for pump in pumps]
        link.tasks += tasks
        await asyncio.gather(*tasks, return_exceptions=True)
        if not link.cut:
            self._forget(link)

    async def _read(self, link: _Link, way: _Way) -> None:
        data = b"x"
        while data:
            try:
                data = await self._loop.sock_recv(way.source, CHUNK)
            except OSError:
                data = b""
            delay = self.delay_up if way is link.up else self.delay_down
            late = delay + self._chance.random() * self.jitter
            way.due = max(way.due, self._loop.time() + late)
            await way.queue.put((way.due, data))

    async def _write(self, link: _Link, way: _Way) -> None:
        data = b"x"
        while data:
            due, data = await way.queue.get()
            now = self._loop.time()
            if due > now:
                await asyncio.sleep(due - now)
            if self.rate is not None:
                await asyncio.sleep(len(data) / self.rate)
            await self._running.wait()
            try:
                await self._pass(link, way, data)
            except OSError:  # the other side is gone; its reader tells
                return

    async def _pass(self, link: _Link, way: _Way, data: bytes) -> None:
        if not data:
            way.target.shutdown(socket.SHUT_WR)
            return
        if way.limit is not None:
            data = data[: way.limit - way.passed]
        await self._loop.sock_sendall(way.target, data)
        way.passed += len(data)
        if way is link.up:
            self.passed_up += len(data)
        else:
            self.passed_down += len(data)
        if way.passed == way.limit:
            self._cut(link)

    def _cut(self, link: _Link) -> None:
        if link.cut:
            return
        link.cut = True
        self.cuts += 1
        current = asyncio.current_task()
        for task in link.tasks:
            if task is not current:
                task.cancel()
        if self.reset:
            link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if link.server is not None and link.up is not None:
            drain = self._loop.create_task(self._drain(link.server))
            self._drains.add(drain)
            drain.add_done_callback(self._drains.discard)
            link.server = None
        self._forget(link)

    async def _drain(self, server: socket.socket) -> None:
        """Let the server act on what it got: a reset now could make it throw that away."""
        with contextlib.closing(server), contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)
            while await self._loop.sock_recv(server, CHUNK):
                pass

    def _forget(self, link: _Link) -> None:
        self._links.discard(link)
        for end in (link.client, link.server):
            if end is not None:
                self._loop.remove_reader(end)
                self._loop.remove_writer(end)
                end.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("server_port", type=int)
    parser.add_argument("--delay", type=float, default=0.0, help="seconds, each way")
    parser.add_argument("--jitter", type=float, default=0.0, help="up to so many seconds more")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with Proxy(args.server_port, delay=args.delay, jitter=args.jitter, seed=args.seed) as proxy:
        print(proxy.port, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
