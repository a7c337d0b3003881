"""What the HTTP client offers on top of requests: redirects, cookies, content codings, forms."""

from __future__ import annotations

import asyncio
import email
import gzip
import http.cookiejar
import io
import zlib
from collections.abc import Callable, Iterator
from email.message import Message

import brotli
import iokernel
import pytest
import zstandard
from iokernel import asyncio as aio
from iokernel import sync
from kit.web import NginxServer, Peer, Script

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def answers(reply: Callable[[bytes], bytes]) -> Callable[[Peer], None]:
    """Make a server that answers by a function of the request."""

    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            peer.send(reply(request))

    return serve


def leads(status: int, to: str) -> bytes:
    """Make an answer that leads on."""
    return f"HTTP/1.1 {status} Go\r\nlocation: {to}\r\ncontent-length: 3\r\n\r\nabc".encode(
        "latin-1"
    )


def tells(request: bytes, fields: bytes = b"") -> bytes:
    """Make an answer whose body is the request."""
    return b"HTTP/1.1 200 OK\r\n%scontent-length: %d\r\n\r\n%s" % (fields, len(request), request)


# ---- redirects ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "method", "then"),
    [
        (301, "POST", "GET"), (302, "POST", "GET"), (303, "POST", "GET"), (303, "PUT", "GET"),
        (307, "POST", "POST"), (308, "POST", "POST"), (301, "PUT", "PUT"), (302, "GET", "GET"),
        (303, "HEAD", "HEAD"), (308, "DELETE", "DELETE"),
    ],
)  # fmt: skip
def test_methods_after_redirects(status: int, method: str, then: str) -> None:
    seen: list[bytes] = []

    def reply(request: bytes) -> bytes:
        seen.append(request)
        head = b"content-length: 0\r\n\r\n"
        if b" /a" in request:
            return b"HTTP/1.1 %d Go\r\nlocation: b?c#d\r\n" % status + head
        return b"HTTP/1.1 200 OK\r\n" + head

    with Script(answers(reply)) as server, sync.connect(server.url) as web:
        body = None if method in ("GET", "HEAD") else "body"
        fields = {"content-type": "a/b", "authorization": "mine", "x": "y"} if body else {}
        response = web.request(method, "/a", body=body, headers=fields, redirects=1)
        assert response.url == server.url + "/b?c"
        assert [head.status for head in response.history] == [status]
        assert response.history[0].url == server.url + "/a"
    assert seen[1].startswith(f"{then} /b?c HTTP/1.1\r\n".encode())
    if body:
        assert (b"\r\n\r\nbody" in seen[1]) == (then == method)
        assert (b"\r\ncontent-type: a/b\r\n" in seen[1]) == (then == method)
        assert b"\r\nauthorization: mine\r\n" in seen[1]
        assert b"\r\nx: y\r\n" in seen[1]


def test_redirects_only_as_asked() -> None:
    def reply(request: bytes) -> bytes:
        number = int(request.split(b" ")[1][1:])
        return leads(302, f"/{number + 1}") if number < 5 else OK

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            assert (await web.get("/0")).status == 302
            web.redirects = 5
            response = await web.get("/0")
            assert (response.status, len(response.history)) == (200, 5)
            async with web.stream("GET", "/3") as streamed:
                assert await streamed.read() == b"ok"
                assert (streamed.url, len(streamed.history)) == (url + "/5", 2)
            with pytest.raises(aio.RedirectError, match="more than redirects=4") as caught:
                await web.get("/0", redirects=4)
            assert caught.value.response.headers["location"] == "/5"
            assert (await web.get("/0", redirects=0)).status == 302

    with Script(answers(reply)) as server:
        asyncio.run(main(server.url))


def test_another_origin_gets_no_secrets() -> None:
    """And is another service, whose connections are kept and closed with the client."""
    with Script(answers(tells)) as other:
        with Script(answers(lambda _: leads(307, other.url + "/x"))) as server:
            url = server.url.replace("//", "//user:pw@") + "?connections=2"
            with sync.connect(url, kind=sync.Http) as web:
                secrets = {"Authorization": "a", "Cookie": "b=c", "Proxy-Authorization": "d"}
                for _ in range(3):
                    response = web.post("/", headers=secrets | {"x": "y"}, body="e", redirects=1)
                    told = response.body.lower()
                    assert told.startswith(b"post /x http/1.1\r\nhost: 127.0.0.1:")
                    assert b"\r\nx: y\r\n" in told
                    assert told.endswith(b"\r\n\r\ne")
                    assert b"authorization" not in told
                    assert b"cookie" not in told
                assert web.stats()["connections"] == 1
            assert other.connections == 1
            assert server.connections == 1
    with pytest.raises(iokernel.Closed):
        web.get("/")


@pytest.mark.parametrize("to", ["ftp://127.0.0.1/", "http://[::1/", "http://h:x/", "mailto:a@b"])
def test_redirect_to_nowhere(to: str) -> None:
    with Script(answers(lambda _: leads(302, to))) as server, sync.connect(server.url) as web:
        with pytest.raises(sync.RedirectError, match="no http or https URL"):
            web.get("/", redirects=3)


def test_location_is_escaped() -> None:
    def reply(request: bytes) -> bytes:
        return leads(302, "/\xe9 b?c=d e%20f") if b" / " in request else tells(request)

    with Script(answers(reply)) as server, sync.connect(server.url) as web:
        told = web.get("/", redirects=1).body
        assert told.startswith(b"GET /%E9%20b?c=d%20e%20f HTTP/1.1\r\n")


def test_bodies_that_go_twice() -> None:
    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            request += peer.chunks() if b"chunked" in request else b""
            peer.send(leads(308, "/b") if b" /a " in request else tells(request))

    with Script(serve) as server, sync.connect(server.url) as web:
        file = io.BytesIO(b"-abc")
        file.read(1)
        assert web.put("/a", body=file, redirects=1).body.endswith(b"\r\n\r\nabc")
        told = web.put("/a", files={"f": io.BytesIO(b"abc")}, redirects=1).body
        assert b"\r\n\r\nabc\r\n--" in told
        with pytest.raises(sync.RedirectError, match="only once"):
            web.put("/a", body=iter([b"abc"]), headers={"content-length": 3}, redirects=1)
        with pytest.raises(sync.RedirectError, match="only once"):
            web.put("/a", files={"f": iter([b"abc"])}, redirects=1)


# ---- cookies ------------------------------------------------------------------------------------


def test_cookies() -> None:
    def reply(request: bytes) -> bytes:
        if b" /set" in request:
            return leads(302, "/a/b").partition(b"content-length")[0] + (
                b"set-cookie: a=1; path=/a\r\nset-cookie: b=2; path=/\r\n"
                b"set-cookie: c=3; secure\r\nset-cookie: d=4; domain=example.com\r\n"
                b"set-cookie: e=5; max-age=0\r\ncontent-length: 0\r\n\r\n"
            )
        return tells(request)

    def cookies(response: sync.Response) -> set[str]:
        lines = response.body.decode().split("\r\n")
        found = [line.partition(": ")[2] for line in lines if line.startswith("cookie: ")]
        assert len(found) <= 1
        return set("".join(found).split("; ")) - {""}

    with Script(answers(reply)) as server, sync.connect(server.url, kind=sync.Http) as web:
        assert cookies(web.get("/set", redirects=1)) == set()  # nobody has asked for any
        web.cookies = http.cookiejar.CookieJar()
        assert cookies(web.get("/set", redirects=1)) == {"a=1", "b=2"}
        assert cookies(web.get("/a/c")) == {"a=1", "b=2"}
        assert cookies(web.get("/")) == {"b=2"}
        assert cookies(web.get("/", headers={"Cookie": "x=y"})) == set()
        assert cookies(web.get("/", cookies={"x": "y", "z": "1"})) == {"x=y", "z=1"}
        assert cookies(web.get("/", cookies=http.cookiejar.CookieJar())) == set()
        with pytest.raises(ValueError, match="cookie"):
            web.get("/", cookies={"x": "y; z=1"})


# ---- content codings ----------------------------------------------------------------------------

TEXT = b"0123456789" * 10_000
CODED = {
    "gzip": gzip.compress(TEXT[:5000]) + gzip.compress(TEXT[5000:]),
    "x-gzip": gzip.compress(TEXT),
    "deflate": zlib.compress(TEXT),
    "Deflate": zlib.compressobj(wbits=-15).compress(b"") + zlib.compress(TEXT)[2:-4],
    "br": brotli.compress(TEXT),
    "zstd": zstandard.compress(TEXT[:5000]) + zstandard.compress(TEXT[5000:]),
    "identity, gzip": gzip.compress(TEXT),
    "gzip, br": brotli.compress(gzip.compress(TEXT)),
}


def coded(coding: str, body: bytes, status: int = 200) -> bytes:
    """Make an answer with a content coding."""
    head = (
        f"HTTP/1.1 {status} OK\r\ncontent-encoding: {coding}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


@pytest.mark.parametrize("coding", CODED)
def test_codings(coding: str) -> None:
    seen: list[bytes] = []

    def reply(request: bytes) -> bytes:
        seen.append(request)
        return coded(coding, CODED[coding])

    with Script(answers(reply)) as server, sync.connect(server.url, kind=sync.Http) as web:
        assert web.get("/").body == TEXT
        assert b"\r\naccept-encoding: gzip, deflate, br, zstd\r\n" in seen[0]
        assert web.head("/").body == b""
        with web.stream("GET", "/") as response:
            assert response.read() == TEXT
        web.compression = False
        assert web.get("/").body == CODED[coding]
        assert b"accept-encoding" not in seen[-1]
        assert web.get("/", compression=True).body == TEXT
        assert web.get("/", headers={"Accept-Encoding": "x"}, compression=True).body == TEXT
        assert seen[-1].lower().count(b"accept-encoding: x\r\n") == 1


def test_coded_octet_by_octet() -> None:
    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            coding = request.split(b" ")[1][1:].decode()
            body = CODED[coding]
            peer.send(coded(coding, body)[: -len(body)])
            for i in range(len(body)):
                peer.send(body[i : i + 1])

    with Script(serve) as server, sync.connect(server.url) as web:
        for coding in ("gzip", "deflate", "br", "zstd"):
            with web.stream("GET", f"/{coding}") as response:
                assert response.read() == TEXT


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_what_is_not_coded_so(coding: str) -> None:
    bodies = [b"\xff" * 100, CODED[coding][:-1], CODED[coding][:20] + b"\0" * 20]

    def reply(request: bytes) -> bytes:
        return coded(coding, bodies[int(request.split(b" ")[1][1:])])

    with Script(answers(reply)) as server, sync.connect(server.url) as web:
        for i in range(len(bodies)):
            response = web.get(f"/{i}")
            with pytest.raises(sync.CodingError, match="Content-Encoding"):
                _ = response.body
            with web.stream("GET", f"/{i}") as streamed, pytest.raises(sync.CodingError):
                streamed.read()


def bomb(coding: str) -> bytes:
    """Make something small that stands for 100 MB."""
    zeros = bytes(100_000_000)
    return {
        "gzip": gzip.compress,
        "deflate": zlib.compress,
        "br": brotli_fast,
        "zstd": zstandard.compress,
    }[coding](zeros)


def brotli_fast(data: bytes) -> bytes:
    """Compress at a level that takes no time."""
    return bytes(brotli.compress(data, quality=1))


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_bombs(coding: str) -> None:
    body = bomb(coding)
    assert len(body) < 200_000

    with Script(answers(lambda _: coded(coding, body))) as server:
        with sync.connect(server.url + "?max_reply=1m", kind=sync.Http) as web:
            with pytest.raises(sync.CodingError, match="max_reply=1048576") as caught:
                _ = web.get("/").body
            assert caught.value.code == "IOK_ELIMIT"
            with web.stream("GET", "/") as streamed, pytest.raises(sync.CodingError):
                streamed.read()


def test_left_as_it_is() -> None:
    """What we do not know, and parts of a whole."""

    def reply(request: bytes) -> bytes:
        status = 206 if b"/range" in request else 200
        return coded("gzip" if status == 206 else "compress, gzip", b"abc", status)

    with Script(answers(reply)) as server, sync.connect(server.url) as web:
        assert web.get("/").body == b"abc"
        assert web.get("/range").body == b"abc"
        with web.stream("GET", "/") as response:
            assert response.read() == b"abc"


def test_nginx_compresses() -> None:
    with NginxServer() as server, sync.connect(server.url, kind=sync.Http) as web:
        (server.files / "text").write_bytes(TEXT)
        response = web.get("/gzip/text")
        assert response.headers["content-encoding"] == "gzip"
        assert response.body == TEXT
        assert "content-encoding" not in web.get("/gzip/text", compression=False).headers


# ---- forms --------------------------------------------------------------------------------------


def parse(told: bytes) -> tuple[Message, list[Message]]:
    """Read a request as a mail reader would, and the parts of its body."""
    message = email.message_from_bytes(told.partition(b"\r\n")[2])
    payload = message.get_payload()
    return message, payload if isinstance(payload, list) else []


def test_urlencoded() -> None:
    with Script(answers(tells)) as server, sync.connect(server.url) as web:
        told = web.post("/", data={"a": "ä b", "c": [1, 2]}).body
        assert b"\r\ncontent-type: application/x-www-form-urlencoded\r\n" in told
        assert told.endswith(b"\r\n\r\na=%C3%A4+b&c=1&c=2")
        assert web.post("/", data=[("a", 1), ("a", 2)]).body.endswith(b"\r\n\r\na=1&a=2")
        for options in ({"json": 1}, {"body": "x"}):
            with pytest.raises(TypeError, match="not both"):
                web.post("/", data={}, **options)  # type: ignore[typeddict-item]


def test_multipart() -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a"
        yield b"b"

    def serve(peer: Peer) -> None:
        while (head := peer.request()) is not None:
            peer.send(tells(head + (peer.chunks() if b"chunked" in head else b"")))

    with Script(serve) as server, sync.connect(server.url) as web:
        for content in (b"ab", io.BytesIO(b"ab"), pieces()):
            told = web.post(
                "/",
                data={"a": "ä", "n": [1, 2]},
                files=[("f", ('x"\r\n.txt', content)), ("g", ("y", "ö", "a/b"))],
            ).body
            message, parts = parse(told)
            assert message.get_content_type() == "multipart/form-data"
            assert ("content-length" in message) == (
                not isinstance(content, Iterator) or isinstance(content, io.BytesIO)
            )
            got = [
                (part.get_param("name", header="content-disposition"), part.get_filename(),
                 part.get_content_type(), part.get_payload(decode=True))
                for part in parts
            ]  # fmt: skip
            assert got == [
                ("a", None, "text/plain", "ä".encode()),
                ("n", None, "text/plain", b"1"),
                ("n", None, "text/plain", b"2"),
                ("f", "x%22%0D%0A.txt", "text/plain", b"ab"),
                ("g", "y", "a/b", "ö".encode()),
            ]
        with pytest.raises(ValueError, match="line break"):
            web.post("/", files={"f": ("x", b"", "a\r\nb: c")})


def test_multipart_asyncio() -> None:
    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            file = io.BytesIO(b"x" * 200_000)
            _, parts = parse((await web.post("/", files={"f": file})).body)
            assert len(parts[0].get_payload()) == 200_000
            assert parts[0].get_filename() == "f"
            with pytest.raises(TypeError, match="asynchronous"):
                await web.post("/", files={"f": asyncio.StreamReader()})

    with Script(answers(tells)) as server:
        asyncio.run(main(server.url))
