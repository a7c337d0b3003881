"""http.response.pathsend of ASGI: files as bodies, small and large, slow readers, and what cannot be sent."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import socket
from collections.abc import Iterator

import pytest
from kit.help import PATIENCE_S, until
from kit.serve import ASGI_HELP, Served

SMALL, LARGE = 5000, 3_000_001

APP = (
    ASGI_HELP
    + """
import os
import pathlib
import iokernel
from starlette.responses import FileResponse

iokernel.configure(port_bytes_max=1_000_000)
HERE = pathlib.Path(__file__).parent


async def app(scope, receive, send):
    how, _, name = scope["path"][1:].partition("/")
    path = str(HERE / name) if name else "relative"
    assert scope["extensions"] == {"http.response.pathsend": {}}
    if how == "starlette":
        return await FileResponse(path)(scope, receive, send)
    headers = [(b"Content-Length", b"7")] if how == "wrong" else []
    if how != "early":
        await send({"type": "http.response.start", "status": 200, "headers": headers})
    if how == "twice":
        await send({"type": "http.response.pathsend", "path": path})
    if how == "mixed":
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
    if how == "meanwhile":
        sending = asyncio.ensure_future(send({"type": "http.response.pathsend", "path": path}))
        await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"x"})
    if how == "cut":
        sending = asyncio.ensure_future(send({"type": "http.response.pathsend", "path": path}))
        await asyncio.sleep(0.1)
        os.truncate(path, 1000)
        await sending
    await send({"type": "http.response.pathsend", **({} if how == "none" else {"path": path})})
"""
)


def content(size: int) -> bytes:
    return bytes(range(251)) * (size // 251) + bytes(size % 251)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(APP, "--lifespan", "off") as server:
        for size in (0, SMALL, LARGE):
            (server.directory / str(size)).write_bytes(content(size))
        os.mkfifo(server.directory / "fifo")
        yield server


def files(served: Served) -> list[str]:
    """Those of the application's folder that the worker has open, but for its log."""
    (worker,) = served.children()
    names = []
    for fd in pathlib.Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            names.append(os.readlink(fd))
    return [n for n in names if str(served.directory) in n and not n.endswith("/said")]


@pytest.mark.parametrize("how", ["plain", "starlette"])
@pytest.mark.parametrize("size", [0, SMALL, LARGE])
def test_a_file_is_sent(served: Served, how: str, size: int) -> None:
    for _ in range(3):
        answer = served.get(f"/{how}/{size}")
        assert answer.status == 200
        assert answer.headers["content-length"] == str(size)
        assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content(size)).digest()
        head = served.request("HEAD", f"/{how}/{size}")
        assert (head.status, head.headers["content-length"], head.body) == (200, str(size), b"")
    until(lambda: not files(served))


def test_slow_readers_of_files(served: Served) -> None:
    """More of them than fit into the port at once."""
    clients = []
    for _ in range(12):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        s.settimeout(PATIENCE_S)
        s.connect(("127.0.0.1", served.port))
        s.sendall(b"GET /plain/%d HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % LARGE)
        clients.append(s)
    clients.pop().close()  # one goes
    for s in clients:
        got = b""
        while part := s.recv(1 << 20):
            got += part
        s.close()
        assert got.partition(b"\r\n\r\n")[2] == content(LARGE)
    until(lambda: not files(served))


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("/plain/missing", "No such file or directory"),
        ("/plain/.", "it is not a file"),
        ("/plain/fifo", "it is not a file"),
        ("/plain", "'relative': No such file or directory"),
        ("/none/x", "there must be a path"),
        (f"/early/{SMALL}", "is possible once, behind http.response.start"),
    ],
)
def test_what_cannot_be_sent(served: Served, target: str, said: str) -> None:
    assert served.get(target).status == 500
    until(lambda: said in served.log)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("mixed", "is possible once, behind http.response.start"),
        ("meanwhile", "'http.response.body' came before http.response.pathsend was through"),
        ("wrong", "Content-Length"),
        ("cut", "a file became shorter while it was sent"),
    ],
)
def test_a_file_that_breaks_off(served: Served, how: str, said: str) -> None:
    victim = served.directory / "victim"
    victim.write_bytes(bytes(50_000_000))
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S) as s:
        s.sendall(b"GET /%b/victim HTTP/1.1\r\nHost: h\r\n\r\n" % how.encode())
        until(lambda: how != "cut" or victim.stat().st_size == 1000)  # then it is read
        got = b""
        while part := s.recv(1 << 20):  # it ends
            got += part
        assert len(got) < 50_000_000
    until(lambda: said in served.log)
    assert served.get(f"/plain/{SMALL}").body == content(SMALL)
    until(lambda: not files(served))


def test_a_second_file_is_refused(served: Served) -> None:
    assert served.get(f"/twice/{SMALL}").body == content(SMALL)
    until(lambda: "is possible once" in served.log)
