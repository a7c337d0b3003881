"""Where requests of the HTTP client go: targets, redirects to other places, cookies, and time."""

from __future__ import annotations

import asyncio
import http.cookiejar
import ssl
import threading
from collections.abc import Callable

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import http_cookies, http_places, sync
from iokernel.http import Head
from kit.servers import make_certificates
from kit.web import Peer, Script

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def leads(status: int, to: str, more: bytes = b"") -> bytes:
    """Make an answer that leads on."""
    head = b"HTTP/1.1 %d Go\r\nlocation: %s\r\n" % (status, to.encode())
    return head + more + b"content-length: 0\r\n\r\n"


def answers(reply: Callable[[bytes], bytes]) -> Callable[[Peer], None]:
    """Make a server that answers by a function of the request."""

    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            peer.send(reply(request))

    return serve


# ---- targets ------------------------------------------------------------------------------------


def test_target_with_two_slashes() -> None:
    """It is a path of this service, and no other host: neither its cookies nor its redirects are another's."""
    seen: list[bytes] = []

    def reply(request: bytes) -> bytes:
        seen.append(request)
        if b" //evil.example/a " in request:
            return leads(302, "b", b"set-cookie: mine=1; path=/\r\n")
        return OK

    with Script(answers(reply)) as server, sync.connect(server.url, kind=sync.Http) as web:
        jar = web.cookies = http.cookiejar.CookieJar()
        other = Head([200, b"", [b"set-cookie", b"other=2"]])
        http_cookies.keep_cookies(jar, other, "http://evil.example/a")
        response = web.get("//evil.example/a", redirects=1)
        assert response.status == 200
        assert response.url.startswith(server.url + "/")
        assert b"cookie" not in seen[0]
        assert b"\r\ncookie: mine=1\r\n" in seen[1]
        assert sorted(cookie.domain for cookie in jar) == ["127.0.0.1", "evil.example"]


def test_target_in_absolute_form() -> None:
    with Script(answers(lambda _: OK)) as server, sync.connect(server.url) as web:
        assert web.get(server.url + "/x", redirects=1).url == server.url + "/x"
        with pytest.raises(ValueError, match="another place"):
            web.get("http://evil.example/", redirects=1)
        with pytest.raises(ValueError, match="another place"):
            web.get("http://evil.example/", cookies=http.cookiejar.CookieJar())
        assert web.options("*", redirects=1).status == 200


# ---- redirects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_from_https_to_http(asynchronous: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Only if it is allowed, as what was a secret on the way would be none any more."""
    place = tmp_path_factory.mktemp("tls")
    make_certificates(place)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "server.crt", place / "server.key")
    got: list[bytes] = []

    def plain(request: bytes) -> bytes:
        got.append(request)
        return OK

    def secure(peer: Peer) -> None:
        with context.wrap_socket(peer.connection, server_side=True) as tls:
            while tls.recv(65536):
                tls.sendall(leads(307, other.url + "/"))

    async def main(url: str) -> None:
        async with aio.connect(url, kind=aio.Http) as web:
            web.redirects = 1
            with pytest.raises(aio.RedirectError, match="from https to http"):
                await web.post("/", body="secret")
            assert got == []
            assert (await web.post("/", body="known", downgrades=True)).body == b"ok"

    with Script(answers(plain)) as other, Script(secure) as server:
        url = server.url.replace("http:", "https:") + f"?tls_ca={place}/ca.crt"
        if asynchronous:
            asyncio.run(main(url))
            return
        with sync.connect(url, kind=sync.Http) as web:
            web.redirects = 1
            with pytest.raises(sync.RedirectError, match="from https to http"):
                web.post("/", body="secret")
            assert got == []
            web.downgrades = True
            assert web.post("/", body="known").body == b"ok"


@pytest.mark.parametrize(
    ("to", "url"),
    [
        ("http://b\u00fccher.example:81/\u00e9", "http://xn--bcher-kva.example:81/%C3%A9"),
        ("//B\u00dcCHER.example", "http://xn--bcher-kva.example"),
        ("http://\ufffe.example/", ""),
        ("http://a%2Fb/", ""),
        ("http://%ff/", ""),
        ("http://" + "\u00fc" * 80 + ".example/", ""),
    ],
)
def test_hosts_beyond_ascii(to: str, url: str) -> None:
    head = Head([302, b"Found", [b"location", to.encode()]])
    if url:
        assert http_places.location(head, "http://here/") == url
    else:
        with pytest.raises(sync.RedirectError, match="no http or https URL"):
            http_places.location(head, "http://here/")


def test_host_that_cannot_be() -> None:
    """What connect() would refuse is the redirect's fault."""
    to = "http://" + "a" * 300 + "/"
    with Script(answers(lambda _: leads(302, to))) as server, sync.connect(server.url) as web:
        with pytest.raises(sync.RedirectError, match="cannot be used"):
            web.get("/", redirects=1)


def test_time_is_for_the_whole() -> None:
    """And not for each answer that leads on."""

    def reply(request: bytes) -> bytes:
        threading.Event().wait(0.1)
        return leads(302, "/")

    async def main(url: str) -> None:
        async with aio.connect(url + "?timeout=500ms", kind=aio.Http) as web:
            with pytest.raises(iokernel.Timeout):
                await web.get("/", redirects=1000)

    with Script(answers(reply)) as server:
        with sync.connect(server.url) as web, pytest.raises(iokernel.Timeout):
            web.get("/", redirects=1000, timeout=0.5)
        asyncio.run(main(server.url))


def test_many_places() -> None:
    """Clients that are in use stay, others are closed when they are many; behind close() there are no new ones."""
    made: list[str] = []
    closed: list[str] = []

    class Other:
        def __init__(self, name: str) -> None:
            self.name = name
            made.append(name)

        def close(self) -> None:
            closed.append(self.name)

    def take(n: int) -> Other:
        client: Other = others.take(("http", f"h{n}", 80), lambda: Other(f"h{n}"))
        return client

    others = http_places.Others()
    used = [take(n) for n in range(30)]
    assert closed == []
    assert take(3) is used[3]
    for client in used[:20]:
        others.give_back(client)
    assert closed == ["h0", "h1", "h2", *[f"h{n}" for n in range(4, 15)]]
    assert take(3) is used[3]
    others.hold(used[15])
    for n in range(30, 35):
        others.give_back(take(n))
    assert {"h3", "h15"}.isdisjoint(closed)
    others.close()
    assert sorted(closed) == sorted(made)
    with pytest.raises(iokernel.Closed):
        take(40)


def test_streams_keep_their_place() -> None:
    """An answer that is still being read keeps its connection, however many other places there are."""
    gate = threading.Event()

    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if b" /long " in request:
                peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
                gate.wait(60)
                peer.send(b"cd")
            else:
                peer.send(OK)

    with Script(serve) as other:
        port = other.url.rpartition(":")[2]

        def lead(request: bytes) -> bytes:
            path = request.split(b" ")[1].decode()
            host = "127.0.0.1" if path == "/long" else f"127.0.1.{path[1:]}"
            return leads(302, f"http://{host}:{port}{path}")

        with Script(answers(lead)) as server, sync.connect(server.url, kind=sync.Http) as web:
            web.redirects = 1
            with web.stream("GET", "/long", timeout=60) as response:
                assert next(response) == b"ab"
                for n in range(1, http_places.OTHERS_MAX + 4):
                    with pytest.raises(iokernel.Error):  # nobody is there
                        web.get(f"/{n}", timeout=0.05)
                gate.set()
                assert response.read() == b"cd"
            assert len(web._others._kept) <= http_places.OTHERS_MAX


# ---- cookies ------------------------------------------------------------------------------------


def test_cookies_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    jar = http.cookiejar.CookieJar()

    def keep(host: str, *cookies: str) -> None:
        fields = [part for one in cookies for part in (b"set-cookie", one.encode())]
        http_cookies.keep_cookies(jar, Head([200, b"", fields]), f"http://{host}/")

    most = http_cookies.DOMAIN_COOKIES_MAX
    for n in range(10 * most):
        keep("one.example", f"c{n}=x")
        assert len(jar) < most + http_cookies.LOOK_EVERY
    assert [cookie.name for cookie in jar][-most:] == [f"c{n}" for n in range(9 * most, 10 * most)]
    keep("one.example", "large=" + "x" * 5000)
    assert "large" not in [cookie.name for cookie in jar]
    monkeypatch.setattr(http_cookies, "COOKIES_MAX", 200)
    for n in range(500):
        keep(f"h{n}.example", "a=b")
        assert len(jar) < 200 + http_cookies.LOOK_EVERY
    assert "h499.example" in [cookie.domain for cookie in jar]


def test_cookies_of_upgrades() -> None:
    def serve(peer: Peer) -> None:
        while (request := peer.request()) is not None:
            if b"upgrade" in request:
                peer.send(
                    b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: echo\r\n"
                    b"set-cookie: a=1; path=/\r\n\r\n"
                )
            else:
                assert b"\r\ncookie: a=1\r\n" in request
                peer.send(OK)

    with Script(serve) as server, sync.connect(server.url, kind=sync.Http) as web:
        web.cookies = http.cookiejar.CookieJar()
        web.upgrade("/", "echo").close()
        assert [cookie.name for cookie in web.cookies] == ["a"]
        assert web.get("/").status == 200


# ---- forms --------------------------------------------------------------------------------------


def test_values_in_bytes() -> None:
    def reply(request: bytes) -> bytes:
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(request), request)

    values = {"a": bytearray(b"x"), "b": memoryview(b"y"), "c": [bytearray(b"z"), 1], "d": {"e"}}
    with Script(answers(reply)) as server, sync.connect(server.url) as web:
        assert web.post("/", data=values).body.endswith(b"\r\n\r\na=x&b=y&c=z&c=1&d=e")
        assert web.get("/", params=values).body.startswith(b"GET /?a=x&b=y&c=z&c=1&d=e HTTP")
        told = web.post("/", data=values, files={}).body
        assert [part.partition(b"\r\n")[0] for part in told.split(b"\r\n\r\n")[2:5]] == [
            b"x", b"y", b"z",
        ]  # fmt: skip
