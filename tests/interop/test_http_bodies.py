"""Bodies of requests that do not end as they should: parts that are refused, sources that stop, and odd sources."""

from __future__ import annotations

import asyncio
import io
import mmap
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import bodies, sync
from kit.web import Peer, PythonServer, Script

PIECE = b"x" * 65_536
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
TIME_S = 60
"""In which everything here ends, by far: what hangs, hangs for ever."""


def count(peer: Peer) -> None:
    """Answer with the size of a body in chunks."""
    while peer.request() is not None:
        body = b"%d" % len(peer.chunks())
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)


def test_refused_part() -> None:
    """A part is larger than all that may be on its way: it says so, and the call does not go on alone."""
    program = """
import asyncio, sys, iokernel
from iokernel import sync, asyncio as aio
iokernel.configure(port_bytes_max=100_000)
url = sys.argv[1]

async def pieces():
    yield b"x" * 50_000
    yield b"x" * 200_000

async def main():
    async with aio.connect(url, kind=aio.Http) as web:
        try:
            await asyncio.wait_for(web.post("/", body=pieces()), 60)
        except iokernel.Error as error:
            print(error.code)
        print((await web.post("/", body=iter([b"abc"]))).text())

asyncio.run(main())
with sync.connect(url, kind=sync.Http) as web:
    try:
        web.post("/", body=iter([b"x" * 50_000, b"x" * 200_000]))
    except iokernel.Error as error:
        print(error.code)
    print(web.post("/", body=iter([b"abc"])).text())
"""
    with Script(count) as server:
        ran = subprocess.run(
            [sys.executable, "-c", program, server.url],
            capture_output=True,
            text=True,
            timeout=TIME_S * 2,
        )
    assert (ran.stderr, ran.stdout.split()) == ("", ["IOK_ELIMIT", "3", "IOK_ELIMIT", "3"])


def test_parts_of_a_request_that_waits() -> None:
    """With overload=wait a request waits for room on its port, and its body with it."""
    program = """
import asyncio, sys, iokernel
from iokernel import asyncio as aio
iokernel.configure(port_calls_max=8)

async def pieces():
    for _ in range(10):
        yield b"x" * 1000

async def main():
    async with aio.connect(sys.argv[1] + "?overload=wait&timeout=60s", kind=aio.Http) as web:
        slow = [asyncio.ensure_future(web.get("/")) for _ in range(8)]
        await asyncio.sleep(0)
        post = asyncio.ensure_future(web.post("/", body=pieces()))
        print(*[(await one).text() for one in (*slow, post)])

asyncio.run(main())
"""

    def serve(peer: Peer) -> None:
        while (head := peer.request()) is not None:
            body = b"%d" % len(peer.chunks()) if b"POST" in head else b"ok"
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    with Script(serve) as server:
        ran = subprocess.run(
            [sys.executable, "-c", program, server.url],
            capture_output=True,
            text=True,
            timeout=TIME_S * 2,
        )
    assert (ran.stderr, ran.stdout.split()) == ("", ["ok"] * 8 + ["10000"])


def test_source_that_is_cancelled() -> None:
    """What it waited for was, and not the request: that ends all the same."""

    async def cancelled() -> AsyncIterator[bytes]:
        yield b"abc"
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async def main(url: str) -> None:
        async with aio.connect(url + "?connections=1", kind=aio.Http) as web:
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(web.post("/", body=cancelled()), TIME_S)
            assert (await web.post("/", body=iter([b"abc"]))).text() == "3"

    with Script(count) as server:
        asyncio.run(main(server.url))


def test_source_with_an_error_of_ours() -> None:
    """Its own trouble is not the request's end."""

    def failing() -> Iterator[bytes]:
        yield b"abc"
        raise iokernel.MaybeExecuted("mine", outcome="maybe-executed")

    async def afailing() -> AsyncIterator[bytes]:
        for piece in failing():
            yield piece

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            with pytest.raises(iokernel.MaybeExecuted, match="mine"):
                await asyncio.wait_for(web.post("/", body=afailing()), TIME_S)

    with Script(count) as server:
        with sync.connect(server.url, kind=sync.Http) as web:
            with pytest.raises(iokernel.MaybeExecuted, match="mine"):
                web.post("/", body=failing())
        asyncio.run(main(server.url))


def test_reused_buffer() -> None:
    """A source may fill the same buffer again, as readinto() does."""
    buffer = bytearray(len(PIECE))
    got: list[bytes] = []
    asked = threading.Event()

    async def pieces() -> AsyncIterator[bytearray | memoryview]:
        for n in range(40):
            buffer[:] = bytes([65 + n]) * len(buffer)
            yield buffer if n % 2 else memoryview(buffer)
            asked.set()

    def serve(peer: Peer) -> None:
        peer.request()
        asked.wait(TIME_S)
        got.append(peer.chunks())
        peer.send(OK)

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            assert (await web.post("/", body=pieces())).ok

    with Script(serve) as server:
        asyncio.run(main(server.url))
    assert got[0] == b"".join(bytes([65 + n]) * len(buffer) for n in range(40))


def test_source_is_closed() -> None:
    """One that an early answer stops can give back what it holds, at once."""
    closed: list[str] = []

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield PIECE
        finally:
            closed.append("sync")

    async def aendless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield PIECE
        finally:
            await asyncio.sleep(0)
            closed.append("asyncio")

    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.1 413 No\r\ncontent-length: 0\r\n\r\n")
        peer.rest()

    async def main(url: str) -> None:
        source, other = aendless(), endless()
        async with aio.connect(url, kind=aio.Http) as web:
            assert (await web.post("/", body=source)).status == 413
            assert (await web.post("/", body=other)).status == 413
            for _ in range(10):
                await asyncio.sleep(0)
            assert closed == ["sync", "asyncio", "sync"]

    with Script(serve) as server:
        source = endless()
        with sync.connect(server.url, kind=sync.Http) as web:
            assert web.post("/", body=source).status == 413
            assert closed == ["sync"]
        asyncio.run(main(server.url))


class AsyncFile:
    """As those of aiofiles and anyio are: every method is asynchronous."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    async def read(self, size: int) -> bytes:
        return self._file.read(size)

    async def tell(self) -> int:
        return self._file.tell()

    async def seek(self, to: int, whence: int = 0) -> int:
        return self._file.seek(to, whence)

    async def seekable(self) -> bool:
        return True


@pytest.mark.filterwarnings("error")
def test_odd_files(tmp_path: Path) -> None:
    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            web.redirects = 1
            assert (await web.post("/", body=AsyncFile(b"abc"))).text() == "3"

    with Script(count) as server:
        asyncio.run(main(server.url))
    (tmp_path / "file").write_bytes(b"abcdef")
    with PythonServer() as python, sync.connect(python.url, kind=sync.Http) as web:
        with (tmp_path / "file").open("rb") as file:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                mapped.seek(2)
                assert bodies.length(mapped) == 4
                assert web.post("/", body=mapped).body == b"POST / cdef"
        with tempfile.NamedTemporaryFile("w+", encoding="utf-16") as text:
            text.write("äöü")
            text.seek(0)
            assert bodies.length(text) is None
        with tempfile.NamedTemporaryFile("w+b") as binary:
            binary.write(b"abc")
            binary.seek(1)
            assert bodies.length(binary) == 2
    reader, writer = os.pipe()
    os.close(writer)
    with open(reader, "rb") as pipe:
        assert bodies.length(pipe) is None


def test_answer_as_a_body() -> None:
    """What one server gives goes to another as it comes."""

    def serve(peer: Peer) -> None:
        while (head := peer.request()) is not None:
            if b"GET" in head:
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1_000_000)
            else:
                body = b"%d" % len(peer.chunks())
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web, web.stream("GET", "/") as source:
            assert len(await source.read(1000)) == 1000
            first = await anext(aiter(source))
            left = 1_000_000 - 1000 - len(first)
            assert (await web.post("/", body=source)).text() == str(left)
            assert await source.read(1) == b""

    with Script(serve) as server, sync.connect(server.url, kind=sync.Http) as web:
        with web.stream("GET", "/") as source:
            assert len(source.read(1000)) == 1000
            first = next(source)
            left: Any = 1_000_000 - 1000 - len(first)
            assert web.post("/", body=source).text() == str(left)
            assert source.read(1) == b""
        asyncio.run(main(server.url))
