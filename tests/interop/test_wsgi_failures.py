"""WSGI applications that fail in unusual places, and signals: one request ends, the server goes on."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from kit.help import until
from kit.serve import Served, read_answer

APP = '''
import json
import os
import pathlib
import signal
import socket
import sys
import threading
import time

TEXT = [("Content-Type", "text/plain")]
SECRET = "s3cret"


class Parts:
    """Two parts, and a close() that fails."""

    def __iter__(self):
        return iter([b"abc", b"def"])

    def close(self):
        raise LookupError("in close()")


class One(list):
    close = Parts.close


def on_close_fails(environ, start_response):
    start_response("200 OK", TEXT)
    return Parts()


def on_close_of_one_fails(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "3")])
    return One([b"abc"])


def on_short(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "100")])
    return [b"abc", b"def"]


def on_exit(environ, start_response):
    sys.exit("enough")


def on_generator_exit(environ, start_response):
    raise GeneratorExit


def on_exit_late(environ, start_response):
    start_response("200 OK", TEXT)
    yield b"begun"
    sys.exit(0)


def on_wide(environ, start_response):
    start_response("200 OK", TEXT + [("X-Token", SECRET + "\\u2603")])
    return [b"x"]


def on_line_break(environ, start_response):
    start_response("200 OK", TEXT + [("X-Token", SECRET + "\\r\\nX-More: 1")])
    return [b"x"]


def on_stream_line_break(environ, start_response):
    start_response("200 OK", TEXT + [("X-Token", SECRET + "\\r\\nX-More: 1")])
    yield b"one"
    yield b"two"


def on_stream_two_lengths(environ, start_response):
    start_response("200 OK", TEXT + [("Content-Length", "5"), ("Content-Length", "6")])
    return []


def on_environ(environ, start_response):
    start_response("200 OK", TEXT)
    return [json.dumps({k: v for k, v in environ.items() if isinstance(v, (str, bool))}).encode()]


def on_hold(environ, start_response):
    open("begun", "w").close()
    while not __import__("os").path.exists("release"):
        time.sleep(0.01)
    start_response("200 OK", TEXT)
    return [b"held"]


def on_usr1(environ, start_response):
    signal.raise_signal(signal.SIGUSR1)
    return on_environ(environ, start_response)


def app(environ, start_response):
    name = environ["PATH_INFO"].rpartition("/")[2].replace("-", "_")
    return globals().get("on_" + name, on_exit)(environ, start_response)


if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGUSR1, lambda number, frame: open("signalled", "w").close())
'''


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(APP, "--threads", "2") as server:
        yield server
        assert " critical " not in server.log


def raw(served: Served, path: str) -> bytes:
    """All that comes on a connection until the server ends it."""
    with served.connect() as s:
        s.sendall(b"GET %b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" % path.encode())
        got = b""
        while part := s.recv(65536):
            got += part
        return got


@pytest.mark.parametrize(
    ("path", "ending", "said"),
    [
        ("/close-fails", b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", "LookupError: in close()"),
        ("/close-of-one-fails", b"\r\n\r\nabc", "LookupError: in close()"),
        ("/short", b"\r\n\r\nabcdef", "the body has fewer bytes than its Content-Length says"),
        ("/exit", b"\r\n\r\nInternal Server Error", "SystemExit: enough"),
        ("/generator-exit", b"\r\n\r\nInternal Server Error", "GeneratorExit"),
        ("/exit-late", b"5\r\nbegun\r\n", "SystemExit: 0"),
    ],
)
def test_a_failure_ends_its_request_only(
    served: Served, path: str, ending: bytes, said: str
) -> None:
    before = served.log.count(f"GET {path}: the application failed")
    for _ in range(3):  # more than there are threads
        assert raw(served, path).endswith(ending)
    until(lambda: served.log.count(f"GET {path}: the application failed") == before + 3)
    assert said in served.log
    assert served.get("/environ").status == 200
    assert " critical " not in served.log


@pytest.mark.parametrize("path", ["/stream-line-break", "/stream-two-lengths"])
def test_the_head_of_a_stream_that_cannot_be_sent_becomes_a_500(served: Served, path: str) -> None:
    before = served.log.count(path)
    for _ in range(3):
        assert raw(served, path).startswith(b"HTTP/1.1 500 ")
    until(lambda: served.log.count("an answer was refused") + served.log.count(path) >= before + 3)
    assert " critical " not in served.log


@pytest.mark.parametrize("path", ["/wide", "/line-break", "/stream-line-break"])
def test_values_of_headers_are_not_logged(served: Served, path: str) -> None:
    assert served.get(path).status == 500
    until(lambda: "x-token" in served.log.lower())
    assert "s3cret" not in served.log


def test_a_header_that_cannot_be_sent_is_the_applications_failure(served: Served) -> None:
    refused = served.log.count("an answer was refused")
    assert served.get("/wide").body == b"Internal Server Error"
    assert served.log.count("an answer was refused") == refused


def test_a_path_does_not_write_lines_of_the_log(served: Served) -> None:
    served.get("/exit?a")
    raw(served, "/%0A12:00:00.000%20critical%20%5B1%5D%20invented")
    until(lambda: "invented: the application failed" in served.log)
    assert "\n12:00:00.000" not in served.log


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_signal_of_the_applications_own_ends_nothing(workers: str) -> None:
    with Served(APP, "--workers", workers) as served:
        pid = served.children()[0] if workers == "1" else served.process.pid
        served.get("/environ")

        os.kill(pid, signal.SIGUSR1)
        until((served.directory / "signalled").exists)
        for _ in range(3):
            assert served.get("/environ").status == 200
        assert "ending" not in served.log


def test_a_second_sigterm_to_a_worker_changes_nothing() -> None:
    with Served(APP, "--workers", "1") as served:
        (worker,) = served.children()
        with served.connect() as s:
            s.sendall(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n")
            until((served.directory / "begun").exists)
            ending = threading.Thread(target=served.end)
            ending.start()
            for _ in range(3):
                os.kill(worker, signal.SIGTERM)
                until(lambda: not is_pending(worker, signal.SIGTERM))
            time.sleep(0.1)  # enough for it to cut the request off, if it did
            (served.directory / "release").touch()
            assert read_answer(s).endswith(b"held")
        ending.join()
        assert "cut off" not in served.log


def is_pending(pid: int, number: signal.Signals) -> bool:
    """Whether the process has not seen that signal yet."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    (mask,) = [line.split()[1] for line in status.splitlines() if line.startswith("ShdPnd:")]
    return int(mask, 16) >> (number - 1) & 1 == 1


def environ_of(served: Served) -> dict[str, object]:
    environ: dict[str, object] = json.loads(served.get("/environ").body)
    return environ


def test_what_environ_says_of_threads_and_processes() -> None:
    with Served(APP, "--threads", "1", "--workers", "1") as served:
        said = environ_of(served)
        assert (said["wsgi.multithread"], said["wsgi.multiprocess"]) == (False, True)
    with Served(APP, "--threads", "1", "--workers", "0", "--bind", "127.0.0.1:0") as served:
        said = environ_of(served)
        assert (said["wsgi.multithread"], said["wsgi.multiprocess"]) == (True, False)


def test_a_unix_socket_has_a_port_all_the_same(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "s")
    with Served(APP, bind=f"unix:{path}"), socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        s.sendall(b"GET /environ HTTP/1.1\r\nHost: h\r\n\r\n")
        assert json.loads(read_answer(s).partition(b"\r\n\r\n")[2])["SERVER_PORT"] == "80"
