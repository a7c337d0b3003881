"""The WebSocket client against the package websockets, and against a server that does as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import websockets
from iokernel import sync
from iokernel.asyncio import Http, UpgradeError, WebSocketClosed, connect
from iokernel.errors import Error, Timeout
from kit.help import auntil, until
from websockets.asyncio.server import ServerConnection, serve
from wsecho.wire import Wire

LARGE = "x\u1234\U0001f600" * 200_000


async def behave(ws: ServerConnection) -> None:
    """Echo; but some messages mean something."""
    assert ws.request is not None
    with contextlib.suppress(websockets.ConnectionClosed):
        if ws.request.path == "/burst":
            for _ in range(20_000):
                await ws.send("")
            await ws.send("end")
        if ws.request.path == "/two":
            await ws.send("one")
            await ws.send("two")
            await ws.close(1000)
        async for message in ws:
            if message == "bye":
                await ws.close(3001, "as you wish")
                return
            await ws.send(message)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Http]:
    """A client of a server of websockets."""
    choose = {"select_subprotocol": lambda _, offered: "v2" if "v2" in offered else None}
    async with serve(behave, "127.0.0.1", 0, max_size=1 << 24, **choose) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with contextlib.closing(connect(f"http://127.0.0.1:{port}", kind=Http)) as web:
            yield web


def first_to_speak(listener: socket.socket, stack: contextlib.ExitStack) -> socket.socket:
    """A connection with a request on it; clients have others in store."""
    waiting = [listener]
    while True:
        for ready in select.select(waiting, [], [], 60)[0]:
            if ready is listener:
                waiting.append(stack.enter_context(listener.accept()[0]))
            elif ready.recv(1, socket.MSG_PEEK):
                return ready
            else:
                waiting.remove(ready)


@contextlib.contextmanager
def script(play: Callable[[Wire], None]) -> Iterator[str]:
    """A server that does as the test says with one connection; its URL."""
    failed: list[BaseException] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            try:
                with contextlib.ExitStack() as stack:
                    play(Wire(first_to_speak(listener, stack), client=False))
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join(60)
        assert not thread.is_alive() and not failed, failed


@pytest.mark.parametrize("compression", [True, False])
def test_messages(compression: bool) -> None:
    """Texts, bytes, large ones, a ping between; and both sides close."""

    async def main() -> None:
        async with (
            serving() as web,
            await web.websocket("/", protocols=["v1", "v2"], compression=compression) as ws,
        ):
            assert ws.protocol == "v2"
            assert ("sec-websocket-extensions" in ws.headers) == compression
            for message in ("h\u00e9llo", b"\x00\xff", "", b"", LARGE, LARGE.encode()):
                await ws.send(message)
                assert await ws.recv() == message
            await ws.ping(b"payload")
            await ws.send(memoryview(b"behind"))
            assert (await ws.recv(), ws.last_pong) == (b"behind", b"payload")
            await ws.close(4000, "done")
            assert (ws.close_code, ws.close_reason) == (4000, "done")
            await ws.close()
            with pytest.raises(WebSocketClosed) as closed:
                await ws.recv()
            assert closed.value.close_code == 4000 and closed.value.clean
            with pytest.raises(WebSocketClosed):
                await ws.send("late")

    asyncio.run(main())


def test_server_closes() -> None:
    """Iteration ends at an ordinary close, and raises at another."""

    async def main() -> None:
        async with serving() as web:
            async with await web.websocket("/two") as ws:
                assert [message async for message in ws] == ["one", "two"]
                assert ws.close_code == 1000
            ws = await web.websocket("/")
            await ws.send("bye")
            with pytest.raises(WebSocketClosed, match="3001 .as you wish.") as closed:
                async for _ in ws:
                    pass
            assert closed.value.reason == "as you wish" and closed.value.clean
            await ws.close()

    asyncio.run(main())


def test_slow_program() -> None:
    """Many tiny messages for a program that does not take them: they wait, and none is lost."""

    async def main() -> None:
        async with serving() as web, await web.websocket("/burst") as ws:
            await asyncio.sleep(0.5)
            n = 0
            while await ws.recv() != "end":
                n += 1
            assert n == 20_000

    asyncio.run(main())


def test_tasks() -> None:
    """One task receives while others send; a receiver that gives up loses nothing."""

    async def main() -> None:
        async with serving() as web, await web.websocket("/") as ws:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ws.recv(), 0.05)
            receiver = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await ws.recv()
            await asyncio.gather(*(ws.send(str(i)) for i in range(100)))
            seen = [await receiver] + [await ws.recv() for _ in range(99)]
            assert sorted(seen, key=int) == [str(i) for i in range(100)]
            receiver = asyncio.ensure_future(ws.recv())
            await asyncio.sleep(0)
            await ws.close()
            with pytest.raises(WebSocketClosed):
                await receiver

    asyncio.run(main())


def test_several() -> None:
    """Each has a connection of its own, and requests go on beside them."""

    async def main() -> None:
        async with serving() as web:
            sockets = [await web.websocket("/") for _ in range(8)]
            await asyncio.gather(*(ws.send(f"to {i}") for i, ws in enumerate(sockets)))
            assert [await ws.recv() for ws in sockets] == [f"to {i}" for i in range(8)]
            assert (await web.get("/")).status == 426
            await asyncio.gather(*(ws.close() for ws in sockets))
            async with await web.websocket("/") as ws:
                await ws.send("again")
                assert await ws.recv() == "again"

    asyncio.run(main())


def test_refused() -> None:
    """A server that does not want to, and what cannot be sent."""

    def refuse(wire: Wire) -> None:
        wire.sock.recv(65536)
        wire.sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 4\r\n\r\nnope")

    with script(refuse) as url, sync.connect(url, kind=sync.Http) as web:
        with pytest.raises(UpgradeError) as refused:
            web.websocket("/")
        assert (refused.value.response.status, refused.value.response.body) == (403, b"nope")

    async def main() -> None:
        async with serving() as web, await web.websocket("/") as ws:
            with pytest.raises(ValueError, match="1006"):
                await ws.close(1006)
            with pytest.raises(ValueError, match="123"):
                await ws.close(1000, "r" * 124)
            with pytest.raises(ValueError, match="125"):
                await ws.ping(b"p" * 126)
            await ws.send("still there")
            assert await ws.recv() == "still there"

    asyncio.run(main())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (b"Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n", "Accept"),
        (b"Sec-WebSocket-Protocol: other\r\n", "subprotocol"),
        (b"Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99\r\n", "deflate"),
    ],
)
def test_wrong_answers(change: bytes, text: str) -> None:
    """A server whose 101 is not what was asked for."""

    def answer(wire: Wire) -> None:
        sock = wire.sock
        send = sock.sendall
        tail = b"\r\n\r\n"

        class Changed:
            """The socket, with the answer changed on its way."""

            def __getattr__(self, name: str) -> object:
                return getattr(sock, name)

            def sendall(self, data: bytes) -> None:
                send(data.removesuffix(tail) + b"\r\n" + change + b"\r\n")

        wire.sock = Changed()  # type: ignore[assignment]
        wire.open_as_server()
        wire.wait_end()

    with script(answer) as url, sync.connect(url, kind=sync.Http) as web:
        with pytest.raises(Error, match=text):
            web.websocket("/", protocols=["v1"])


def test_broken_by_server() -> None:
    """A server that breaks the protocol is told so, and the program, too."""

    def play(wire: Wire) -> None:
        wire.open_as_server()
        wire.sock.sendall(b"\x81\x02ok" + b"\x83\x00")
        wire.pump(1)
        assert (wire.close_code, wire.reason) == (1002, b"an opcode that means nothing")

    with script(play) as url, sync.connect(url, kind=sync.Http) as web:
        ws = web.websocket("/")
        assert ws.recv() == "ok"
        with pytest.raises(WebSocketClosed) as closed:
            ws.recv()
        assert (closed.value.close_code, closed.value.clean) == (1002, False)
        ws.close()


def test_gone() -> None:
    """A connection that ends without a close."""

    def play(wire: Wire) -> None:
        wire.open_as_server()
        wire.sock.sendall(wire.frame(0x81, b"whole") + wire.frame(0x01, b"not who"))

    with script(play) as url, sync.connect(url, kind=sync.Http) as web, web.websocket("/") as ws:
        assert ws.recv() == "whole"
        with pytest.raises(WebSocketClosed) as closed:
            next(ws)
        assert (closed.value.close_code, closed.value.clean) == (1006, False)


HOLDER = """
import ctypes, sys
from iokernel import sync

with sync.connect(sys.argv[1] + "?ping=200ms&ping_timeout=10s", kind=sync.Http) as web:
    with web.websocket("/") as ws:
        ws.send("held")
        left = 3
        while left > 0:  # as if it were part of the interpreter: no thread runs Python meanwhile
            left = ctypes.PyDLL(None).sleep(left)
        ws.send("free")
        print(ws.recv(), ws.last_pong)
"""


def test_heartbeat() -> None:
    """The kernel thread pings a server that is silent, also while Python computes."""

    def play(wire: Wire) -> None:
        wire.open_as_server()
        wire.pump(1)
        wire.pump(2)
        assert [message for _, message in wire.messages] == [b"held", b"free"]
        assert wire.n_frames - 2 >= 3  # pings
        wire.queue(wire.frame(0x81, b"hello"))
        wire.pump(3)

    with script(play) as url:
        ran = subprocess.run(
            [sys.executable, "-c", HOLDER, url], capture_output=True, text=True, timeout=60
        )
    assert (ran.stderr, ran.stdout) == ("", "hello None\n")


def test_silent_server() -> None:
    """One that answers no ping is gone."""
    over = threading.Event()

    def play(wire: Wire) -> None:
        wire.open_as_server()
        over.wait(60)

    url_options = "?ping=100ms&ping_timeout=100ms"
    with script(play) as url, sync.connect(url + url_options, kind=sync.Http) as web:
        ws = web.websocket("/")
        with pytest.raises(WebSocketClosed, match="no answer to a ping") as closed:
            ws.recv()
        assert (closed.value.close_code, closed.value.clean) == (1006, False)
        over.set()
        ws.close()


def reset(sock: socket.socket) -> None:
    """End it as a broken network does."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_reset() -> None:
    """Whatever the program does when it finds out, the end is the same."""

    def play(wire: Wire) -> None:
        wire.open_as_server()
        wire.sock.sendall(wire.frame(0x81, b"first"))
        wire.pump(1)
        reset(wire.sock)

    async def main(url: str) -> None:
        async with connect(url, kind=Http) as web:
            async with await web.websocket("/") as ws:
                assert await ws.recv() == "first"
                await ws.send("go")
                with pytest.raises(WebSocketClosed) as closed:
                    await ws.recv()
                assert (closed.value.close_code, closed.value.clean) == (1006, False)

    with script(play) as url, sync.connect(url, kind=sync.Http) as web, web.websocket("/") as ws:
        assert ws.recv() == "first"
        ws.send("go")
        with pytest.raises(WebSocketClosed) as closed:
            ws.recv()
        assert (closed.value.close_code, closed.value.clean) == (1006, False)
    with script(play) as url:
        asyncio.run(main(url))


def test_send_after_the_close() -> None:
    """It says that all is over, and messages that came before are there all the same."""

    def play(wire: Wire) -> None:
        wire.open_as_server()
        wire.sock.sendall(wire.frame(0x81, b"first") + wire.frame(0x88, b"\x0b\xb9why"))
        wire.wait_end()

    async def main(url: str) -> None:
        async with connect(url, kind=Http) as web:
            ws = await web.websocket("/")
            await auntil(lambda: web.stats()["ended"]["done"] == 1)
            for failed in await asyncio.gather(ws.send("a"), ws.ping(), return_exceptions=True):
                assert isinstance(failed, WebSocketClosed)
                assert (failed.close_code, failed.reason, failed.clean) == (3001, "why", True)
            assert await ws.recv() == "first"
            with pytest.raises(WebSocketClosed):
                await ws.recv()
            await ws.close()

    with script(play) as url, sync.connect(url, kind=sync.Http) as web:
        ws = web.websocket("/")
        until(lambda: web.stats()["ended"]["done"] == 1)
        with pytest.raises(WebSocketClosed) as closed:
            ws.send("late")
        assert (closed.value.close_code, closed.value.reason) == (3001, "why")
        assert ws.close_code == 3001
        assert ws.recv() == "first"
        with pytest.raises(WebSocketClosed):
            ws.recv()
        ws.close()
    with script(play) as url:
        asyncio.run(main(url))


def test_sync() -> None:
    """The same for plain threads."""

    def play(wire: Wire) -> None:
        assert wire.open_as_server("permessage-deflate; client_no_context_takeover") == "/chat?a=b"
        wire.pump(2)
        assert wire.messages == [(1, b"text"), (2, b"bytes" * 1000)]
        wire.queue(wire.frame(0x89, b"ping") + wire.frame(0x81, b"one") + wire.frame(0x82, b"two"))
        wire.pump(3)
        assert wire.messages[2:] == [(10, b"ping")]
        wire.queue(wire.frame(0x88, b"\x03\xe8"))
        wire.pump(4)
        assert wire.close_code == 1000
        wire.wait_end()

    with script(play) as url, sync.connect(url, kind=sync.Http) as web:
        with web.websocket("/chat", params={"a": "b"}, headers={"x": "y"}) as ws:
            with pytest.raises(Timeout):
                ws.recv(timeout=0.05)
            ws.send("text")
            ws.send(b"bytes" * 1000)
            assert list(ws) == ["one", b"two"]
        assert ws.close_code == 1000
