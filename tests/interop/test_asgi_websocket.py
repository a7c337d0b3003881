"""WebSockets of ASGI, with a real client: opening, messages, closing, and what goes wrong."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from kit.help import until
from kit.serve import ASGI_HELP, Served
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

APP = (
    ASGI_HELP
    + '''
notes = []


async def on_echo(scope, receive, send):
    await send({"type": "websocket.accept", "headers": [(b"x-y", b"z")]})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", **{k: message[k] for k in message if k != "type"}})
    notes.append([message["type"], message["code"], message["reason"]])


async def on_scope(scope, receive, send):
    await send({"type": "websocket.accept", "subprotocol": scope["subprotocols"][-1]})
    shown = {k: scope[k] for k in ("type", "scheme", "path", "subprotocols", "extensions")}
    shown["method"] = "method" in scope
    await send({"type": "websocket.send", "text": json.dumps(shown)})


async def on_close(scope, receive, send):
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": "bye"})
    await send({"type": "websocket.close", "code": 4001, "reason": "enough, café"})
    notes.append([(message := await receive())["type"], message["code"]])


async def on_return(scope, receive, send):
    await send({"type": "websocket.accept"})


async def on_fail(scope, receive, send):
    await send({"type": "websocket.accept"})
    raise LookupError("on purpose")


async def on_deny(scope, receive, send):
    await send({"type": "websocket.close"})


async def on_deny_fully(scope, receive, send):
    await send({"type": "websocket.http.response.start", "status": 418,
                "headers": [(b"x-why", b"tea")]})
    await send({"type": "websocket.http.response.body", "body": b"short", "more_body": True})
    await send({"type": "websocket.http.response.body", "body": b" and stout"})


async def on_nothing(scope, receive, send):
    pass


async def on_wrong(scope, receive, send):
    for message in (
        {"type": "websocket.send", "text": "early"},
        {"type": "http.response.start", "status": 200},
        {"type": "websocket.accept"},
        {"type": "websocket.accept"},
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": "a", "bytes": b"b"},
        {"type": "websocket.send", "text": b"a"},
        {"type": "websocket.send", "bytes": "b"},
        {"type": "websocket.close", "code": 1},
        {"type": "websocket.http.response.start", "status": 200},
    ):
        try:
            await send(message)
            notes.append("taken")
        except Exception as error:
            notes.append(type(error).__name__)


async def on_slow(scope, receive, send):
    """Reads what came before the client closed, later."""
    await send({"type": "websocket.accept"})
    await asyncio.sleep(0.3)
    while (message := await receive())["type"] == "websocket.receive":
        notes.append(message["text"])
    notes.append(message["code"])
    try:
        await send({"type": "websocket.send", "text": "late"})
    except OSError as error:
        notes.append(type(error).__name__)


async def on_flood(scope, receive, send):
    """Without waiting for the client it must not get far."""
    await send({"type": "websocket.accept"})
    for n in range(2000):
        await send({"type": "websocket.send", "bytes": bytes(100_000)})
        notes[:] = [n]


async def app(scope, receive, send):
    if scope["type"] == "http":
        await answer(send, json.dumps(notes).encode())
        if scope["query_string"]:
            notes.clear()
        return
    assert (await receive()) == {"type": "websocket.connect"}
    await globals()["on_" + scope["path"][1:]](scope, receive, send)
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served(APP, "--loop", request.param, "--lifespan", "off") as server:
        yield server


@pytest.fixture(autouse=True)
def clear(served: Served) -> None:
    served.get("/?clear")


def notes(served: Served) -> object:
    return json.loads(served.get("/").body)


def dial(
    served: Served, path: str, **options: object
) -> contextlib.AbstractContextManager[ClientConnection]:
    return connect(f"ws://127.0.0.1:{served.port}{path}", open_timeout=20, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages(served: Served, compression: str | None) -> None:
    with dial(served, "/echo", compression=compression, max_size=None) as ws:
        assert ws.response is not None
        assert ws.response.headers["x-y"] == "z"
        for message in ("", "café", b"\0\xff", "x" * 100_000, bytes(5_000_000), "end"):
            ws.send(message)
            assert ws.recv(timeout=20) == message
        for n in range(500):
            ws.send(str(n))
        assert [ws.recv(timeout=20) for _ in range(500)] == [str(n) for n in range(500)]
        ws.close(4000, "done")
    until(lambda: notes(served) == [["websocket.disconnect", 4000, "done"]])


def test_scope_and_subprotocol(served: Served) -> None:
    with dial(served, "/scope", subprotocols=["one", "two"]) as ws:
        assert ws.subprotocol == "two"
        assert json.loads(ws.recv(timeout=20)) == {
            "type": "websocket",
            "scheme": "ws",
            "path": "/scope",
            "subprotocols": ["one", "two"],
            "extensions": {"websocket.http.response": {}},
            "method": False,
        }


@pytest.mark.parametrize(
    ("path", "code", "reason"),
    [("/close", 4001, "enough, café"), ("/return", 1000, ""), ("/fail", 1011, "")],
)
def test_the_application_ends_it(served: Served, path: str, code: int, reason: str) -> None:
    with dial(served, path) as ws:
        with pytest.raises(ConnectionClosed):
            while True:
                ws.recv(timeout=20)
        assert (ws.close_code, ws.close_reason) == (code, reason)
    if path == "/close":
        until(lambda: notes(served) == [["websocket.disconnect", 4001]])
    if path == "/fail":
        until(lambda: "LookupError: on purpose" in served.log)


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [("/deny", 403, b""), ("/deny_fully", 418, b"short and stout"), ("/nothing", 500, None)],
)
def test_the_application_denies_it(
    served: Served, path: str, status: int, body: bytes | None
) -> None:
    with pytest.raises(InvalidStatus) as caught, dial(served, path):
        pass
    assert caught.value.response.status_code == status
    assert body is None or caught.value.response.body == body
    assert status != 418 or caught.value.response.headers["x-why"] == "tea"


def test_wrong_messages(served: Served) -> None:
    with dial(served, "/wrong") as ws:
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=20)
    assert notes(served) == [
        "RuntimeError", "RuntimeError", "taken", "RuntimeError", "TypeError", "TypeError",
        "TypeError", "TypeError", "ValueError", "RuntimeError",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (b"Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"426"),
        (b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n", b"400"),
        (b"Sec-WebSocket-Version: 13\r\n", b"400"),
    ],
)
def test_openings_that_are_wrong(served: Served, fields: bytes, status: bytes) -> None:
    with served.connect() as s:
        s.sendall(
            b"GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%b\r\n"
            % fields
        )
        assert s.recv(4096).startswith(b"HTTP/1.1 " + status)
    until(lambda: notes(served) == [["websocket.disconnect", 1006, ""]])


def test_what_came_before_the_close_is_read(served: Served) -> None:
    with dial(served, "/slow") as ws:
        for n in range(5):
            ws.send(str(n))
    until(lambda: notes(served) == ["0", "1", "2", "3", "4", 1000, "ClientGone"])


def test_a_client_that_is_lost(served: Served) -> None:
    with dial(served, "/echo") as ws:
        ws.send("x")
        ws.recv(timeout=20)
        ws.socket.shutdown(socket.SHUT_RDWR)
        until(lambda: notes(served) == [["websocket.disconnect", 1006, ""]])


def test_a_slow_reader_holds_the_application_back(served: Served) -> None:
    with dial(served, "/flood", compression=None, max_queue=1) as ws:
        ws.recv(timeout=20)
        until(lambda: notes(served) and notes(served) == notes(served))
        (n,) = notes(served)  # type: ignore[misc]
        assert n < 500


def test_many_at_once(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(dial(served, "/echo")) for _ in range(100)]
        for n, ws in enumerate(connections):
            ws.send(str(n))
        for n, ws in enumerate(connections):
            assert ws.recv(timeout=20) == str(n)
    until(lambda: len(notes(served)) == 100)  # type: ignore[arg-type]


BUSY = """
import os

async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    open("begun", "w").close()
    while not os.path.exists("enough"):
        sum(range(10_000))
    await send({"type": "websocket.send", "text": "done"})
    await receive()
"""


def frames(s: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of what a server sends, if it is short."""
    with s.makefile("rb") as file:
        while len(head := file.read(2)) == 2:
            assert head[1] < 126
            yield head[0] & 15, file.read(head[1])


def test_pings_go_on_while_the_application_computes() -> None:
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    with (
        Served(BUSY, "--lifespan", "off", bind="127.0.0.1:0?ws_ping=100ms") as served,
        served.connect() as s,
    ):
        s.sendall(
            b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%b\r\n"
            % key
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += s.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        received = frames(s)
        s.sendall(b"\x81\x82\0\0\0\0go")
        until((served.directory / "begun").exists)
        for _ in range(5):
            assert next(received) == (9, b"")
            s.sendall(b"\x8a\x80\0\0\0\0")
        s.sendall(b"\x89\x81\0\0\0\0p")  # ours are answered as well
        assert any(frame == (10, b"p") for frame in received)
        (served.directory / "enough").touch()
        assert any(frame == (1, b"done") for frame in received)


def test_the_server_ends() -> None:
    with Served(APP, "--lifespan", "off") as served, dial(served, "/echo") as ws:
        ws.send("x")
        assert ws.recv(timeout=20) == "x"
        assert served.end() == 0
        with pytest.raises(ConnectionClosed):
            ws.recv(timeout=20)
        assert ws.close_code == 1012


STARLETTE = """
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

async def chat(websocket):
    await websocket.accept(subprotocol="chat")
    try:
        while True:
            await websocket.send_json({"got": await websocket.receive_json()})
    except WebSocketDisconnect:
        open("left", "w").close()

app = Starlette(routes=[WebSocketRoute("/chat", chat)])
"""


def test_starlette() -> None:
    with Served(STARLETTE) as server:
        with dial(server, "/chat", subprotocols=["chat"]) as ws:
            ws.send('{"a": 1}')
            assert json.loads(ws.recv(timeout=20)) == {"got": {"a": 1}}
        until((server.directory / "left").exists)
        with pytest.raises(InvalidStatus), dial(server, "/nowhere"):
            pass
