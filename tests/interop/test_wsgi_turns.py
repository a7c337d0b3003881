"""The threads of a WSGI server take requests in turns: whatever handlers do, none waits in vain."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest
from kit.help import until
from kit.serve import Served, read_answer

APP = """
import json
import os
import threading
import time

TEXT = [("Content-Type", "text/plain")]
lock = threading.Lock()
gates = {}
within = most = 0
barriers = {n: threading.Barrier(n) for n in (2, 3, 4)}


def on_quick(environ, start_response):
    return b"quick"


def on_gate(environ, start_response):
    gate = gates.setdefault(environ["QUERY_STRING"], threading.Event())
    gate.wait(20)
    return b"through"


def on_open(environ, start_response):
    gates.setdefault(environ["QUERY_STRING"], threading.Event()).set()
    return b"opened"


def on_compute(environ, start_response):
    while not os.path.exists("enough"):
        sum(range(1000))
    return b"computed"


def on_together(environ, start_response):
    barriers[int(environ["QUERY_STRING"])].wait(20)
    return b"together"


def on_wait(environ, start_response):
    global within, most
    with lock:
        within += 1
        most = max(most, within)
    time.sleep(0.0003)
    with lock:
        within -= 1
    return b"waited"


def on_most(environ, start_response):
    global most
    said, most = most, 0
    return str(said).encode()


def on_body(environ, start_response):
    n = 0
    while part := environ["wsgi.input"].read(1000):
        n += len(part)
    return str(n).encode()


def app(environ, start_response):
    body = globals()["on_" + environ["PATH_INFO"][1:]](environ, start_response)
    start_response("200 OK", TEXT)
    return [body]
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(APP, "--threads", "4") as server:
        yield server


def lull(served: Served) -> None:
    """Quick requests, until one thread takes them all and the others sleep."""
    client = served.client()
    for _ in range(600):
        client.request("GET", "/quick")
        assert client.getresponse().read() == b"quick"
    client.close()


@pytest.mark.parametrize("n", [2, 3, 4])
def test_handlers_that_wait_run_at_the_same_time(served: Served, n: int) -> None:
    lull(served)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(n)]
        for s in clients:
            s.sendall(b"GET /together?%d HTTP/1.1\r\nHost: h\r\n\r\n" % n)
        for s in clients:
            assert read_answer(s).endswith(b"together")


def test_a_handler_that_waits_holds_up_nobody(served: Served) -> None:
    lull(served)
    with contextlib.ExitStack() as stack:
        for gate in (b"a", b"b", b"c"):  # one thread is left
            s = stack.enter_context(served.connect())
            s.sendall(b"GET /gate?%b HTTP/1.1\r\nHost: h\r\n\r\n" % gate)
            lull(served)
            stack.callback(read_answer, s)
        for gate in "abc":
            assert served.get(f"/open?{gate}").body == b"opened"


def test_requests_behind_one_that_waits_go_to_others(served: Served) -> None:
    """Some are in hand already when the first begins to wait, which the last of them ends."""
    lull(served)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(8)]
        for n, s in enumerate(clients):
            path = b"/gate?last" if n == 0 else b"/open?last" if n == 7 else b"/quick"
            s.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path)
        answers = [read_answer(s) for s in clients]
    assert [answer.partition(b"\r\n\r\n")[2] for answer in answers] == (
        [b"through"] + [b"quick"] * 6 + [b"opened"]
    )


def test_a_handler_that_computes_holds_up_nobody(served: Served) -> None:
    lull(served)
    with served.connect() as s:
        s.sendall(b"GET /compute HTTP/1.1\r\nHost: h\r\n\r\n")
        for _ in range(5):
            assert served.get("/quick").body == b"quick"
        (served.directory / "enough").touch()
        assert read_answer(s).endswith(b"computed")


def test_short_waits_run_side_by_side(served: Served) -> None:
    """Of 300 microseconds each, which is less than it takes to look."""

    def ask() -> None:
        client = served.client()
        while not enough.is_set():
            client.request("GET", "/wait")
            assert client.getresponse().read() == b"waited"
        client.close()

    enough = threading.Event()
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: int(served.get("/most").body) == 4)
    finally:
        enough.set()
        for thread in threads:
            thread.join()


def test_bodies_that_come_slowly_hold_up_nobody(served: Served) -> None:
    lull(served)
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(served.connect()) for _ in range(3)]
        for s in slow:
            s.sendall(
                b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n" + b"x" * 1000
            )
            lull(served)
        for _ in range(10):
            for s in slow:
                s.sendall(b"x" * 29_900)
            assert served.get("/quick").body == b"quick"
        for s in slow:
            assert read_answer(s).endswith(b"300000")


def test_an_end_while_all_sleep_and_while_all_work() -> None:
    for path in ("/quick", "/gate?x"):
        with Served(APP, "--threads", "4", "--graceful-timeout", "20") as served:
            client = served.connect()
            client.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\n\r\n" % path.encode())
            if path != "/quick":
                served.get("/open?x")
            assert read_answer(client).startswith(b"HTTP/1.1 200")
            client.close()
            assert served.end() == 0
            assert "cut off" not in served.log
            assert json.dumps(served.log).count("critical") == 0
