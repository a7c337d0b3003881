"""HTTP bodies in parts, both ways: bounded memory, ends in the midst, and real servers."""

from __future__ import annotations

import asyncio
import gc
import io
import threading
from collections.abc import AsyncIterator, Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import auntil, until
from kit.web import NginxServer, NodeServer, Peer, PythonServer, Script

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
PIECE = b"x" * 65_536


@pytest.fixture(scope="module")
def nginx() -> Iterator[NginxServer]:
    with NginxServer() as server:
        (server.files / "large").write_bytes(b"0123456789abcdef" * 4_000_000)
        yield server


def read_chunked(peer: Peer) -> tuple[bytes, bytes]:
    """Read a request, and its body that comes in chunks."""
    head = peer.request()
    assert head is not None
    return head, peer.chunks()


def test_reply_in_parts() -> None:
    gate = threading.Semaphore(0)

    def serve(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(b"HTTP/1.1 201 Made\r\nX: 1\r\ntransfer-encoding: chunked\r\n\r\n")
            gate.acquire(timeout=20)
            peer.send(b"3\r\nabc\r\n")
            gate.acquire(timeout=20)
            peer.send(b"2\r\nde\r\n0\r\nX-Sum: 7\r\n\r\n")

    with Script(serve) as server, sync.connect(server.url) as web:
        for _ in range(2):
            with web.stream("GET", "/") as response:
                assert (response.status, response.reason, response.ok) == (201, "Made", True)
                assert response.headers["x"] == "1"
                assert len(response.trailers) == 0
                gate.release()
                assert next(response) == b"abc"
                gate.release()
                assert response.read() == b"de"
                assert response.read() == b""
                assert response.trailers["x-sum"] == "7"
        assert server.connections == 1


def test_reply_in_parts_asyncio() -> None:
    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if b"/none" in request:
                peer.send(b"HTTP/1.1 404 None\r\ncontent-length: 3\r\n\r\nabc")
            else:
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000)

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            async with web.stream("GET", "/", params={"a": 1}) as response:
                assert sum([len(part) async for part in response]) == 1_000_000
            async with web.stream("GET", "/none") as response:
                with pytest.raises(aio.StatusError, match="404 None") as caught:
                    response.raise_for_status()
                assert caught.value.response is response
                assert await response.read() == b"abc"
            with pytest.raises(RuntimeError, match="block"):
                await web.stream("GET", "/").read()
            assert (await web.get("/none")).body == b"abc"

    with Script(serve) as server:
        asyncio.run(main(server.url))
        assert server.connections == 1


def test_left_in_the_midst() -> None:
    """The connection ends, as what is left of the reply is on it, and the next one is clean."""

    def serve(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 100)
            if peer.number == 2:
                peer.send(b"x" * 999_900)

    async def main(url: str) -> None:
        async with aio.connect(url + "?connections=1", kind=aio.Http) as web:
            async with web.stream("GET", "/") as response:
                async for part in response:
                    assert part == b"x" * 100
                    break
            assert len((await web.get("/")).body) == 1_000_000

    with Script(serve) as server:
        asyncio.run(main(server.url))
        assert server.connections == 2


def test_slow_reader_costs_bounded_memory(nginx: NginxServer) -> None:
    with sync.connect(nginx.url + "?max_stream_bytes=1m", kind=sync.Http) as web:
        with web.stream("GET", "/large") as response:
            next(response)
            until(lambda: 100_000 < web.stats()["bytes_in"])
            before = -1
            while before != web.stats()["bytes_in"]:  # until nothing more is read
                before = web.stats()["bytes_in"]
                threading.Event().wait(0.3)
            assert before < 3_000_000
            assert iokernel.stats()["buffer_bytes"] < 4_000_000
        assert web.get("/none").status == 404


def test_large_reply_in_parts(nginx: NginxServer) -> None:
    """Larger than max_reply, which bounds the parts."""

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            async with web.stream("GET", "/large") as response:
                assert sum([len(part) async for part in response]) == 64_000_000
            async with web.stream("HEAD", "/large") as response:
                assert response.headers["content-length"] == "64000000"
                assert await response.read() == b""
            with pytest.raises(iokernel.Error, match="1048576 bytes"):
                await web.get("/large")

    for url in (nginx.url + "?max_reply=1m", nginx.tls_url + "&max_reply=1m"):
        asyncio.run(main(url))


# ---- bodies that go out in parts ----------------------------------------------------------------


def echo(peer: Peer) -> None:
    while (head := peer.request()) is not None:
        body = peer.chunks() if b"chunked" in head else b""
        answer = head + b"|" + body
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer)


async def agen() -> AsyncIterator[bytes | str]:
    for piece in (b"abc", "dé", b""):
        await asyncio.sleep(0)
        yield piece


def test_bodies() -> None:
    file = io.BytesIO(b"-abc")
    file.read(1)

    with Script(echo) as server, sync.connect(server.url) as web:
        answer = web.post("/", body=iter([b"abc", "dé", memoryview(b"f"), bytearray(b"g")])).body
        assert b"\r\ntransfer-encoding: chunked\r\n" in answer
        assert answer.endswith(b"|abcd\xc3\xa9fg")
        answer = web.put("/", body=file).body
        assert b"\r\ncontent-length: 3\r\n" in answer
        assert answer.endswith(b"\r\n\r\nabc|")
        assert web.put("/", body=io.StringIO("äb")).body.endswith("|äb".encode())
        answer = web.post("/", headers={"Content-Length": 3}, body=iter([b"ab", b"c"])).body
        assert answer.endswith(b"\r\n\r\nabc|")
        with pytest.raises(iokernel.Error, match="more bytes than its Content-Length"):
            web.post("/", headers={"Content-Length": 3}, body=iter([b"ab", b"cd"]))
        with pytest.raises(iokernel.Error, match="fewer bytes than its Content-Length"):
            web.post("/", headers={"Content-Length": 3}, body=iter([b"ab"]))
        with web.stream("POST", "/", body=iter([b"ab"])) as response:
            assert response.read().endswith(b"|ab")
        with web.stream("POST", "/", body=b"whole") as response:
            assert response.read().endswith(b"\r\n\r\nwhole|")
        with pytest.raises(TypeError, match="expect"):
            web.get("/", expect=True)
        with pytest.raises(TypeError, match="part must be"):
            web.post("/", body=iter([1]))
        assert web.get("/").ok


def test_bodies_asyncio() -> None:
    class Reader:
        left = 2

        async def read(self, size: int) -> bytes:
            await asyncio.sleep(0)
            self.left -= 1
            return b"r" if self.left >= 0 else b""

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            assert (await web.post("/", body=agen())).body.endswith("|abcdé".encode())
            assert (await web.post("/", body=Reader())).body.endswith(b"|rr")
            async with web.stream("POST", "/", body=agen()) as response:
                assert (await response.read()).endswith("|abcdé".encode())

    with Script(echo) as server:
        asyncio.run(main(server.url))
        assert server.connections == 1


def test_expect() -> None:
    """The body goes when the server wants it, or a final answer says that it does not."""
    asked = threading.Event()
    got: list[object] = []

    def pieces() -> Iterator[bytes]:
        asked.wait(20)
        yield b"abc"

    def serve(peer: Peer) -> None:
        while (head := peer.request(body=False)) is not None:
            assert b"\r\nexpect: 100-continue\r\n" in head
            if b"/no" in head:
                peer.send(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")
                asked.set()
                got.append(peer.rest())
                return
            got.append(peer.has_more(0.2))
            asked.set()
            peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            got.append(peer.chunks())
            peer.send(OK)

    with Script(serve) as server, sync.connect(server.url) as web:
        assert web.post("/", body=pieces(), expect=True).status == 200
        asked.clear()
        assert web.post("/no", body=pieces(), expect=True).status == 413
        until(lambda: got == [False, b"abc", b""])


def test_early_answer_ends_the_body() -> None:
    """An endless one, too; what the program's source waits for is no reason to wait."""

    def serve(peer: Peer) -> None:
        head = peer.request()
        assert head is not None
        peer.send(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n" if b"POST" in head else OK)
        peer.rest()

    def endless() -> Iterator[bytes]:
        while True:
            yield PIECE

    async def stuck() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    async def main(url: str) -> None:
        async with aio.connect(url + "?connections=1", kind=aio.Http) as web:
            assert (await web.post("/", body=stuck())).status == 413
            async with web.stream("POST", "/", body=stuck()) as response:
                assert response.status == 413
            assert (await web.get("/")).body == b"ok"

    with Script(serve) as server:
        with sync.connect(server.url + "?connections=1") as web:
            assert web.post("/", body=endless()).status == 413
            assert web.get("/").body == b"ok"
        asyncio.run(main(server.url))


def test_source_that_fails() -> None:
    def serve(peer: Peer) -> None:
        while (head := peer.request()) is not None:
            if b"POST" in head:
                peer.rest()
            peer.send(OK)

    def pieces() -> Iterator[bytes]:
        yield b"abc"
        raise LookupError("mine")

    async def apieces() -> AsyncIterator[bytes]:
        yield b"abc"
        raise LookupError("mine")

    async def main(url: str) -> None:
        async with aio.connect(url + "?connections=1", kind=aio.Http) as web:
            with pytest.raises(LookupError, match="mine"):
                await web.post("/", body=apieces())
            with pytest.raises(LookupError, match="mine"):
                async with web.stream("POST", "/", body=apieces()):
                    pass
            assert (await web.get("/")).body == b"ok"
            assert web.stats()["disconnects"] == 0

    with Script(serve) as server:
        with sync.connect(server.url + "?connections=1") as web:
            with pytest.raises(LookupError, match="mine"):
                web.post("/", body=pieces())
            assert web.get("/").body == b"ok"
        asyncio.run(main(server.url))


def test_cancelled_in_the_midst() -> None:
    """Its connection ends, so that the next request is never taken for a part of the body."""
    requests: list[bytes] = []

    def serve(peer: Peer) -> None:
        while (head := peer.request()) is not None:
            requests.append(head)
            if b"POST" in head:
                peer.rest()
                return
            peer.send(OK)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    async def main(url: str) -> None:
        async with aio.connect(url + "?connections=1", kind=aio.Http) as web:
            task = asyncio.create_task(web.post("/", body=stuck()))
            await auntil(lambda: len(requests) == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert (await web.get("/")).body == b"ok"

    with Script(serve) as server:
        asyncio.run(main(server.url))
        assert server.connections == 2


def test_given_up_with_a_part_under_way() -> None:
    """What became of that part is nobody's business, and not told to the loop."""
    done = threading.Event()
    told: list[object] = []

    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * 20_000_000  # more than the system's buffers hold
        await asyncio.Event().wait()

    async def main(url: str) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
        async with aio.connect(url, kind=aio.Http) as web:
            task = asyncio.create_task(web.post("/", body=pieces()))
            await auntil(lambda: web.stats()["bytes_out"] > 100_000)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await asyncio.sleep(0.05)
        gc.collect()

    def serve(peer: Peer) -> None:
        done.wait(30)

    with Script(serve) as server:
        asyncio.run(main(server.url))
        done.set()
    assert told == []


def test_server_that_does_not_read() -> None:
    """Costs the memory of a few pieces, and ends in time."""
    given = 0

    def endless() -> Iterator[bytes]:
        nonlocal given
        while True:
            given += 1
            yield PIECE

    done = threading.Event()

    def serve(peer: Peer) -> None:
        done.wait(30)

    with Script(serve) as server, sync.connect(server.url + "?timeout=500ms") as web:
        with pytest.raises(iokernel.Timeout, match="part of the body"):
            web.post("/", body=endless())
        assert given * len(PIECE) < 20_000_000  # what the system's buffers hold
        assert iokernel.stats()["buffer_bytes"] < 1_000_000
        done.set()


def test_lost_in_the_midst() -> None:
    def serve(peer: Peer) -> None:
        head = peer.request()
        assert head is not None
        if b"GET" in head:
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc")

    with Script(serve) as server, sync.connect(server.url) as web:
        with web.stream("GET", "/") as response:
            assert next(response) == b"abc"
            with pytest.raises(iokernel.MaybeExecuted, match="midst of a reply"):
                next(response)
            with pytest.raises(iokernel.Closed):
                next(response)
        assert server.connections == 1  # and it was not asked for again
        with pytest.raises(iokernel.MaybeExecuted):
            web.put("/", body=iter([b"abc"]))


# ---- real servers -------------------------------------------------------------------------------


def test_node() -> None:
    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            assert (await web.post("/", body=agen())).body == "POST / abcdé".encode()
            assert (await web.post("/", body=agen(), expect=True)).body == "POST / abcdé".encode()
            async with web.stream("POST", "/", body=iter([PIECE] * 100)) as response:
                size = sum([len(part) async for part in response])
                assert size == 100 * len(PIECE) + len("POST / ")
                assert response.trailers["x-sum"] == "7"

    with NodeServer() as server:
        asyncio.run(main(server.url))


def test_python_server() -> None:
    """It knows lengths and no chunks."""
    with PythonServer("HTTP/1.1") as server, sync.connect(server.url, kind=sync.Http) as web:
        assert web.post("/", body=io.BytesIO(b"abc")).body == b"POST / abc"
        assert web.post("/", body=io.BytesIO(b"abc"), expect=True).body == b"POST / abc"
        with web.stream("POST", "/", body=io.BytesIO(PIECE * 100)) as response:
            assert len(response.read()) == 100 * len(PIECE) + len("POST / ")
