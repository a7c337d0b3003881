"""WSGI by PEP 3333: environ, start_response, write, iterables, input; and wsgiref's validator."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kit.help import until
from kit.serve import Served, read_answer

APP = '''
import hashlib
import json
import sys
import threading
import time
from wsgiref.validate import validator

TEXT = [("Content-Type", "text/plain")]
closed = []
barrier = threading.Barrier(4)


class Parts:
    """An iterable that tells of its end."""

    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return iter(self.parts)

    def close(self):
        closed.append(len(self.parts))


def on_environ(environ, start_response):
    start_response("200 OK", TEXT)
    shown = {k: v for k, v in environ.items() if isinstance(v, (str, bool, list, tuple))}
    return [json.dumps(shown).encode()]


def on_read(environ, start_response):
    body = environ["wsgi.input"]
    got = [body.read(2), body.readline(), body.readline(3), next(body), body.readlines(), list(body), body.read()]
    start_response("200 OK", TEXT)
    return [repr(got).encode()]


def on_generator(environ, start_response):
    start_response("201 Made", TEXT + [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    try:
        yield b"one "
        yield b""
        yield b"two"
    finally:
        closed.append("generator")


def on_parts(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "6")])
    return Parts(b"abc", b"def")


def on_one_part(environ, start_response):
    start_response("200 OK", TEXT)
    return Parts(b"abc")


def on_none(environ, start_response):
    start_response("200 OK", TEXT)
    return Parts()


def on_write(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"written, ")
    return [b"returned"]


def on_late_start(environ, start_response):
    yield b""
    start_response("200 OK", TEXT)
    yield b"late"


def on_exc_info(environ, start_response):
    start_response("200 OK", TEXT)
    try:
        raise ValueError("changed my mind")
    except ValueError:
        start_response("418 Teapot", TEXT, sys.exc_info())
    return [b"short and stout"]


def on_exc_info_late(environ, start_response):
    write = start_response("200 OK", TEXT)
    write(b"begun")
    try:
        raise ValueError("too late")
    except ValueError:
        start_response("500 Oh", TEXT, sys.exc_info())
    return []


def on_file(environ, start_response):
    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](open(__file__, "rb"), 100)


def on_fail(environ, start_response):
    raise LookupError("on purpose")


def on_fail_after_start(environ, start_response):
    start_response("200 OK", TEXT)
    raise LookupError("on purpose")


def on_fail_late(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"begun"
    raise LookupError("on purpose")


def on_too_little(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "100")])
    yield b"begun"
    yield b" and not ended"


def on_too_much(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "3")])
    yield b"abc"
    yield b"def"


def on_digest(environ, start_response):
    closed.append("digest")
    digest = hashlib.sha256()
    while part := environ["wsgi.input"].read(100000):
        digest.update(part)
    start_response("200 OK", TEXT)
    return [digest.hexdigest().encode()]


def on_endless(environ, start_response):
    start_response("200 OK", TEXT)
    try:
        while True:
            yield b"x" * 10000
    finally:
        closed.append("endless")


def on_wrong(environ, start_response):
    case = environ["QUERY_STRING"]
    if case == "twice":
        start_response("200 OK", TEXT)
    if case != "never":
        start_response(
            {"status-bytes": b"200 OK", "status-odd": "OK"}.get(case, "200 OK"),
            {
                "headers-tuple": tuple(TEXT),
                "header-list": [["a", "b"]],
                "header-bytes": [(b"a", "b")],
                "header-wide": [("a", "\\u2603")],
                "header-break": [("a", "b\\r\\nc: d")],
            }.get(case, TEXT),
        )
    return {"body-text": ["text"], "body-none": None}.get(case, [b"x"])


def on_together(environ, start_response):
    barrier.wait(20)
    start_response("200 OK", TEXT)
    return [b"together"]


def on_closed(environ, start_response):
    start_response("200 OK", TEXT)
    body = json.dumps(closed).encode()
    closed.clear()
    return [body]


def plain(environ, start_response):
    start_response("200 OK", TEXT)
    return [b"valid"]


on_valid = validator(plain)


def read_and_answer(environ, start_response):
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", TEXT + [("Content-Length", str(len(body)))])
    return iter([body])


on_valid_read = validator(read_and_answer)


def app(environ, start_response):
    name = environ["PATH_INFO"].rpartition("/")[2].replace("-", "_")
    return globals().get("on_" + name, on_environ)(environ, start_response)
'''


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(APP, "--threads", "4") as server:
        yield server


def closed(served: Served) -> Any:
    return json.loads(served.get("/closed").body)


def test_environ(served: Served) -> None:
    with served.connect() as s:
        s.sendall(
            b"POST /caf%C3%A9/x%2Fy%zz?a=%20 HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nX-Two: 2\r\nX_Two: 3\r\n"
            b"Cookie: a=1\r\nCookie: b=2\r\nContent-Type: text/x\r\nContent-Length: 2\r\n\r\nhi"
        )
        environ = json.loads(read_answer(s).partition(b"\r\n\r\n")[2])
        client = s.getsockname()
    assert environ.pop("SERVER_SOFTWARE").startswith("iokernel/")
    assert environ == {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/caf\xc3\xa9/x/y%zz",
        "QUERY_STRING": "a=%20",
        "REQUEST_URI": "/caf%C3%A9/x%2Fy%zz?a=%20",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(served.port),
        "REMOTE_ADDR": client[0],
        "REMOTE_PORT": str(client[1]),
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "2",
        "HTTP_HOST": "h",
        "HTTP_X_TWO": "1,2",  # and not that of x_two
        "HTTP_COOKIE": "a=1; b=2",
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }


def test_what_a_proxy_says(served: Served) -> None:
    said = {"X_Forwarded_For": "6.6.6.6, 1.2.3.4:99", "X_Forwarded_Proto": "https"}
    environ = json.loads(served.get("/", **said).body)
    assert (environ["REMOTE_ADDR"], environ["REMOTE_PORT"]) == ("1.2.3.4", "99")
    assert environ["wsgi.url_scheme"] == "https"


def test_values_that_are_kept_do_not_mix(served: Served) -> None:
    for n in range(600):
        environ = json.loads(served.get("/", User_Agent=f"agent {n % 550}", Origin=f"{n}").body)
        assert (environ["HTTP_USER_AGENT"], environ["HTTP_ORIGIN"]) == (f"agent {n % 550}", str(n))


def test_input(served: Served) -> None:
    body = b"one\ntwo\nthree\nfour\nfive\nsix"
    expected = [b"on", b"e\n", b"two", b"\n", [b"three\n", b"four\n", b"five\n", b"six"], [], b""]
    assert served.request("POST", "/read", body).body == repr(expected).encode()
    with served.connect() as s:
        s.sendall(b"POST /read HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        for at in range(0, len(body), 5):
            part = body[at : at + 5]
            s.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        s.sendall(b"0\r\n\r\n")
        assert read_answer(s).partition(b"\r\n\r\n")[2] == repr(expected).encode()


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [("/one_part", b"abc", [1]), ("/none", b"", [0]), ("/exc_info", b"short and stout", [])],
)
def test_answers(served: Served, path: str, body: bytes, told: list[Any]) -> None:
    closed(served)
    answer = served.get(path)
    assert answer.status == (418 if path == "/exc_info" else 200)
    assert answer.body == body
    assert answer.headers["content-type"] == "text/plain"
    until(lambda: told == [] or closed(served) == told)


@pytest.mark.parametrize("path", ["/fail", "/fail_after_start"])
def test_failures_become_500(served: Served, path: str) -> None:
    client = served.client()
    for _ in range(2):
        client.request("GET", path)
        response = client.getresponse()
        assert (response.status, b"purpose" in response.read()) == (500, False)
    client.close()
    until(lambda: f"GET {path}: the application failed" in served.log)
    assert "LookupError: on purpose" in served.log


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("twice", "start_response was called twice"),
        ("never", "a body came before start_response was called"),
        ("status-bytes", "the status must be a str, not bytes"),
        ("status-odd", "the status must be as '200 OK', not 'OK'"),
        ("headers-tuple", "the headers must be a list, not tuple"),
        ("header-list", "each header must be a tuple"),
        ("header-bytes", "must be str, not bytes"),
        ("header-wide", "header 'a': its name and its value must be text of Latin-1"),
        ("header-break", "an answer was refused, and became a 500"),
        ("body-text", "the body must be bytes, not str"),
        ("body-none", "'NoneType' object is not iterable"),
    ],
)
def test_what_pep_3333_forbids(served: Served, case: str, said: str) -> None:
    assert served.get(f"/wrong?{case}").status == 500
    until(lambda: said in served.log)


def test_wsgiref_finds_nothing(served: Served) -> None:
    assert served.get("/valid").body == b"valid"
    for body in (b"", b"x" * 1000, b"x" * 200_000):
        answer = served.request("POST", "/valid_read", body)
        assert (answer.status, answer.body) == (200, body)


def raw(served: Served, path: str) -> bytes:
    """All that comes on a connection until the server ends it."""
    with served.connect() as s:
        s.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path.encode())
        got = b""
        while part := s.recv(65536):
            got += part
        return got


def test_bodies_in_parts(served: Served) -> None:
    closed(served)
    got = raw(served, "/generator")
    assert got.startswith(b"HTTP/1.1 201 Made\r\n")
    assert got.count(b"Set-Cookie: ") == 2
    assert got.endswith(b"\r\n\r\n4\r\none \r\n3\r\ntwo\r\n0\r\n\r\n")
    assert raw(served, "/parts").endswith(b"\r\n\r\nabcdef")
    until(lambda: closed(served) in (["generator", 2], []))
    assert served.get("/write").body == b"written, returned"
    assert served.get("/late_start").body == b"late"
    assert b"class Parts:" in served.get("/file").body


@pytest.mark.parametrize("path", ["/fail_late", "/exc_info_late", "/too_little"])
def test_a_failure_within_the_body_breaks_it_off(served: Served, path: str) -> None:
    got = raw(served, path)
    assert b"begun" in got
    assert not got.endswith(b"0\r\n\r\n")
    assert served.get("/valid").body == b"valid"
    until(lambda: f"{path}: the application failed" in served.log)


def test_more_than_the_length_says(served: Served) -> None:
    assert raw(served, "/too_much").endswith(b"\r\n\r\nabc")
    until(lambda: "the body has more bytes than its Content-Length says" in served.log)


def test_a_large_body_is_read_as_it_comes(served: Served) -> None:
    digest = hashlib.sha256()
    client = served.client()
    part = bytes(range(256)) * 4096
    client.putrequest("POST", "/digest")
    client.putheader("Content-Length", str(len(part) * 20))
    client.endheaders()
    for _ in range(20):
        client.send(part)
        digest.update(part)
    assert client.getresponse().read().decode() == digest.hexdigest()
    client.close()


def test_a_client_that_goes_ends_a_stream(served: Served) -> None:
    closed(served)
    with served.connect() as s:
        s.sendall(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n")
        assert s.recv(1000).startswith(b"HTTP/1.1 200")
    until(lambda: closed(served) == ["endless"])
    assert "/endless: the application failed" not in served.log


def test_a_client_that_goes_within_its_body(served: Served) -> None:
    closed(served)
    with served.connect() as s:
        s.sendall(b"POST /digest HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nxyz")
        until(lambda: "digest" in closed(served))
    assert served.get("/valid").body == b"valid"


def test_threads_work_at_the_same_time(served: Served) -> None:
    connections = [served.connect() for _ in range(4)]
    for s in connections:
        s.sendall(b"GET /together HTTP/1.1\r\nHost: h\r\n\r\n")
    for s in connections:
        assert read_answer(s).endswith(b"together")
        s.close()


def test_many_connections_and_few_threads(served: Served) -> None:
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            client = served.client()
            for _ in range(50):
                client.request("GET", "/valid")
                assert client.getresponse().read() == b"valid"
            client.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_root_path_and_access_log() -> None:
    with Served(APP, "--root-path", "/mounted", "--access-log") as served:
        environ = json.loads(served.get("/x%20y?z").body)
        assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/mounted", "/x y")
        until(lambda: '"GET /x%20y?z HTTP/1.1" 200 ' in served.log)


SLOW = """
import time
def app(environ, start_response):
    open("begun", "w").close()
    time.sleep(0.3)
    start_response("200 OK", [])
    return [b"done"]
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_end_answers_what_is_under_way(workers: str) -> None:
    with Served(SLOW, "--workers", workers) as served:
        with served.connect() as s:
            s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            until((served.directory / "begun").exists)
            threading.Thread(target=served.end).start()
            assert read_answer(s).endswith(b"done")
        assert served.end() == 0
