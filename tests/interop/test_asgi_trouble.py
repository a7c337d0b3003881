"""ASGI where something goes wrong: refused heads, bounds of the port, clients that stall, the end."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from kit.help import PATIENCE_S, until
from kit.serve import ASGI_HELP, Served
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

APP = (
    ASGI_HELP
    + """
import iokernel

notes = []
REFUSED = {
    "break": [(b"a", b"b\\r\\nc: d")],
    "lengths": [(b"content-length", b"1"), (b"content-length", b"2")],
    "upgrade": [(b"upgrade", b"raw")],
}


def start(headers=(), status=200):
    return {"type": "http.response.start", "status": status, "headers": headers}


def body(data, more=True):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def on_refused(scope, receive, send):
    "The kernel says so only when the application is on its way."
    await send(start(REFUSED[scope["query_string"].decode()]))
    try:
        for _ in range(1000):
            await send(body(b"x"))
            await asyncio.sleep(0.01)
    except OSError as error:
        notes.append(type(error).__name__)
        raise


async def on_refused_receiving(scope, receive, send):
    await receive()
    await send(start(REFUSED["break"]))
    await send(body(b"x"))
    notes.append((await receive())["type"])


async def on_no_task(scope, receive, send):
    "The next request gets no task."
    loop = asyncio.get_running_loop()

    def fail():
        del loop.get_debug
        raise RuntimeError("no task, on purpose")

    loop.get_debug = fail
    await answer(send)


async def on_secret(scope, receive, send):
    await answer(send, headers=[(b"set-cookie", "hunter%d" % 2)])


async def on_polite(scope, receive, send):
    "Has nothing to say to a client that has gone."
    notes.append("waits")
    while (await receive())["type"] != "http.disconnect":
        pass
    notes.append("returns")


async def on_cancelled(scope, receive, send):
    "A task that it waits for was cancelled, not itself."
    task = asyncio.ensure_future(asyncio.sleep(3600))
    asyncio.get_running_loop().call_soon(task.cancel)
    await task


async def on_shared(scope, receive, send):
    told = json.dumps([scope["extensions"].get("mine"), scope["asgi"].get("mine")])
    scope["extensions"]["mine"] = scope["asgi"]["mine"] = 1
    await answer(send, told.encode())


async def on_ticks(scope, receive, send):
    "Small parts, for ever, or as many as asked for."
    await send(start())
    for n in range(int(scope["query_string"] or b"1000000")):
        await send(body(b"0123456789"))
    await send(body(b"", False))


async def on_whole(scope, receive, send):
    await answer(send, bytes(int(scope["query_string"])))


async def on_hasty(scope, receive, send):
    "Sends without waiting; the answer comes whole and in order all the same."
    await send(start())
    waits = [asyncio.ensure_future(send(body(b"%d" % n * 200_000, n < 9))) for n in range(10)]
    await asyncio.gather(*waits)


async def on_notes(scope, receive, send):
    await answer(send, json.dumps(notes).encode())


async def app(scope, receive, send):
    await globals()["on_" + scope["path"][1:]](scope, receive, send)
"""
)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(APP, "--lifespan", "off", "--limit-concurrency", "3") as server:
        yield server


def notes(served: Served) -> list[str]:
    return json.loads(served.get("/notes").body)  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", ["break", "lengths", "upgrade"])
def test_a_refused_head_of_a_body_in_parts(served: Served, case: str) -> None:
    before = len(notes(served))
    for n in range(4):  # more often than there are calls: none is lost
        assert served.get(f"/refused?{case}").status == 500
        until(lambda n=n: notes(served)[before:] == ["ClientGone"] * (n + 1))  # type: ignore[misc]
    assert served.log.count("GET /refused: the application failed") >= 4
    assert "ValueError" in served.log


def test_a_refused_head_is_told_to_who_receives(served: Served) -> None:
    before = len(notes(served))
    assert served.get("/refused_receiving").status == 500
    until(lambda: notes(served)[before:] == ["http.disconnect"])


def test_a_request_without_a_task_is_answered() -> None:
    with Served(APP, "--lifespan", "off", "--limit-concurrency", "1") as served:
        for _ in range(3):
            assert served.get("/no_task").status == 200
            assert served.get("/whole?5").status == 500
            assert served.get("/whole?5").body == bytes(5)
        assert "no task, on purpose" in served.log


def test_a_header_of_a_wrong_type_is_not_shown(served: Served) -> None:
    assert served.get("/secret").status == 500
    until(lambda: "not (bytes, str), as b'set-cookie' has" in served.log)
    assert "hunter2" not in served.log


def test_an_answer_to_nobody_is_not_missed(served: Served) -> None:
    before = len(notes(served))
    for half in (True, False):
        with served.connect() as s:
            s.sendall(b"GET /polite HTTP/1.1\r\nHost: h\r\n\r\n")
            until(lambda: notes(served)[before:][-1:] == ["waits"])
            if half:
                s.shutdown(socket.SHUT_WR)
        until(lambda: notes(served)[before:][-1:] == ["returns"])
    until(lambda: served.log.count("GET /polite: the client had gone") == 2)
    assert "GET /polite: the application returned" not in served.log


def test_a_cancellation_that_nobody_asked_for_is_told(served: Served) -> None:
    assert served.get("/cancelled").status == 500
    until(lambda: "GET /cancelled: the application failed" in served.log)


def test_scopes_share_nothing(served: Served) -> None:
    assert [served.get("/shared").body for _ in range(3)] == [b"[null, null]"] * 3


# ---- bounds


def ask(served: Served, target: str) -> socket.socket:
    """Ask for it, and do not read."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(PATIENCE_S)
    s.connect(("127.0.0.1", served.port))
    s.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % target.encode())
    return s


def rest(s: socket.socket) -> bytes:
    got = b""
    while part := s.recv(1 << 20):
        got += part
    return got


def test_clients_that_stall_leave_room_for_others() -> None:
    few = APP + "\niokernel.configure(port_calls_max=400)\n"
    with Served(few, "--lifespan", "off") as served, contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(ask(served, "/ticks"))
        for _ in range(5):
            ticks = served.get("/ticks?500")
            assert (ticks.status, ticks.body) == (200, b"0123456789" * 500)
        assert "Overloaded" not in served.log


def test_answers_wait_for_room_on_the_port() -> None:
    small = APP + "\niokernel.configure(port_bytes_max=1_000_000)\n"
    with Served(small, "--lifespan", "off") as served, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(ask(served, "/whole?800000")) for _ in range(20)]
        slow += [stack.enter_context(ask(served, "/hasty")) for _ in range(5)]
        hasty = b"".join(b"%d" % n * 200_000 for n in range(10))
        for n, s in enumerate(slow):
            got = rest(s)
            assert got.startswith(b"HTTP/1.1 200"), n
            if n < 20:
                assert got.endswith(b"\r\n\r\n" + bytes(800_000)), n
            else:
                parts = got.partition(b"\r\n\r\n")[2]
                assert b"".join(parts.split(b"\r\n")[1::2]) == hasty
        assert served.get("/whole?2000000").status == 500
        until(lambda: "port_bytes_max=1000000" in served.log)
        assert "Overloaded" not in served.log


def test_slow_readers_of_large_answers_keep_no_others_waiting() -> None:
    """More of them than calls are made at a time."""
    with Served(APP, "--lifespan", "off") as many, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(ask(many, "/whole?5000000")) for _ in range(200)]
        for _ in range(5):
            assert many.get("/whole?5").body == bytes(5)
        assert len(rest(slow[-1])) > 5_000_000


# ---- the end

SOCKETS = (
    ASGI_HELP
    + """
def note(what):
    with open("notes", "a") as file:
        print(what, file=file)


async def on_talks(receive, send):
    await send({"type": "websocket.accept"})
    try:
        while True:
            await send({"type": "websocket.send", "text": "tick"})
            await asyncio.sleep(0.01)
    except Exception as error:
        note(f"{type(error).__name__} {isinstance(error, OSError)}")
        raise


async def on_stuck(receive, send):
    "Waits for a client that does not read."
    await send({"type": "websocket.accept"})
    try:
        while True:
            await send({"type": "websocket.send", "bytes": bytes(100_000)})
    except Exception as error:
        note(f"{type(error).__name__} {isinstance(error, OSError)}")
        raise


async def on_late(receive, send):
    "Accepts when the server is ending."
    note("asked")
    while not os.path.exists("accept"):
        await asyncio.sleep(0.01)
    await send({"type": "websocket.accept"})
    message = await receive()
    note(f"{message['type']} {message['code']}")


async def app(scope, receive, send):
    assert (await receive()) == {"type": "websocket.connect"}
    await globals()["on_" + scope["path"][1:]](receive, send)

import os
"""
)


def noted(served: Served) -> str:
    file = served.directory / "notes"
    return file.read_text() if file.exists() else ""


@pytest.mark.parametrize("path", ["/talks", "/stuck"])
def test_who_sends_at_the_end_sees_an_oserror(path: str) -> None:
    with Served(SOCKETS, "--lifespan", "off", "--graceful-timeout", "60") as served:
        with connect(f"ws://127.0.0.1:{served.port}{path}", max_size=None) as ws:
            ws.recv(timeout=PATIENCE_S)
            served.process.terminate()
            until(lambda: noted(served) == "ClientGone True\n")
            with pytest.raises(ConnectionClosed) as closed:
                for _ in range(100_000):
                    ws.recv(timeout=PATIENCE_S)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert served.wait() == 0
        assert "the application failed" not in served.log


def test_a_websocket_accepted_at_the_end_is_closed_at_once() -> None:
    with Served(SOCKETS, "--lifespan", "off", "--graceful-timeout", "1000") as served:
        with served.connect() as s:
            s.sendall(
                b"GET /late HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            until(lambda: noted(served) == "asked\n")
            served.process.terminate()
            until(lambda: "ending" in served.log)
            (served.directory / "accept").touch()
            got = rest(s)
        assert got.startswith(b"HTTP/1.1 101")
        assert got.endswith(b"\x88\x02\x03\xf4")  # 1012
        assert served.wait() == 0
        assert noted(served) == "asked\nwebsocket.disconnect 1012\n"
        assert "cut off" not in served.log
