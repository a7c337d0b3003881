"""ASGI 3: scopes, messages, tasks, errors and lifespan, as the specification has them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import pathlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kit.help import until
from kit.serve import ASGI_HELP, Served, read_answer

APP = (
    ASGI_HELP
    + '''
import contextvars
import hashlib

notes = []
variable = contextvars.ContextVar("variable", default="unset")
gate = asyncio.Event()


def plain(value):
    """As JSON has it: bytes become str."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value


async def say(send, value):
    await answer(send, json.dumps(plain(value)).encode())


async def on_scope(scope, receive, send):
    await say(send, {k: v for k, v in scope.items() if k != "app"})


async def on_body(scope, receive, send):
    first = await receive()
    await say(send, [first["type"], len(first["body"]), first["body"][:20], first["more_body"]])


async def on_task(scope, receive, send):
    first = asyncio.current_task()
    known_at_first = first in asyncio.all_tasks()
    before, _ = variable.get(), variable.set("set")
    await asyncio.sleep(0)
    await say(send, [
        first is not None, known_at_first, first is asyncio.current_task(),
        first in asyncio.all_tasks(), before, variable.get(), isinstance(first, asyncio.Task),
    ])


async def on_timeout(scope, receive, send):
    try:
        await asyncio.wait_for(asyncio.sleep(3600), 0.01)
    except asyncio.TimeoutError:
        await answer(send, b"timed out")


async def on_fail(scope, receive, send):
    raise LookupError("on purpose")


async def on_fail_late(scope, receive, send):
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 200})
    raise LookupError("on purpose, later")


async def on_nothing(scope, receive, send):
    await receive()


async def on_bad_field(scope, receive, send):
    await answer(send, b"x", headers=[(b"a", b"b\\r\\nc: d")])


START = {"type": "http.response.start", "status": 200}
BODY = {"type": "http.response.body", "body": b"x"}
WRONG = {
    "body-first": [BODY],
    "start-twice": [START, START],
    "body-after-end": [START, BODY, BODY],
    "unknown": [{"type": "http.response.nonsense"}],
    "no-type": [{}],
    "no-dict": [["http.response.start"]],
    "no-status": [{"type": "http.response.start"}],
    "status-text": [START | {"status": "200"}],
    "status-low": [START | {"status": 100}],
    "status-huge": [START | {"status": 10**30}],
    "headers-none": [START | {"headers": 5}],
    "header-text": [START | {"headers": [("a", "b")]}, BODY],
    "header-triple": [START | {"headers": [(b"a", b"b", b"c")]}, BODY],
    "body-text": [START, BODY | {"body": "x"}],
    "body-none": [START, BODY | {"body": None}],
}


async def on_wrong(scope, receive, send):
    try:
        for message in WRONG[scope["query_string"].decode()]:
            await send(message)
    except Exception as error:
        notes.append(f"{type(error).__name__}: {error}")
        raise


async def on_notes(scope, receive, send):
    await say(send, notes)
    if scope["query_string"] == b"clear":
        notes.clear()
        gate.clear()


async def on_disconnect(scope, receive, send):
    await receive()
    notes.append("waits")
    notes.append((await receive())["type"])
    try:
        await answer(send, b"x" * 100000)
    except OSError as error:
        notes.append(type(error).__name__)
        raise


async def on_after(scope, receive, send):
    await answer(send, b"answered")
    notes.append((await receive())["type"])
    await gate.wait()
    notes.append("worked on")


async def on_open(scope, receive, send):
    gate.set()
    await answer(send)


async def on_receivers(scope, receive, send):
    await receive()
    tasks = [asyncio.create_task(receive()) for _ in range(3)]
    tasks[0].cancel()
    got = await asyncio.gather(*tasks[:1], asyncio.sleep(0), return_exceptions=True)
    await answer(send, type(got[0]).__name__.encode())
    notes.extend(message["type"] for message in await asyncio.gather(*tasks[1:]))


async def on_timed_receive(scope, receive, send):
    await receive()
    try:
        await asyncio.wait_for(receive(), 0.01)
    except asyncio.TimeoutError:
        await answer(send, b"nothing came")


async def on_sleep(scope, receive, send):
    await asyncio.sleep(0.05)
    await answer(send)


async def on_no_content(scope, receive, send):
    await answer(send, b"dropped", status=204)


def body(data, more=True):
    return {"type": "http.response.body", "body": data, "more_body": more}


async def on_parts(scope, receive, send):
    await send(START | {"headers": [(b"x-y", b"z")]})
    for n in range(3):
        await send(body(b"part %d" % n))
        await send(body(b""))
        await asyncio.sleep(0)
    await send(body(b"last", False))


async def on_known_parts(scope, receive, send):
    await send(START | {"headers": [(b"content-length", b"6")]})
    await send(body(b"abc"))
    await send(body(bytearray(b"def")))
    await send({"type": "http.response.body"})


async def on_too_little(scope, receive, send):
    await send(START | {"headers": [(b"content-length", b"60")]})
    await send(body(b"abc", True))
    await send(body(b"def", False))


async def on_broken(scope, receive, send):
    await send(START)
    await send(body(b"begun"))
    raise LookupError("on purpose, within the body")


async def on_unended(scope, receive, send):
    await send(START)
    await send(body(b"begun"))


async def on_large(scope, receive, send):
    """Without waiting for the client it must not get far."""
    await send(START)
    try:
        for n in range(1000):
            await send(body(bytes([n % 256]) * 100_000))
            notes[:] = [n]
        await send(body(b"", False))
    except OSError:
        notes.append("gone")
        raise


async def on_digest(scope, receive, send):
    notes.append("begun")
    digest, n, more = hashlib.sha256(), 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            notes.append("gone")
            return
        digest.update(message["body"])
        n, more = n + 1, message["more_body"]
    await say(send, [digest.hexdigest(), n])


async def on_unread(scope, receive, send):
    """Answers a large body that it does not read, when it is told to."""
    notes.append("begun")
    await gate.wait()
    await answer(send, b"too large", status=413)


async def on_echo(scope, receive, send):
    """Both ways at once."""
    await send(START)
    more = True
    while more:
        message = await receive()
        await send(body(message["body"]))
        more = message["more_body"]
    await send(body(b"", False))


async def app(scope, receive, send):
    assert scope["type"] == "http"
    name = scope["path"].rpartition("/")[2].replace("-", "_")
    await globals().get("on_" + name, on_scope)(scope, receive, send)
'''
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with Served(APP, "--loop", request.param) as server:
        yield server


def notes(served: Served) -> list[Any]:
    return json.loads(served.get("/notes").body)  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def clear(request: pytest.FixtureRequest) -> None:
    if "served" in request.fixturenames:
        request.getfixturevalue("served").get("/notes?clear")


def test_scope(served: Served) -> None:
    with served.connect() as s:
        s.sendall(
            b"GET /caf%C3%A9/%2Fa%zz%ff?x=%20&y HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nx-two: 2\r\n"
            b"User-Agent:  probe \r\nX_Odd: o\r\n\r\n"
        )
        scope = json.loads(read_answer(s).partition(b"\r\n\r\n")[2])
        client = list(s.getsockname())
    assert scope == {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "server": ["127.0.0.1", served.port],
        "client": client,
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": "/café//a%zz\N{REPLACEMENT CHARACTER}",
        "raw_path": "/caf%C3%A9/%2Fa%zz%ff",
        "query_string": "x=%20&y",
        "headers": [
            ["host", "h"],
            ["x-two", "1"],
            ["x-two", "2"],
            ["user-agent", "probe"],
            ["x_odd", "o"],
        ],
        "extensions": {"http.response.pathsend": {}},
        "state": {},
    }


@pytest.mark.parametrize(
    ("line", "path", "version"),
    [
        (b"GET / HTTP/1.0", "/", "1.0"),
        (b"OPTIONS * HTTP/1.1", "*", "1.1"),
        (b"GET http://h/x/y?z HTTP/1.1", "/x/y", "1.1"),
        (b"GET http://h?z HTTP/1.1", "/", "1.1"),
        (b"BREW /pot HTTP/1.1", "/pot", "1.1"),
    ],
)
def test_request_lines(served: Served, line: bytes, path: str, version: str) -> None:
    with served.connect() as s:
        s.sendall(line + b"\r\nHost: h\r\nConnection: close\r\n\r\n")
        scope = json.loads(read_answer(s).partition(b"\r\n\r\n")[2])
    assert (scope["path"], scope["http_version"]) == (path, version)
    assert scope["method"].encode() == line.split()[0]


def test_values_that_are_kept_do_not_mix(served: Served) -> None:
    for n in range(700):  # more than are kept
        scope = json.loads(served.get("/", User_Agent=f"agent {n % 600}", Origin=f"{n}").body)
        fields = dict(scope["headers"])
        assert (fields["user-agent"], fields["origin"]) == (f"agent {n % 600}", str(n))


def test_bodies(served: Served) -> None:
    assert json.loads(served.get("/body").body) == ["http.request", 0, "", False]
    sent = served.request("POST", "/body", b"abc" * 10000)
    assert json.loads(sent.body) == ["http.request", 30000, "abcabcabcabcabcabcab", False]
    with served.connect() as s:
        s.sendall(b"POST /body HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        s.sendall(b"3\r\nabc\r\n3;x=y\r\ndef\r\n0\r\n\r\n")
        assert json.loads(read_answer(s).partition(b"\r\n\r\n")[2])[1:3] == [6, "abcdef"]


def test_the_first_step_is_a_task_of_its_own(served: Served) -> None:
    for _ in range(3):  # each in a context of its own
        told = json.loads(served.get("/task").body)
        assert told == [True, False, True, True, "unset", "set", True]
    assert served.get("/timeout").body == b"timed out"


def test_pipelined_requests_are_answered_in_order(served: Served) -> None:
    with served.connect() as s:
        s.sendall(b"GET /sleep HTTP/1.1\r\nHost: h\r\n\r\nGET /timeout HTTP/1.1\r\nHost: h\r\n\r\n")
        assert b"content-length: 0" in read_answer(s)
        assert read_answer(s).endswith(b"timed out")


@pytest.mark.parametrize("path", ["/fail", "/fail_late", "/nothing", "/bad_field"])
def test_failures_become_500_and_the_connection_goes_on(served: Served, path: str) -> None:
    client = served.client()
    for _ in range(2):
        client.request("GET", path)
        response = client.getresponse()
        assert response.status == 500
        assert b"purpose" not in response.read()
    client.close()
    said = {
        "/fail": "GET /fail: the application failed",
        "/fail_late": "LookupError: on purpose, later",
        "/nothing": "GET /nothing: the application returned without an answer",
        "/bad_field": "GET /bad_field: the application failed",
    }
    until(lambda: said[path] in served.log)
    assert "Traceback" in served.log


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("body-first", "RuntimeError: http.response.body came before http.response.start"),
        ("start-twice", "RuntimeError: http.response.start came twice"),
        ("body-after-end", "RuntimeError: http.response.body came after the end of the body"),
        ("unknown", "RuntimeError: 'http.response.nonsense' is no message of http"),
        ("no-type", "TypeError: a message must have a type"),
        ("no-dict", "TypeError: a message must be a dict, not list"),
        ("no-status", "TypeError: http.response.start: status must be an int"),
        ("status-text", "TypeError: http.response.start: status must be an int"),
        ("status-low", "ValueError: http.response.start: status must be from 200 to 999"),
        ("status-huge", "ValueError: http.response.start: status must be from 200 to 999"),
        ("headers-none", "TypeError: http.response.start: headers must be pairs"),
        ("header-text", "TypeError: each header must be a pair of bytes: name, value"),
        ("header-triple", "TypeError: each header must be a pair of bytes: name, value"),
        ("body-text", "TypeError: http.response.body: body must be bytes, not str"),
        ("body-none", "TypeError: http.response.body: body must be bytes, not NoneType"),
    ],
)
def test_wrong_messages_are_refused(served: Served, case: str, said: str) -> None:
    answer = served.get(f"/wrong?{case}")
    assert answer.status == (200 if case == "body-after-end" else 500)
    until(lambda: notes(served))
    (told,) = notes(served)
    assert told.startswith(said)


def test_what_has_no_body(served: Served) -> None:
    head = served.request("HEAD", "/timeout")
    assert (head.status, head.headers["content-length"], head.body) == (200, "9", b"")
    nothing = served.get("/no_content")
    assert (nothing.status, nothing.body) == (204, b"")


def test_a_client_that_goes(served: Served) -> None:
    with served.connect() as s:
        s.sendall(b"GET /disconnect HTTP/1.1\r\nHost: h\r\n\r\n")
        until(lambda: notes(served) == ["waits"])
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # a reset
    until(lambda: notes(served) == ["waits", "http.disconnect", "ClientGone"])
    assert served.get("/timeout").status == 200


def test_a_client_that_says_no_more_is_answered(served: Served) -> None:
    with served.connect() as s:
        s.sendall(b"GET /disconnect HTTP/1.1\r\nHost: h\r\n\r\n")
        until(lambda: notes(served) == ["waits"])
        s.shutdown(socket.SHUT_WR)
        assert read_answer(s).endswith(b"x" * 1000)
    assert notes(served) == ["waits", "http.disconnect"]


def raw(served: Served, path: str) -> bytes:
    """All that comes on a connection until the server ends it."""
    with served.connect() as s:
        s.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path.encode())
        got = b""
        while part := s.recv(65536):
            got += part
        return got


def test_bodies_in_parts(served: Served) -> None:
    answer = served.get("/parts")
    assert (answer.body, answer.headers["x-y"]) == (b"part 0part 1part 2last", "z")
    assert raw(served, "/parts").endswith(b"6\r\npart 2\r\n4\r\nlast\r\n0\r\n\r\n")
    assert raw(served, "/known_parts").endswith(b"\r\n\r\nabcdef")


@pytest.mark.parametrize("path", ["/broken", "/unended", "/too_little"])
def test_a_body_that_is_not_whole_is_broken_off(served: Served, path: str) -> None:
    got = raw(served, path)
    assert got == b"" or got.startswith(b"HTTP/1.1 200")  # it ends wherever it just was
    assert not got.endswith(b"0\r\n\r\n")
    assert served.get("/timeout").status == 200
    said = {
        "/broken": "LookupError: on purpose, within the body",
        "/unended": "GET /unended: the application returned without an answer",
        "/too_little": "the body has fewer bytes than its Content-Length says",
    }
    until(lambda: said[path] in served.log)


def test_a_slow_reader_holds_the_application_back(served: Served) -> None:
    with served.connect() as s:
        s.sendall(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
        s.recv(1000)
        until(lambda: notes(served) != [] and notes(served) == notes(served))
        assert notes(served)[0] < 200  # what fits into the buffers of the system, of 1000
    until(lambda: notes(served)[1:] == ["gone"])


def test_large_bodies_come_in_parts(served: Served) -> None:
    sent = bytes(range(256)) * 20_000
    digest, n = json.loads(served.request("POST", "/digest", sent).body)
    assert digest == hashlib.sha256(sent).hexdigest()
    assert n > 1
    with served.connect() as s:
        s.sendall(b"POST /digest HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(sent), 100_000):
            part = sent[at : at + 100_000]
            s.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        s.sendall(b"0\r\n\r\n")
        answer = read_answer(s).partition(b"\r\n\r\n")[2]
    assert json.loads(answer)[0] == digest


def test_a_client_that_goes_within_its_body(served: Served) -> None:
    with served.connect() as s:
        s.sendall(b"POST /digest HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nxyz")
        until(lambda: notes(served) == ["begun"])
    until(lambda: notes(served) == ["begun", "gone"])


def test_a_body_that_nobody_reads_stays_with_the_client(served: Served) -> None:
    before = rss(served)
    with served.connect() as s:
        s.sendall(b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n")
        s.settimeout(0.5)
        sent = 0
        with pytest.raises(TimeoutError):
            while sent < 1_000_000_000:
                sent += s.send(bytes(1_000_000))
        s.settimeout(20)
        assert sent < 50_000_000
        assert rss(served) - before < 20_000_000
        served.get("/open")
        assert s.recv(1000).startswith(b"HTTP/1.1 413")
    assert served.get("/timeout").status == 200


def rss(served: Served) -> int:
    (worker,) = served.children()
    return int(pathlib.Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096


def test_both_ways_at_once(served: Served) -> None:
    with served.connect() as s:
        s.sendall(b"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        file = s.makefile("rb")
        s.sendall(b"3\r\none\r\n")
        while file.readline() != b"\r\n":
            pass
        assert file.readline() + file.readline() == b"3\r\none\r\n"
        s.sendall(b"5\r\nthree\r\n0\r\n\r\n")
        assert file.read(15) == b"5\r\nthree\r\n0\r\n\r\n"
        file.close()


def test_one_client_after_another(served: Served) -> None:
    for _ in range(5):  # quick ones, then a pause, over and over
        client = served.client()
        for _ in range(200):
            client.request("GET", "/notes")
            assert client.getresponse().read() == b"[]"
        client.close()


def test_work_goes_on_behind_the_answer(served: Served) -> None:
    client = served.client()
    for _ in range(3):  # on one connection: the answer waits for nobody
        client.request("GET", "/after")
        assert client.getresponse().read() == b"answered"
    client.close()
    until(lambda: notes(served) == ["http.disconnect"] * 3)
    served.get("/open")
    until(lambda: notes(served) == ["http.disconnect"] * 3 + ["worked on"] * 3)


def test_receive_can_be_a_task_and_have_company(served: Served) -> None:
    assert served.get("/receivers").body == b"CancelledError"
    until(lambda: notes(served) == ["http.disconnect"] * 2)
    assert served.get("/timed_receive").body == b"nothing came"


def test_many_at_once(served: Served) -> None:
    connections = [served.connect() for _ in range(300)]
    for s in connections:
        s.sendall(b"GET /sleep HTTP/1.1\r\nHost: h\r\n\r\n")
    for s in connections:
        assert read_answer(s).startswith(b"HTTP/1.1 200")
        s.close()


LIMITED = (
    ASGI_HELP
    + """
now = most = 0

async def app(scope, receive, send):
    global now, most
    now += 1
    most = max(most, now)
    await asyncio.sleep(0.01)
    now -= 1
    await answer(send, str(most).encode())
"""
)


def test_limit_concurrency() -> None:
    with Served(LIMITED, "--limit-concurrency", "3", "--lifespan", "off") as served:
        connections = [served.connect() for _ in range(30)]
        for s in connections:
            s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        answers = [read_answer(s) for s in connections]
        for s in connections:
            s.close()
        assert {answer[:12] for answer in answers} == {b"HTTP/1.1 200"}
        assert served.get().body == b"3"


def test_root_path() -> None:
    with Served(APP, "--root-path", "/mounted/") as served:
        scope = json.loads(served.get("/x%20y").body)
    assert scope["root_path"] == "/mounted"
    assert (scope["path"], scope["raw_path"]) == ("/mounted/x y", "/mounted/x%20y")


def test_what_a_proxy_says() -> None:
    said = {"X_Forwarded_For": "6.6.6.6, 1.2.3.4", "X_Forwarded_Proto": "https"}
    with Served(APP) as served:
        scope = json.loads(served.get("/", **said).body)
        assert (scope["client"], scope["scheme"]) == (["1.2.3.4", 0], "https")
        scope = json.loads(served.get("/", Forwarded="for=1.2.3.4").body)
        assert (scope["client"], scope["scheme"]) == (["1.2.3.4", 0], "http")
    with Served(APP, "--forwarded-allow-ips", "10.0.0.1") as served:
        scope = json.loads(served.get("/", **said).body)
        assert (scope["client"][0], scope["scheme"]) == ("127.0.0.1", "http")


def test_proxy_protocol() -> None:
    with Served(APP, "--proxy-protocol") as served, served.connect() as s:
        s.sendall(b"PROXY TCP4 1.2.3.4 127.0.0.1 5678 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
        scope = json.loads(read_answer(s).partition(b"\r\n\r\n")[2])
        assert scope["client"] == ["1.2.3.4", 5678]
    with Served(APP, "--proxy-protocol", "--forwarded-allow-ips", "10.0.0.1") as served:
        with served.connect() as s:
            s.sendall(b"PROXY TCP4 1.2.3.4 127.0.0.1 5678 80\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n")
            with contextlib.suppress(ConnectionResetError):
                assert s.recv(100) == b""


def test_access_log() -> None:
    with Served(APP, "--access-log") as served:
        served.get("/timeout?x=1")
        until(lambda: '"GET /timeout?x=1 HTTP/1.1" 200 ' in served.log)
        served.get("/fail")
        until(lambda: '"GET /fail HTTP/1.1" 500 ' in served.log)


LIFESPAN = (
    ASGI_HELP
    + """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["made"] = ["shared"]
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        open("ended", "w").close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    scope["state"]["made"].append("x")
    scope["state"]["mine"] = 1
    await answer(send, json.dumps(sorted(scope["state"])).encode() + b"x" * len(scope["state"]["made"]))
"""
)


def test_lifespan_and_its_state() -> None:
    with Served(LIFESPAN) as served:
        assert served.get().body == b'["made", "mine"]xx'
        assert served.get().body == b'["made", "mine"]xxx'
        assert not (served.directory / "ended").exists()
        served.end()
        assert (served.directory / "ended").exists()


REFUSES = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})
"""


def test_a_refused_start() -> None:
    served = Served(REFUSES)
    try:
        assert served.wait() == 1
        assert "the application refused to start: no database" in served.log
    finally:
        served.close()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('{"type": "lifespan.shutdown.failed", "message": "lost"}', "shutdown failed: lost"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_shutdown_that_fails_is_told(message: str, said: str) -> None:
    source = f"""
async def app(scope, receive, send):
    await receive()
    await send({{"type": "lifespan.startup.complete"}})
    await receive()
    await send({message})
"""
    with Served(source) as served:
        served.end()
        assert said in served.log


def test_wsgi_given_as_asgi_says_so() -> None:
    with Served("def app(*a): return []", "--interface", "asgi", "--lifespan", "off") as served:
        assert served.get().status == 500
        until(lambda: "returned list where ASGI has a coroutine; for WSGI use" in served.log)


def test_ends_while_clients_come_and_go() -> None:
    with Served(APP) as served:
        failures = []

        def ask() -> None:
            try:
                while served.get("/sleep").status == 200:
                    pass
            except OSError:
                pass  # it has ended
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        served.get("/sleep")
        assert served.end() == 0
        for thread in threads:
            thread.join()
        assert failures == []
        assert "Traceback" not in served.log
