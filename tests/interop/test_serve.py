"""`iokernel serve` as a process: its start, its workers, its signals, its end."""

from __future__ import annotations

import http.client
import pathlib
import signal
import socket
import ssl
import subprocess
import sys

import pytest
from kit.help import until
from kit.load import Load
from kit.serve import ASGI_HELP, Served, read_answer
from kit.servers import make_certificates

PID_APP = (
    ASGI_HELP
    + """
import os, signal

VERSION = "one"

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    if scope["path"] == "/sleep":
        open("sleeps", "w").close()
        await asyncio.sleep(0.3)
    if scope["path"] == "/forever":
        open("sleeps", "w").close()
        await asyncio.sleep(3600)
    await answer(send, f"{VERSION} {os.getpid()}".encode())
"""
)


def failure(source: str, *options: str, app: str = "app:app") -> tuple[int, str]:
    """The status and the log of a server that cannot start."""
    served = Served(source, *options, app=app, status=None)
    try:
        return served.wait(), served.log
    finally:
        served.close()


def test_one_line_says_that_it_serves() -> None:
    with Served(PID_APP) as served:
        assert served.get().status == 200
        lines = [line for line in served.log.splitlines() if " info " in line]
        assert len(lines) == 1
        assert "serves app:app (ASGI) on http://127.0.0.1:" in lines[0]
        assert lines[0].endswith("with 1 worker")


def test_without_workers_the_first_process_serves() -> None:
    with Served(PID_APP, "--workers", "0") as served:
        assert served.get().body == f"one {served.process.pid}".encode()


@pytest.mark.parametrize(
    ("source", "options", "app", "said"),
    [
        ("", (), "app:app", "has no 'app'"),
        ("", (), "nowhere:app", "there is no module 'nowhere'"),
        ("raise RuntimeError('not today')", (), "app:app", "RuntimeError: not today"),
        ("import sys; sys.exit('no')", (), "app:app", "ended the process while it was loaded: no"),
        ("app = 7", (), "app:app", "an application is a callable"),
        (PID_APP, ("--lifespan", "on"), "app:app", "does not support lifespan"),
        (PID_APP, ("--env-file", "gone"), "app:app", "--env-file gone: "),
        (PID_APP, ("--bind", "127.0.0.1:0?idel=5s"), "app:app", "idel"),
    ],
)
@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_cannot_start_says_why_and_ends_with_1(
    source: str, options: tuple[str, ...], app: str, said: str, workers: str
) -> None:
    status, log = failure(source, *options, "--workers", workers, app=app)
    assert status == 1, log
    assert said in log


def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, log = failure(PID_APP, "--bind", f"127.0.0.1:{port}")
    assert status == 1
    assert f"cannot bind 127.0.0.1:{port}: Address already in use" in log


def test_a_worker_that_dies_is_replaced() -> None:
    with Served(PID_APP, "--workers", "2") as served:
        before = set(served.children())
        assert len(before) == 2
        with pytest.raises(OSError):
            served.get("/die")
        until(lambda: len(served.children()) == 2 and set(served.children()) != before)
        until(lambda: "was ended by SIGKILL; a new one in" in served.log)
        for _ in range(20):
            assert served.get().status == 200


def test_hangup_brings_new_code_and_loses_no_request() -> None:
    with Served(PID_APP, "--workers", "2") as served, Load(served) as load:
        until(lambda: len(load.answers) > 50)
        old = set(served.children())
        served.write(PID_APP.replace('"one"', '"two"'))
        served.signal(signal.SIGHUP)
        until(lambda: len(load.answers) > 50 and load.answers[-1].startswith(b"two"))
        until(lambda: len(served.children()) == 2 and not old & set(served.children()))
        load.answers.clear()
        until(lambda: len(load.answers) > 50)
        assert {answer[:3] for answer in load.answers} == {b"two"}
        assert load.failures == []


def test_new_code_that_does_not_load_leaves_the_old_workers() -> None:
    with Served(PID_APP) as served:
        old = served.children()
        served.write("this is no Python")
        served.signal(signal.SIGHUP)
        until(lambda: "before it was ready: the old one stays" in served.log)
        assert served.children() == old
        assert served.get().status == 200


def test_a_change_of_a_file_brings_new_workers() -> None:
    with Served(PID_APP, "--reload") as served:
        assert served.get().body.startswith(b"one")
        served.write(PID_APP.replace('"one"', '"two"'))
        until(lambda: served.get().body.startswith(b"two"))
        served.write("this is no Python")
        until(lambda: "the old one stays" in served.log)
        served.write(PID_APP.replace('"one"', '"three"'))
        until(lambda: served.get().body.startswith(b"three"))


def test_with_reload_a_broken_start_waits_for_a_change() -> None:
    served = Served("this is no Python", "--reload")
    try:
        until(lambda: "a change of its files tries again" in served.log)
        served.write(PID_APP)
        assert served.started().get().status == 200
        assert served.end() == 0
    finally:
        served.close()


def test_a_worker_more_and_a_worker_less() -> None:
    with Served(PID_APP) as served:
        served.signal(signal.SIGTTIN)
        until(lambda: len(served.children()) == 2)
        until(lambda: served.log.count("is ready") == 2)
        served.signal(signal.SIGTTOU)
        until(lambda: len(served.children()) == 1)
        served.signal(signal.SIGTTOU)  # the last one stays
        assert served.get().status == 200
        assert len(served.children()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_end_answers_what_is_under_way(number: signal.Signals, workers: str) -> None:
    with Served(PID_APP, "--workers", workers) as served:
        with served.connect() as s:
            s.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
            until((served.directory / "sleeps").exists)
            served.signal(number)
            answer = read_answer(s)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer.lower()
        assert served.wait() == 0


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_second_signal_ends_at_once(workers: str) -> None:
    with Served(PID_APP, "--workers", workers, "--graceful-timeout", "1000") as served:
        with served.connect() as s:
            s.sendall(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
            until((served.directory / "sleeps").exists)
            served.signal(signal.SIGTERM)
            until(lambda: " ending\n" in served.log)
            served.signal(signal.SIGTERM)
            assert served.wait() == 0


def test_what_takes_longer_than_the_graceful_timeout_is_cut() -> None:
    with Served(PID_APP, "--graceful-timeout", "0.1") as served:
        with served.connect() as s:
            s.sendall(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
            until((served.directory / "sleeps").exists)
            served.signal(signal.SIGTERM)
            assert served.wait() == 0
        assert "1 requests are cut off" in served.log


def test_workers_end_when_their_parent_is_killed() -> None:
    with Served(PID_APP, status=None) as served:
        (worker,) = served.children()
        served.signal(signal.SIGKILL)
        until(lambda: not pathlib.Path(f"/proc/{worker}").exists())


@pytest.mark.parametrize("workers", ["0", "2"])
def test_unix_socket(workers: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    with Served(PID_APP, "--workers", workers, bind=f"unix:{path}") as served:
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(str(path))
            s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert read_answer(s).startswith(b"HTTP/1.1 200")
        assert f"on unix:{path} with" in served.log or workers == "0"
    assert not path.exists()


BUSY = (
    ASGI_HELP
    + """
import time

async def app(scope, receive, send):
    if scope["path"] == "/compute":
        open("computes", "w").close()
        while not os.path.exists("enough"):
            time.sleep(0.01)  # the loop stands
    await answer(send, b"from the application")

import os
"""
)


@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_health_is_told_while_the_application_computes(interface: str) -> None:
    wsgi = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/compute":
        open("computes", "w").close()
        while not os.path.exists("enough"):
            time.sleep(0.01)
    start_response("200 OK", [])
    return [b"from the application"]
"""
    source = BUSY if interface == "asgi" else wsgi
    with Served(source, "--health", "/healthz", "--threads", "1") as served, served.connect() as s:
        s.sendall(b"GET /compute HTTP/1.1\r\nHost: x\r\n\r\n")
        until((served.directory / "computes").exists)
        answer = served.get("/healthz")
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert b"application" not in answer.body
        (served.directory / "enough").touch()
        assert read_answer(s).endswith(b"from the application")


def test_tls(tmp_path: pathlib.Path) -> None:
    make_certificates(tmp_path)
    with Served(
        PID_APP, "--ssl-certfile", str(tmp_path / "server.crt"),
        "--ssl-keyfile", str(tmp_path / "server.key"),
    ) as served:  # fmt: skip
        assert "on https://127.0.0.1:" in served.log
        context = ssl.create_default_context(cafile=str(tmp_path / "ca.crt"))
        client = http.client.HTTPSConnection("localhost", served.port, timeout=20, context=context)
        client.request("GET", "/")
        assert client.getresponse().read().startswith(b"one")
        client.close()


def test_tls_needs_files_that_are_there(tmp_path: pathlib.Path) -> None:
    status, log = failure(PID_APP, "--ssl-certfile", str(tmp_path / "gone.crt"))
    assert status == 1
    assert "gone.crt" in log


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
os.execv(sys.executable, [sys.executable, "-m", "iokernel", "serve", "app:app"])
"""


def test_sockets_from_systemd(tmp_path: pathlib.Path) -> None:
    (tmp_path / "app.py").write_text(PID_APP)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, str(listener.fileno())],
            cwd=tmp_path,
            pass_fds=[listener.fileno()],
            stderr=subprocess.PIPE,
        )
        try:
            with socket.create_connection(listener.getsockname(), timeout=20) as s:
                s.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_answer(s).startswith(b"HTTP/1.1 200")
        finally:
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=20)
        assert process.returncode == 0, said
