"""The PROXY protocol, as `iokernel serve` reads it: in front of TLS, from HAProxy, in pieces, and what is none."""

from __future__ import annotations

import contextlib
import json
import pathlib
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator

import pytest
from kit.help import PATIENCE_S, until
from kit.serve import ASGI_HELP, Served, read_answer
from kit.servers import free_port, make_certificates

APP = (
    ASGI_HELP
    + """
async def app(scope, receive, send):
    told = {"client": scope["client"], "scheme": scope["scheme"]}
    await answer(send, json.dumps(told).encode())
"""
)
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
V1 = b"PROXY TCP4 192.0.2.7 192.0.2.1 56324 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x07\xc0\x00\x02\x01\xdc\x04\x01\xbb"

HAPROXY = """
global
  log stdout format raw local0
defaults
  mode tcp
  timeout connect 30s
  timeout client 60s
  timeout server 60s
frontend all
  bind 127.0.0.1:FRONT
  default_backend ours
backend ours
  server ours 127.0.0.1:BACK send-proxy-v2
"""


@pytest.fixture(scope="module")
def certificates() -> Iterator[pathlib.Path]:
    with tempfile.TemporaryDirectory(prefix="iok-proxy-") as directory:
        make_certificates(pathlib.Path(directory))
        yield pathlib.Path(directory)


@contextlib.contextmanager
def secure(certificates: pathlib.Path, *options: str, chaos: str = "") -> Iterator[Served]:
    certificate = ("--ssl-certfile", str(certificates / "server.crt"))
    key = ("--ssl-keyfile", str(certificates / "server.key"))
    env = {"IOK_CHAOS": chaos}
    with Served(APP, "--proxy-protocol", *certificate, *key, *options, env=env) as served:
        yield served


def over_tls(certificates: pathlib.Path, s: socket.socket) -> ssl.SSLSocket:
    trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    return trust.wrap_socket(s, server_hostname="localhost")


def told(s: socket.socket, request: bytes = GET) -> dict[str, object]:
    s.sendall(request)
    return json.loads(read_answer(s).partition(b"\r\n\r\n")[2])


@pytest.mark.parametrize("preface", [V1, V2], ids=["v1", "v2"])
def test_in_front_of_tls(certificates: pathlib.Path, preface: bytes) -> None:
    with secure(certificates) as served:
        with served.connect() as plain:
            plain.sendall(preface)
            with over_tls(certificates, plain) as s:
                for _ in range(3):
                    assert told(s) == {"client": ["192.0.2.7", 56324], "scheme": "https"}
        with served.connect() as plain:  # byte by byte, and together with the first of TLS
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for n in range(len(preface) - 1):
                plain.sendall(preface[n : n + 1])
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
            tls = trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
            first = preface[-1:]
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    plain.sendall(first + outgoing.read())
                    first = b""
                    incoming.write(plain.recv(65536))
            tls.write(GET)
            plain.sendall(outgoing.read())
            answer = b""
            while b"192.0.2.7" not in answer:
                try:
                    answer += tls.read()
                except ssl.SSLWantReadError:
                    incoming.write(plain.recv(65536))
            assert answer.startswith(b"HTTP/1.1 200 ")


def test_in_front_of_tls_that_is_cut_up(certificates: pathlib.Path) -> None:
    with secure(certificates, chaos="seed=3,pieces=20,partial=0.5") as served:
        for _ in range(20):
            with served.connect() as plain:
                plain.sendall(V2)
                with over_tls(certificates, plain) as s:
                    assert told(s) == {"client": ["192.0.2.7", 56324], "scheme": "https"}


def test_what_is_no_preface(certificates: pathlib.Path) -> None:
    with secure(certificates) as served:
        for wrong in (
            b"GET / HTTP/1.1\r\n",
            b"PROXY TCP9 a b 1 2\r\n",
            V2[:12] + b"\x91\x11\0\x0c",
        ):
            with served.connect() as s, contextlib.suppress(ConnectionResetError):
                s.sendall(wrong)
                assert s.recv(100) == b""
        with served.connect() as s, pytest.raises((ssl.SSLError, ConnectionError)):
            over_tls(certificates, s)
        with served.connect() as s:  # it is the proxy's own: a check
            s.sendall(V2[:12] + b"\x20\0\0\0")
            with over_tls(certificates, s) as tls:
                assert told(tls)["client"][0] == "127.0.0.1"  # type: ignore[index]
    with secure(certificates, "--forwarded-allow-ips", "10.0.0.1") as served:
        with served.connect() as s, contextlib.suppress(ConnectionResetError):
            assert s.recv(100) == b""  # at once, whatever it may have to say


def test_one_that_says_nothing_has_its_time(certificates: pathlib.Path) -> None:
    certificate = ("--ssl-certfile", str(certificates / "server.crt"))
    key = ("--ssl-keyfile", str(certificates / "server.key"))
    bind = "127.0.0.1:0?handshake_timeout=1s"
    with Served(APP, "--proxy-protocol", *certificate, *key, bind=bind) as served:
        for said in (b"", V1[:20], V1, V1 + b"\x16\x03\x01"):
            with served.connect() as s, contextlib.suppress(ConnectionResetError):
                s.sendall(said)
                assert s.recv(100) == b""


def test_a_proxy_that_does_not_tell() -> None:
    """What the client says of itself is not believed on the proxy's account, nor as one of a unix socket."""
    said = GET[:-2] + b"X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\r\n"
    with Served(APP, "--proxy-protocol") as served:
        for preface in (b"PROXY UNKNOWN\r\n", V2[:12] + b"\x21\0\0\0"):
            with served.connect() as s:
                s.sendall(preface)
                assert told(s, said) == {"client": None, "scheme": "http"}
        with served.connect() as s:
            s.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 5 80\r\n")
            assert told(s, said) == {"client": ["6.6.6.6", 0], "scheme": "https"}


def test_behind_haproxy(certificates: pathlib.Path) -> None:
    """A balancer of TCP: it adds the preface, and TLS is between the client and us."""
    front = free_port()
    with secure(certificates) as served, contextlib.ExitStack() as stack:
        config = served.directory / "haproxy"
        text = HAPROXY.replace("FRONT", str(front)).replace("BACK", str(served.port))
        config.write_text(text)
        process = subprocess.Popen(["haproxy", "-db", "-f", str(config)], stdin=subprocess.DEVNULL)
        stack.callback(process.wait, PATIENCE_S)
        stack.callback(process.kill)

        def is_up() -> bool:
            with contextlib.suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", front)).close()
                return True
            return False

        until(is_up, "HAProxy")
        for _ in range(5):
            plain = stack.enter_context(
                socket.create_connection(("127.0.0.1", front), timeout=PATIENCE_S)
            )
            port = plain.getsockname()[1]
            s = stack.enter_context(over_tls(certificates, plain))
            for _ in range(2):
                assert told(s) == {"client": ["127.0.0.1", port], "scheme": "https"}
