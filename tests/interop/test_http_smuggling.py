"""Request smuggling: what a front and `iokernel serve` behind it could read differently.

tests/kit/smuggling.py has the cases. Behind a front, whatever an attacker sends, the application sees the requests that the
front meant, no more and no fewer, and others who share the connection get their own answers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from kit.echo import ECHO, lines, seen
from kit.fronts import Front
from kit.help import PATIENCE_S, until
from kit.serve import ASGI_HELP, Served
from kit.smuggling import AFTER, CASES, Case


@pytest.fixture(scope="module")
def echo() -> Iterator[Served]:
    """A server of one process, which so remembers all requests."""
    with Served(ECHO, "--workers", "0") as served:
        yield served


def exchange(port: int, raw: bytes, *, half_close: bool) -> bytes:
    """Send it all, and read all that comes, until the server ends."""
    got = b""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as s:
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            s.sendall(raw)
            if half_close:
                s.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while part := s.recv(65536):
                got += part
    return got


def statuses(answers: bytes) -> list[int]:
    """Of all answers; no body of these tests contains a status line."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_alone(echo: Served, case: Case) -> None:
    answers = exchange(echo.port, case.raw + AFTER, half_close=True)
    assert tuple(lines(seen(echo))) == case.seen, case.why
    assert tuple(statuses(answers)) == case.statuses, (case.why, answers)


def test_each_case_has_a_name_of_its_own() -> None:
    assert {n for _, n in Counter(case.name for case in CASES).items()} == {1}


class Victim:
    """Somebody else, who sends POSTs through the same front, and looks whether the answers are his own."""

    def __init__(self, front: Front) -> None:
        self._client = http.client.HTTPConnection("127.0.0.1", front.port, timeout=PATIENCE_S)
        self._number = 0

    def ask(self) -> str:
        """Give what is wrong with the answer, or nothing."""
        self._number += 1
        mark = f"{id(self)}-{self._number}"
        self._client.request("POST", f"/victim?{mark}", mark, {"X-Mark": mark})
        response = self._client.getresponse()
        body = response.read()
        if response.status != 200:
            return f"{response.status} {body!r}"
        told = json.loads(body)
        names = {name for name, _ in told["headers"]} - {"connection", "x-forwarded-for"}
        right = (
            told["target"] == f"/victim?{mark}"
            and told["body"] == mark
            and ["x-mark", mark] in told["headers"]
            and names == {"host", "accept-encoding", "content-length", "x-mark"}
        )
        return "" if right else f"not his own: {told}"

    def close(self) -> None:
        self._client.close()


def meant(front: Front, since: int) -> Counter[tuple[str, str]]:
    """Give the requests that the front passed on, and to which the application's answer came."""
    return Counter(
        (line.method, re.sub("^http://h(?=/)", "", line.target))
        for line in front.logged()[since:]
        if line.seen
    )


@pytest.mark.parametrize("kind", ["haproxy", "haproxy lax", "nginx", "nginx lax"])
def test_behind_a_front(echo: Served, kind: str) -> None:
    name, _, lax = kind.partition(" ")
    wrong = []
    seen(echo)
    with Front(name, echo.port, lax=bool(lax)) as front:
        steady = Victim(front)
        for case in CASES:
            if (
                case.name == "target-of-connect"
            ):  # seen, and then its answer is refused: told apart above
                continue
            before = len(front.logged())
            if case.open_ended:
                with socket.create_connection(("127.0.0.1", front.brief)) as s:
                    s.sendall(case.raw + AFTER)
            else:
                exchange(front.brief, case.raw + AFTER, half_close=False)
            fresh = Victim(front)
            wrong += [f"{case.name}: {said}" for v in (steady, fresh) if (said := v.ask())]
            fresh.close()
            got = Counter((r["method"], r["target"]) for r in seen(echo))
            try:
                until(lambda before=before, got=got: meant(front, before) == got)  # type: ignore[misc]
            except AssertionError:
                wrong.append(f"{case.name}: seen {got}, meant {front.logged()[before:]}")
            if wrong:
                break
        steady.close()
        assert wrong == []
        assert len(front.logged()) > 3 * len(CASES) - 20


LIAR = (
    ASGI_HELP
    + """
ANSWERS = {
    "/head": (200, [(b"content-length", b"5")], b"HTTP/1.1 200 OK\\r\\n\\r\\n"),
    "/204": (204, [], b"HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\nlies"),
    "/205": (205, [], b"HTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\nlies"),
    "/304": (304, [(b"content-length", b"1000")], b"lies"),
    "/longer": (200, [(b"content-length", b"4")], b"liesHTTP/1.1 200 OK\\r\\ncontent-length: 4\\r\\n\\r\\nlies"),
    "/shorter": (200, [(b"content-length", b"100")], b"lies"),
    "/two-lengths": (200, [(b"content-length", b"4"), (b"content-length", b"0")], b"lies"),
    "/no-length": (200, [(b"content-length", b"x")], b"lies"),
    "/both": (200, [(b"content-length", b"4"), (b"transfer-encoding", b"chunked")], b"lies"),
    "/coding": (200, [(b"transfer-encoding", b"chunked")], b"0\\r\\n\\r\\n"),
    "/other-coding": (200, [(b"transfer-encoding", b"gzip, chunked")], b"lies"),
    "/line": (200, [(b"x", b"y\\r\\ncontent-length: 0\\r\\n\\r\\nHTTP/1.1 200 OK")], b"lies"),
    "/lf": (200, [(b"x", b"y\\nz: a")], b"lies"),
    "/nul": (200, [(b"x", b"y\\0z")], b"lies"),
    "/name": (200, [(b"x: y\\r\\nz", b"a")], b"lies"),
    "/name-blank": (200, [(b"transfer-encoding ", b"chunked")], b"lies"),
    "/100": (100, [], b"lies"),
    "/101": (101, [(b"upgrade", b"x")], b"lies"),
    "/connection": (200, [(b"connection", b"keep-alive, upgrade")], b"lies"),
    "/trailer": (200, [(b"trailer", b"content-length")], b"lies"),
}

async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = await read_all(receive)
    path = scope["path"]
    if path in ANSWERS:
        status, headers, body = ANSWERS[path]
        return await answer(send, body, status, headers)
    told = {
        "target": scope["raw_path"].decode() + "?" + scope["query_string"].decode(),
        "headers": [[n.decode(), v.decode()] for n, v in scope["headers"]],
        "body": body.decode(),
    }
    await answer(send, json.dumps(told).encode())
"""
)
LIES = {
    "HEAD /head": 200, "HEAD /longer": 200, "HEAD /shorter": 200, "HEAD /204": 204, "HEAD /304": 304,
    "GET /204": 204, "GET /205": 205, "GET /304": 304, "GET /coding": 200, "GET /trailer": 200,
} | {
    f"GET /{path}": 500
    for path in (
        "longer", "shorter", "two-lengths", "no-length", "both", "other-coding", "line", "lf", "nul", "name",
        "name-blank", "100", "101", "connection",
    )
}  # fmt: skip
"""A request, and the status of its answer: what could not be made right becomes 500."""


@pytest.mark.parametrize("kind", ["haproxy", "nginx", "nginx lax"])
def test_an_application_that_lies_about_its_answers(kind: str) -> None:
    name, _, lax = kind.partition(" ")
    wrong = []
    with Served(LIAR, "--workers", "0") as served, Front(name, served.port, lax=bool(lax)) as front:
        victim = Victim(front)
        for lie, status in LIES.items():
            ask = f"{lie} HTTP/1.1\r\nHost: h\r\n".encode()
            answers = exchange(front.port, ask + b"Connection: close\r\n\r\n", half_close=False)
            alone = exchange(served.port, ask + b"\r\n" + AFTER, half_close=True)
            if statuses(answers) != [status] or statuses(alone) != [status, 200]:
                wrong.append(f"{lie}: {answers!r}, {alone!r}")
            if said := victim.ask():
                wrong.append(f"{lie}: {said}")
        victim.close()
    assert wrong == []
