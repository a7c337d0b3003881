"""The HTTP client: connections by need, what is repeated and what is not, and real servers."""

from __future__ import annotations

import asyncio
import pathlib
import threading
from collections.abc import Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import auntil, until
from kit.web import NginxServer, NodeServer, Peer, PythonServer, Script

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answer_all(peer: Peer) -> None:
    while peer.request() is not None:
        peer.send(OK)


@pytest.fixture(scope="module")
def nginx() -> Iterator[NginxServer]:
    with NginxServer() as server:
        (server.files / "small").write_text("small")
        (server.files / "large").write_bytes(b"0123456789abcdef" * 100_000)
        yield server


# ---- responses ----------------------------------------------------------------------------------


def test_response() -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(
            b"HTTP/1.1 404 Nope\r\nContent-Type: text/plain; charset=latin-1\r\nX: 1\r\nx: 2\r\n"
            b"Content-Length: 1\r\n\r\n\xe9"
        )

    with Script(serve) as server, sync.connect(server.url) as web:
        response = web.get("/")
        assert (response.status, response.reason, response.ok) == (404, "Nope", False)
        assert response.body == b"\xe9"
        assert response.text() == "é"
        assert response.headers["X"] == "1, 2"
        assert response.headers.get_all("X") == ["1", "2"]
        assert list(response.headers) == ["content-type", "x", "content-length"]
        assert len(response.headers) == 3
        assert "content-TYPE" in response.headers
        assert "y" not in response.headers
        assert repr(response) == "<Response 404, 1 bytes>"
        with pytest.raises(sync.StatusError, match="404 Nope") as caught:
            response.raise_for_status()
        assert caught.value.response is response


def test_request_arguments() -> None:
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            seen.append(request)
            peer.send(OK)

    with Script(serve) as server, sync.connect(server.url) as web:
        web.get("/a", params={"q": "ä b", "n": [1, 2]}, headers={"X-A": "1"})
        assert seen[-1].startswith(b"GET /a?q=%C3%A4+b&n=1&n=2 HTTP/1.1\r\n")
        assert b"\r\nX-A: 1\r\n" in seen[-1]
        assert b"\r\nuser-agent: iokernel/" in seen[-1]
        web.post("/", json={"a": 1})
        assert seen[-1].endswith(b'\r\n\r\n{"a":1}')
        assert b"\r\ncontent-type: application/json\r\n" in seen[-1]
        web.post("/", body="ä", headers=[("a", "1"), ("a", "2")])
        assert b"\r\na: 1\r\na: 2\r\n" in seen[-1]
        assert seen[-1].endswith("\r\n\r\nä".encode())
        with pytest.raises(TypeError, match="not both"):
            web.post("/", json=1, body="1")


@pytest.mark.parametrize(
    ("target", "headers"),
    [("/ x", {}), ("/\r\nx: y", {}), ("x", {}), ("/", {"a": "b\r\nc: d"}), ("/", {"a\n": "b"})],
)
def test_injection_is_refused(target: str, headers: dict[str, str]) -> None:
    with Script(answer_all) as server, sync.connect(server.url) as web:
        with pytest.raises(iokernel.Error) as caught:
            web.get(target, headers=headers)
        assert (caught.value.code, caught.value.outcome) == ("IOK_EINVAL", "never-sent")
        assert web.get("/").body == b"ok"
        assert server.connections == 1


def test_decode_has_no_meaning() -> None:
    with pytest.raises(TypeError, match="text"):
        sync.connect("http://localhost", decode=True)
    with pytest.raises(iokernel.URLError, match="ends at its host"):
        sync.connect("http://localhost/path")


# ---- connections --------------------------------------------------------------------------------


def test_one_connection_is_enough_for_one_thread() -> None:
    with Script(answer_all) as server, sync.connect(server.url) as web:
        for _ in range(50):
            assert web.get("/").body == b"ok"
        assert server.connections == 1


def test_connections_by_need_and_no_more_than_allowed() -> None:
    """Each waits for as many requests as there are connections at most."""
    gate = threading.Barrier(4)

    def serve(peer: Peer) -> None:
        while peer.request() is not None:
            gate.wait(20)
            peer.send(OK)

    async def main(url: str) -> None:
        async with aio.connect(url + "?connections=4", kind=aio.Http) as web:
            responses = await asyncio.gather(*(web.get("/") for _ in range(40)))
            assert [response.body for response in responses] == [b"ok"] * 40

    with Script(serve) as server:
        asyncio.run(main(server.url))
        assert server.connections == 4


def test_dead_idle_connection_is_never_used() -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(OK)  # and closes

    with Script(serve) as server, sync.connect(server.url) as web:
        for number in range(1, 6):
            assert web.post("/").body == b"ok"
            until(lambda: web.stats()["connections"] == 0)
            assert server.connections == number
        assert web.stats()["retries"] == 0


def test_what_answers_nothing_ends_the_connection() -> None:
    """Or the next request would get it for its reply."""

    def serve(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged")

    with Script(serve) as server, sync.connect(server.url) as web:
        for number in range(1, 4):
            assert web.get("/").body == b"ok"
            assert server.connections == number


def test_a_given_up_request_leaves_no_connection_behind() -> None:
    seen: list[bytes] = []

    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            seen.append(request)
            if b"/slow" not in request:
                peer.send(OK)

    async def main(url: str) -> None:
        async with aio.connect(url + "?connections=1", kind=aio.Http) as web:
            with pytest.raises(iokernel.Timeout):
                await web.get("/slow", timeout=0.05)
            assert (await web.get("/")).body == b"ok"
            task = asyncio.create_task(web.get("/slow"))
            await auntil(lambda: len(seen) == 3)
            task.cancel()
            assert (await web.get("/")).body == b"ok"

    with Script(serve) as server:
        asyncio.run(main(server.url))
        assert server.connections == 3


# ---- outcomes -----------------------------------------------------------------------------------


def lose_first(peer: Peer) -> None:
    """Take a request and say nothing, but for the second connection on."""
    while peer.request() is not None:
        if peer.number == 1:
            return
        peer.send(OK)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_idempotent_requests_are_repeated(method: str) -> None:
    def serve(peer: Peer) -> None:
        while peer.request() is not None:
            if peer.number == 1:
                return
            peer.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    with Script(serve) as server, sync.connect(server.url) as web:
        assert web.request(method, "/").status == 204
        assert server.connections == 2


@pytest.mark.parametrize("method", ["POST", "PATCH", "get"])
def test_others_are_not(method: str) -> None:
    with Script(lose_first) as server, sync.connect(server.url) as web:
        with pytest.raises(iokernel.MaybeExecuted):
            web.request(method, "/")
    with Script(lose_first) as server, sync.connect(server.url) as web:
        assert web.request(method, "/", repeatable=True).body == b"ok"


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\nhello",
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
def test_what_cannot_be_read(reply: bytes) -> None:
    def serve(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(reply)

    with Script(serve) as server, sync.connect(server.url) as web:
        with pytest.raises(iokernel.MaybeExecuted) as caught:
            web.post("/")
        assert caught.value.code == "IOK_EPROTO"


def test_too_large_a_reply_is_not_asked_for_again() -> None:
    def serve(peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000)

    with Script(serve) as server, sync.connect(server.url + "?max_reply=1k") as web:
        with pytest.raises(iokernel.Error) as caught:
            web.get("/")
        assert caught.value.code == "IOK_ELIMIT"
        assert web.stats()["retries"] == 0


def test_reply_until_the_end_of_the_connection() -> None:
    def serve(peer: Peer) -> None:
        peer.request()
        peer.send(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000)

    with Script(serve) as server, sync.connect(server.url) as web:
        for number in range(1, 4):
            assert web.get("/").body == b"x" * 100_000
            assert server.connections == number


# ---- real servers -------------------------------------------------------------------------------


def check_methods(web: sync.Http) -> None:
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        response = web.request(method, "/a?b", body="body")
        assert response.raise_for_status().body == f"{method} /a?b body".encode()
    assert web.head("/").body == b""
    assert web.get("/").text() == "GET / "


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.1"])
def test_python_server(version: str) -> None:
    with PythonServer(version) as server, sync.connect(server.url, kind=sync.Http) as web:
        check_methods(web)


def test_node() -> None:
    with NodeServer() as server, sync.connect(server.url, kind=sync.Http) as web:
        check_methods(web)
        response = web.get("/")
        assert response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
        assert response.trailers["X-Sum"] == "7"


@pytest.mark.parametrize("kind", ["url", "tls_url", "unix_url"])
def test_nginx(nginx: NginxServer, kind: str) -> None:
    async def main() -> None:
        async with aio.connect(getattr(nginx, kind), kind=aio.Http) as web:
            assert (await web.get("/small")).text() == "small"
            responses = await asyncio.gather(*(web.get("/large") for _ in range(30)))
            assert {len(response.body) for response in responses} == {1_600_000}
            responses = await asyncio.gather(*(web.get("/small") for _ in range(1000)))
            assert {response.body for response in responses} == {b"small"}
            assert (await web.get("/none")).status == 404
            assert (await web.get("/gone")).status == 410
            assert (await web.get("/bare")).status == 204
            head = await web.head("/large")
            assert (head.headers["content-length"], head.body) == ("1600000", b"")

    asyncio.run(main())


def test_nginx_verified(nginx: NginxServer) -> None:
    with sync.connect(nginx.tls_url.partition("?")[0], kind=sync.Http) as web:
        with pytest.raises(iokernel.Error) as caught:
            web.get("/small", timeout=5)
        assert caught.value.code == "IOK_ETLS"


def test_unix_socket(tmp_path: pathlib.Path) -> None:
    with Script(answer_all, str(tmp_path / "s")) as server, sync.connect(server.url) as web:
        assert web.get("/").body == b"ok"
