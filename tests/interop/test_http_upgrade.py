"""Upgrade: a connection becomes bytes both ways, each with its end; with servers of two kinds."""

from __future__ import annotations

import asyncio
import http.cookiejar
import pathlib
import ssl
import threading
from collections.abc import Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import until
from kit.servers import make_certificates
from kit.web import NginxServer, NodeServer, Peer, Script

SWITCH = b"HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: Echo\r\nx: 1\r\n\r\n"


def echo(peer: Peer) -> None:
    """Answer what comes by the same, and an end by one's own."""
    head = peer.request()
    if head is None:  # the connection for others
        return
    if b"\r\nconnection: upgrade\r\n" in head:
        peer.send(SWITCH + b"first|")
    while data := peer.connection.recv(65536):
        peer.send(data)
    peer.send(b"|last")


@pytest.fixture(scope="module")
def node() -> Iterator[NodeServer]:
    with NodeServer() as server:
        yield server


def test_both_ways() -> None:
    with Script(echo) as server, sync.connect(server.url) as web:
        with web.upgrade("/", "echo", params={"a": 1}, headers={"x": "y"}) as raw:
            assert raw.head.status == 101
            assert raw.head.headers["x"] == "1"
            assert raw.read() == b"first|"
            with pytest.raises(iokernel.Timeout):
                raw.read(0.05)
            raw.write("ä")
            assert raw.read(20) == "ä".encode()
            raw.write(b"bye")
            raw.write_eof()
            rest = b""
            while part := raw.read():
                rest += part
            assert rest == b"bye|last"
            assert raw.read() == b""
            with pytest.raises(iokernel.Error):
                raw.write(b"more")
        assert web.stats()["disconnects"] == 0
        until(lambda: web.stats()["leased"] == 0)


def test_asyncio() -> None:
    """Much of it, which neither side holds; and many at once."""
    size = 5_000_000

    async def one(web: aio.Http) -> None:
        async with await web.upgrade("/", "Echo") as raw:

            async def write() -> None:
                for _ in range(size // 50_000):
                    await raw.write(b"x" * 50_000)
                await raw.write_eof()

            writing = asyncio.create_task(write())
            got = 0
            while part := await raw.read():
                got += len(part)
            assert got == size + len("first||last")
            await writing

    async def main(url: str) -> None:
        async with aio.connect(url + "?max_stream_bytes=1m", kind=aio.Http) as web:
            await asyncio.gather(*(one(web) for _ in range(5)))

    with Script(echo) as server:
        asyncio.run(main(server.url))


def test_the_server_ends_first() -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(SWITCH)
        peer.end()
        got.append(peer.rest())
        done.set()

    got: list[bytes] = []
    done = threading.Event()
    with Script(serve) as server, sync.connect(server.url) as web:
        with web.upgrade("/", "echo") as raw:
            assert raw.read() == b""
            assert raw.read() == b""
            raw.write(b"abc")
            raw.write(b"def")
            raw.write_eof()
            assert done.wait(20)
            assert got == [b"abcdef"]


def test_silence_is_allowed() -> None:
    """The time limit is for the answer and for writes."""

    def serve(peer: Peer) -> None:
        head = peer.request()
        if head is not None and b" /late" in head:
            peer.send(SWITCH)
            peer.connection.recv(1)
            peer.send(b"late")
        peer.rest()

    with Script(serve) as server, sync.connect(server.url + "?leases=2") as web:
        with web.upgrade("/late", "echo", timeout=0.2) as raw:
            with pytest.raises(iokernel.Timeout):
                raw.read(0.5)
            raw.write(b"x")
            assert raw.read(20) == b"late"
        with pytest.raises(iokernel.Timeout):
            web.upgrade("/", "echo", timeout=0.1)


def test_the_server_does_not_want_to() -> None:
    def serve(peer: Peer) -> None:
        while (head := peer.request()) is not None:
            if b"/other" in head:
                peer.send(SWITCH)
                peer.rest()
            peer.send(b"HTTP/1.1 404 None\r\ncontent-length: 3\r\n\r\nabc")

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            with pytest.raises(aio.UpgradeError, match="404") as caught:
                await web.upgrade("/", "echo")
            assert caught.value.response.status == 404
            assert caught.value.response.body == b"abc"
            with pytest.raises(aio.UpgradeError, match="101, and not that it goes on with chat"):
                await web.upgrade("/other", "chat")
            with pytest.raises(iokernel.Unsafe, match="lease"):
                await web.get("/", headers={"Upgrade": "echo"})
            assert (await web.get("/")).status == 404

    with Script(serve) as server:
        asyncio.run(main(server.url))


def test_lost_and_given_up() -> None:
    def serve(peer: Peer) -> None:
        head = peer.request()
        if head is None:
            return
        peer.send(SWITCH)
        if b" /reset" in head:
            peer.reset()
        else:
            got.append(peer.rest())

    got: list[bytes] = []
    with Script(serve) as server, sync.connect(server.url + "?leases=1") as web:
        with web.upgrade("/reset", "echo") as raw:
            with pytest.raises(iokernel.MaybeExecuted):
                raw.read()
        with web.upgrade("/", "echo") as raw:
            raw.write(b"abc")
        until(lambda: got == [b"abc"])
        raw.close()


def test_cookies_go_along() -> None:
    def serve(peer: Peer) -> None:
        while (head := peer.request()) is not None:
            if b"\r\ncookie: a=1\r\n" in head.lower():
                peer.send(SWITCH)
                return
            peer.send(b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\ncontent-length: 0\r\n\r\n")

    with Script(serve) as server, sync.connect(server.url, kind=sync.Http) as web:
        web.cookies = http.cookiejar.CookieJar()
        web.get("/")
        with web.upgrade("/", "echo") as raw:
            assert raw.read() == b""


@pytest.mark.parametrize("kind", ["url", "tls_url"])
def test_node_behind_nginx(node: NodeServer, kind: str) -> None:
    """Whose own idea of an upgrade it is: nginx passes it on, Node plays the other protocol."""
    with NginxServer(behind=node.url) as server:
        for url in (node.url, getattr(server, kind)):
            with sync.connect(url, kind=sync.Http) as web, web.upgrade("/echo", "echo") as raw:
                raw.write(b"abc")
                assert raw.read(20) == b"abc"
                raw.write(b"x" * 1_000_000)
                got = 0
                while got < 1_000_000:
                    got += len(raw.read(20))
                if "https" not in url:  # there nginx just hangs up
                    raw.write_eof()
                    assert raw.read(20) == b""


def test_tls(tmp_path: pathlib.Path) -> None:
    """There an end is a close_notify, and the other direction goes on behind it."""
    make_certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")

    def serve(peer: Peer) -> None:
        with context.wrap_socket(peer.connection.dup(), server_side=True) as secure:
            secure.recv(65536)
            secure.sendall(SWITCH + b"first|")
            while data := secure.recv(65536):
                secure.sendall(data)
            secure.sendall(b"|last")
            secure.unwrap().close()

    with Script(serve) as server:
        port = server.url.rpartition(":")[2]
        url = f"https://localhost:{port}?tls_ca={tmp_path / 'ca.crt'}"
        with sync.connect(url, kind=sync.Http) as web, web.upgrade("/", "echo") as raw:
            raw.write(b"x" * 100_000)
            raw.write_eof()
            rest = b""
            while part := raw.read(20):
                rest += part
            assert rest == b"first|" + b"x" * 100_000 + b"|last"
