"""Slow readers of a WSGI application's answers: they hold no thread, up to bounds."""

from __future__ import annotations

import contextlib
import socket
import tempfile
from collections.abc import Iterator

import pytest
from kit.help import PATIENCE_S, until
from kit.serve import Served

APP = """
TEXT = [("Content-Type", "text/plain")]
LARGE = b"0123456789abcdef" * 50000
served = []


def parts():
    for at in range(0, len(LARGE), 20000):
        yield LARGE[at : at + 20000]
    served.append(1)


def endless():
    while True:
        served.append(1)
        yield LARGE[:50000]


def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/whole":
        start_response("200 OK", TEXT)
        served.append(1)
        return [LARGE]
    if path == "/length":
        start_response("200 OK", TEXT + [("Content-Length", str(len(LARGE)))])
        return parts()
    start_response("200 OK", TEXT)
    return {"/parts": parts, "/endless": endless}.get(path, lambda: [str(len(served)).encode()])()
"""
LARGE = b"0123456789abcdef" * 50000
THREADS, CLIENTS = 4, 12


@contextlib.contextmanager
def serving(options: str = "", threads: int = THREADS) -> Iterator[Served]:
    """Serve on a unix socket: the system keeps little of what is sent to one, and always as little."""
    with tempfile.TemporaryDirectory(prefix="iok-slow-") as directory:
        bind = f"unix:{directory}/s{options}"
        with Served(APP, "--threads", str(threads), bind=bind) as server:
            yield server


def ask(served: Served, path: str) -> socket.socket:
    """A client that has asked, and reads nothing yet."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(PATIENCE_S)
    s.connect(served.url.removeprefix("unix:"))
    s.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path.encode())
    return s


def get(served: Served) -> bytes:
    """How many answers were made, or the status if it is not 200."""
    with ask(served, "/") as s:
        head, _, body = rest(s).partition(b"\r\n\r\n")
    status = head.split()[1]
    return unchunked(body) if b"chunked" in head and status == b"200" else body or status


def rest(s: socket.socket) -> bytes:
    """All that comes."""
    got = b""
    while part := s.recv(65536):
        got += part
    return got


def unchunked(body: bytes) -> bytes:
    """What stands in the chunks, to the last."""
    got, at = b"", 0
    while True:
        end = body.index(b"\r\n", at)
        n = int(body[at:end], 16)
        got += body[end + 2 : end + 2 + n]
        at = end + 4 + n
        if n == 0:
            assert at == len(body)
            return got


@pytest.mark.parametrize("path", ["/whole", "/parts", "/length"])
def test_slow_readers_hold_no_thread(path: str) -> None:
    with serving() as served, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(ask(served, path)) for _ in range(CLIENTS)]
        until(lambda: get(served) == b"%d" % CLIENTS)  # all, and nobody has read
        for s in slow:
            _, _, body = rest(s).partition(b"\r\n\r\n")
            assert (unchunked(body) if path == "/parts" else body) == LARGE


def test_the_listener_says_how_much() -> None:
    """With no room a thread is held, one request more is read, and others are refused."""
    with (
        serving("?max_unread=0&queue=0", threads=1) as served,
        ask(served, "/parts") as s,
        ask(served, "/") as next_one,
    ):
        until(lambda: get(served) == b"503")
        assert unchunked(rest(s).partition(b"\r\n\r\n")[2]) == LARGE
        assert rest(next_one).endswith(b"\r\n\r\n1")
        until(lambda: get(served) == b"1")


def test_an_endless_answer_runs_as_it_is_read() -> None:
    with serving() as served, ask(served, "/endless"):
        until(lambda: int(get(served)) > 20)  # 1 MiB
        seen = 0
        while (now := int(get(served))) != seen:
            seen = now
        assert seen < 40  # 2 MB: a MiB, and what the system takes


def test_a_client_that_never_reads_is_given_up() -> None:
    with serving("?write_timeout=300ms", threads=1) as served:
        with ask(served, "/endless"):
            until(lambda: "/endless: the client has gone" in served.log)
        assert get(served) != b"503"
