"""Clients that mean no good, or are many: what each costs is bounded, and others are served meanwhile.

`make soak` (IOK_SOAK=1) sends 10 GB where 500 MB are sent here.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import select
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Iterator

import pytest
from kit.help import PATIENCE_S, until
from kit.serve import ASGI_HELP, Served, read_answer
from kit.servers import make_certificates

SOAK = "IOK_SOAK" in os.environ
GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"

APP = (
    ASGI_HELP
    + """
import os

LARGE = b"x" * 20_000_000
calls = 0
read = 0

async def app(scope, receive, send):
    global calls, read
    assert scope["type"] == "http"
    calls += 1
    path = scope["path"]
    if path == "/calls":
        await answer(send, str(calls).encode())
    elif path == "/large":
        await answer(send, LARGE)
    elif path == "/quarter":
        await answer(send, LARGE[: len(LARGE) // 4])
    elif path == "/deaf":  # it never asks for the body
        while not os.path.exists("go-on"):
            await asyncio.sleep(0.05)
        await answer(send, b"deaf")
    elif path == "/read":
        await read_all(receive)
        read += 1
        await answer(send, str(read).encode())
    else:
        await answer(send, b"hello")
"""
)


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """As many as may be had, for this process and the servers that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def serve(options: str = "", *more: str) -> Iterator[Served]:
    """A server of one process."""
    with Served(APP, "--workers", "0", *more, bind=f"127.0.0.1:0{options}") as served:
        yield served


def resident(served: Served) -> int:
    """Bytes of the server's memory."""
    pages = pathlib.Path(f"/proc/{served.process.pid}/statm").read_text().split()[1]
    return int(pages) * resource.getpagesize()


def cpu_s(served: Served) -> float:
    """Seconds that the server has computed."""
    fields = pathlib.Path(f"/proc/{served.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def many(stack: contextlib.ExitStack, served: Served, n: int) -> list[socket.socket]:
    """So many connections, from several addresses, since one has ports for not so many."""
    sockets = []
    for i in range(n):
        s = stack.enter_context(socket.socket())
        s.settimeout(PATIENCE_S)
        s.bind((f"127.0.1.{i % 8 + 1}", 0))
        s.connect(("127.0.0.1", served.port))
        sockets.append(s)
    return sockets


def check_others(served: Served, n: int = 50) -> None:
    """Ask as somebody else, on old and new connections."""
    client = served.client()
    for _ in range(n):
        client.request("GET", "/")
        assert client.getresponse().read() == b"hello"
        assert served.get().body == b"hello"
    client.close()


def answered(s: socket.socket) -> bytes:
    """All that comes until the server ends, by a reset as well."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while part := s.recv(1_000_000):
            got += part
    return got


# ---- slow senders -------------------------------------------------------------------------------


def test_thousands_of_half_heads_disturb_nobody() -> None:
    with serve("?header_timeout=1h") as served, contextlib.ExitStack() as stack:
        check_others(served)
        before = resident(served)
        for n, s in enumerate(many(stack, served, 5000)):
            s.sendall(GET[: 1 + n % (len(GET) - 1)])
        check_others(served)
        grown = resident(served) - before
        print(f"5000 half heads: {grown / 1e6:.1f} MB")
        assert grown < 40e6


def test_a_head_has_its_time_however_it_comes() -> None:
    with serve("?header_timeout=1s") as served, contextlib.ExitStack() as stack:
        silent, half, dripping = many(stack, served, 3)
        half.sendall(GET[:20])
        dripping.settimeout(0.05)
        dripping.sendall(b"GET / HTTP/1.1\r\n")
        got = b""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                dripping.sendall(b"x: y\r\n")
                if not (part := dripping.recv(1000)):
                    break
                got += part
            except TimeoutError:
                pass
            except ConnectionError:
                break
        else:
            raise AssertionError("a head took as long as it liked")
        assert got.startswith(b"HTTP/1.1 408 ")
        assert answered(half).startswith(b"HTTP/1.1 408 ")
        assert answered(silent) == b""
        check_others(served, 5)


def test_a_body_has_its_time_from_part_to_part() -> None:
    with serve("?body_timeout=1s") as served, contextlib.ExitStack() as stack:
        for n, s in enumerate(sockets := many(stack, served, 500)):
            head = b"Content-Length: 1000" if n % 2 else b"Transfer-Encoding: chunked"
            s.sendall(b"POST /read HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n\r\n3e8\r\nabc")
        check_others(served, 5)
        for s in sockets:
            assert answered(s).startswith(b"HTTP/1.1 408 ")
        assert (
            served.request("POST", "/read", b"abc").body == b"1"
        )  # the others never had their end


def test_a_body_that_trickles_does_not_come_for_ever() -> None:
    with serve("?body_timeout=5s&body_rate=1000") as served, contextlib.ExitStack() as stack:
        sockets = many(stack, served, 100)
        for n, s in enumerate(sockets):
            head = b"Content-Length: 100000" if n % 2 else b"Transfer-Encoding: chunked"
            s.sendall(b"POST /read HTTP/1.1\r\nHost: h\r\n" + head + b"\r\n\r\nffff\r\n")
        left = sockets
        for _ in range(int(PATIENCE_S * 10)):  # no pause is long
            for s in left:
                with contextlib.suppress(ConnectionError):
                    s.sendall(b"x")
            ready, _, _ = select.select(left, [], [], 0.1)
            left = [s for s in left if s not in ready]
            if not left:
                break
        assert not left
        for s in sockets:
            assert answered(s).startswith(b"HTTP/1.1 408 ")
        check_others(served, 5)


def test_a_handshake_has_its_time() -> None:
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
        make_certificates(directory)
        certificate = ("--ssl-certfile", str(directory / "server.crt"))
        key = ("--ssl-keyfile", str(directory / "server.key"))
        served = stack.enter_context(serve("?handshake_timeout=2s", *certificate, *key))
        sockets = many(stack, served, 300)
        for n, s in enumerate(sockets):
            hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
            s.sendall(hello[: n % (len(hello) + 1)])
        trust = ssl.create_default_context(cafile=str(directory / "ca.crt"))
        for _ in range(5):
            with (
                served.connect() as plain,
                trust.wrap_socket(plain, server_hostname="localhost") as s,
            ):
                s.sendall(GET)
                assert read_answer(s).endswith(b"hello")
        for s in sockets:
            assert answered(s) == b""


# ---- slow readers -------------------------------------------------------------------------------


def test_slow_readers_share_what_they_do_not_read() -> None:
    with serve("?write_timeout=1h") as served, contextlib.ExitStack() as stack:
        served.get("/large")
        before = resident(served)
        for s in many(stack, served, 100):  # 2 GB
            s.sendall(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        check_others(served)
        until(lambda: int(served.get("/calls").body) > 200)
        check_others(served)
        grown = resident(served) - before
        print(f"100 slow readers of 20 MB: {grown / 1e6:.1f} MB")
        assert grown < 100e6


def test_slow_readers_do_not_take_all_serving_calls() -> None:
    with serve("?write_timeout=1h") as served, contextlib.ExitStack() as stack:
        for s in many(stack, served, 150):  # of 5 MB each, which the port has room for
            s.sendall(b"GET /quarter HTTP/1.1\r\nHost: h\r\n\r\n")
        until(lambda: int(served.get("/calls").body) > 150)
        check_others(served)


def test_a_reader_that_does_not_go_on_is_given_up() -> None:
    with serve("?write_timeout=1s") as served, contextlib.ExitStack() as stack:
        for s in (sockets := many(stack, served, 20)):
            s.sendall(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        check_others(served, 5)
        # The server has dropped them: what the system has kept for them comes, and then the end.
        until(lambda: established(served) == 0, "the end of those connections")
        for s in sockets:
            assert 0 < len(answered(s)) < 20_000_000


def test_pipelining_without_reading_is_bounded() -> None:
    with serve("?write_timeout=1h&header_timeout=1h") as served, contextlib.ExitStack() as stack:
        before = resident(served)
        sent = 0
        for s in many(stack, served, 4):
            s.settimeout(1)
            with contextlib.suppress(TimeoutError):
                for _ in range(100):
                    s.sendall(GET * 10_000)
                    sent += 1
        assert sent < 400  # the server has stopped reading
        check_others(served)
        grown = resident(served) - before
        print(f"pipelining without reading: {grown / 1e6:.1f} MB")
        assert grown < 40e6


def established(served: Served) -> int:
    """Connections that the server has, by the system's table."""
    port = f":{served.port:04X}"
    rows = [line.split() for line in pathlib.Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {row[9] for row in rows if row[1].endswith(port) and row[3] != "0A" and row[9] != "0"}
    mine = set()
    directory = pathlib.Path(f"/proc/{served.process.pid}/fd")
    for fd in list(directory.iterdir()):
        with contextlib.suppress(OSError):
            mine.add(os.readlink(fd))
    return sum(f"socket:[{inode}]" in mine for inode in inodes)


# ---- many ---------------------------------------------------------------------------------------


def test_ten_thousand_idle_connections() -> None:
    with serve("?idle=1h") as served, contextlib.ExitStack() as stack:
        check_others(served)
        before = resident(served)
        for s in many(stack, served, 10_000):
            s.sendall(GET)
            assert s.recv(1000).startswith(b"HTTP/1.1 200")
        check_others(served)
        assert established(served) >= 10_000
        grown = resident(served) - before
        print(f"10,000 idle connections: {grown / 1e6:.1f} MB")
        assert grown < 40e6


def test_more_connections_than_allowed_wait_for_their_turn() -> None:
    with serve("?max_connections=20") as served, contextlib.ExitStack() as stack:
        sockets = many(stack, served, 200)
        for s in sockets:
            s.sendall(GET)
        for s in sockets[:20]:
            assert read_answer(s).endswith(b"hello")
        assert established(served) == 20
        for s in sockets:
            if s not in sockets[:20]:
                assert read_answer(s).endswith(b"hello")
            s.close()
        check_others(served, 5)


def test_idle_connections_make_room() -> None:
    with serve("?max_connections=50&idle=1h") as served, contextlib.ExitStack() as stack:
        sockets = many(stack, served, 50)
        for s in sockets:
            s.sendall(GET)
            assert read_answer(s).endswith(b"hello")
        check_others(served, 5)
        assert established(served) <= 50
        assert answered(sockets[0]) == b""


def test_no_descriptors_left() -> None:
    with serve("?header_timeout=1h&idle=1h") as served, contextlib.ExitStack() as stack:
        check_others(served, 2)
        used = len(list(pathlib.Path(f"/proc/{served.process.pid}/fd").iterdir()))
        resource.prlimit(served.process.pid, resource.RLIMIT_NOFILE, (used + 50, used + 50))
        sockets = many(stack, served, 200)
        sockets[0].sendall(GET)
        assert read_answer(sockets[0]).endswith(b"hello")  # who is in is served
        until(lambda: established(served) >= 40)
        before, began = cpu_s(served), time.monotonic()
        time.sleep(1)
        assert cpu_s(served) - before < 0.5 * (time.monotonic() - began)  # it does not spin
        for s in sockets[:190]:
            s.close()
        check_others(served, 5)
        for s in sockets[190:]:
            s.sendall(GET)
            assert read_answer(s).endswith(b"hello")


def test_connections_that_come_and_go_at_once() -> None:
    with serve() as served:
        reset = struct.pack("ii", 1, 0)
        for n in range(3000):
            with served.connect() as s:
                if n % 3:
                    s.sendall(GET[: n % 40])
                if n % 2:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        check_others(served)
        until(lambda: established(served) == 0)


# ---- much ---------------------------------------------------------------------------------------


SIZE = 10_000_000_000 if SOAK else 500_000_000


def send_much(served: Served, target: bytes, field: bytes, part: bytes) -> tuple[int, int]:
    """Send SIZE octets, or as many as are taken; how many, and the memory that they cost the server."""
    before = highest = resident(served)
    sent = 0
    with served.connect() as s:
        s.sendall(b"POST " + target + b" HTTP/1.1\r\nHost: h\r\n" + field + b"\r\n\r\n")
        s.settimeout(2)  # then it is taken that nobody reads any more
        with contextlib.suppress(ConnectionError, TimeoutError):
            while sent < SIZE:
                s.sendall(part)
                sent += len(part)
                highest = max(highest, resident(served))
        check_others(served)
        highest = max(highest, resident(served))
    return sent, highest - before


@pytest.mark.timeout(3600 if SOAK else 120)
@pytest.mark.parametrize(
    ("field", "part"),
    [
        (b"Content-Length: %d" % SIZE, b"x" * 1_000_000),
        (b"Transfer-Encoding: chunked", b"f4240\r\n" + b"x" * 1_000_000 + b"\r\n"),
    ],
    ids=["length", "chunks"],
)
@pytest.mark.parametrize("target", [b"/deaf", b"/"])
@pytest.mark.parametrize("limit", ["16m", "4g"])
def test_a_body_that_nobody_reads(target: bytes, field: bytes, part: bytes, limit: str) -> None:
    """The application does not answer either, or at once. What is not refused waits at the client's."""
    with serve(f"?body_timeout=1h&max_request={limit}") as served:
        check_others(served)
        sent, cost = send_much(served, target, field, part)
        print(f"{target!r}: {sent / 1e6:.0f} MB of a body that nobody reads: {cost / 1e6:.1f} MB")
        assert cost < 32e6
        (served.directory / "go-on").touch()
        check_others(served, 5)
