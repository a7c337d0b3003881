"""Workers of `iokernel serve` that are replaced: by their number of requests, or as they stand."""

from __future__ import annotations

import os
import pathlib
import signal
import stat
import time

import pytest
from kit.help import until
from kit.load import Load
from kit.serve import ASGI_HELP, Served

ASGI = (
    ASGI_HELP
    + """
import os, time

def stand():
    open("stands", "w").close()
    while not os.path.exists("enough"):
        time.sleep(0.01)

async def app(scope, receive, send):
    if scope["path"] == "/stand":
        stand()
    await answer(send, str(os.getpid()).encode())
"""
)
WSGI = """
import os, time

def stand():
    open("stands", "w").close()
    while not os.path.exists("enough"):
        time.sleep(0.01)

def app(environ, start_response):
    if environ["PATH_INFO"] == "/stand":
        stand()
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""
BOTH = pytest.mark.parametrize("source", [ASGI, WSGI], ids=["asgi", "wsgi"])


@BOTH
def test_a_worker_is_replaced_after_its_requests_and_none_is_lost(source: str) -> None:
    limits = ("--max-requests", "50", "--max-requests-jitter", "10")
    with Served(source, *limits, "--workers", "2") as served, Load(served) as load:
        until(lambda: len(set(load.answers)) >= 6 or load.failures)
    assert load.failures == []


def test_health_checks_wear_nobody_out() -> None:
    options = ("--health", "/health", "--max-requests", "5")
    with Served(ASGI, *options) as served:
        (pid,) = served.children()
        for _ in range(20):
            assert served.get("/health").status == 200
        for _ in range(4):
            served.get()
        time.sleep(0.6)  # it has looked meanwhile
        assert served.children() == [pid]
        served.get()
        until(lambda: served.children() not in ([], [pid]))


@BOTH
def test_one_that_stands_is_replaced_and_says_where(source: str) -> None:
    options = ("--timeout", "2", "--threads", "1")
    with Served(source, *options, env={"PYTHONFAULTHANDLER": ""}) as served:
        (pid,) = served.children()
        with served.connect() as one, served.connect() as two:
            one.sendall(b"GET /stand HTTP/1.1\r\nHost: x\r\n\r\n")
            until((served.directory / "stands").exists)
            two.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # it waits
            until(lambda: f"worker {pid} has not moved for 2 s" in served.log)
        until(lambda: served.children() not in ([], [pid]))
        assert served.get().status == 200
        assert " in stand\n" in served.log  # of the stacks
        assert "was ended by SIGABRT" in served.log


def test_what_is_stopped_stands() -> None:
    with Served(ASGI, "--timeout", "2") as served:
        (pid,) = served.children()
        os.kill(pid, signal.SIGSTOP)  # and does not even take a SIGABRT
        until(lambda: "was ended by SIGKILL" in served.log)
        until(lambda: served.children() not in ([], [pid]))
        assert served.get().status == 200


def test_a_start_that_takes_too_long_is_tried_again() -> None:
    slow = "import os, time\nwhile not os.path.exists('enough'): time.sleep(0.01)\n" + ASGI
    served = Served(slow, "--start-timeout", "3")
    try:
        until(lambda: "did not start in 3 s" in served.log)
        (served.directory / "enough").touch()
        assert served.started().get().status == 200
        assert served.end() == 0
    finally:
        served.close()


# ---- of the first process


def test_the_pid_is_in_a_file_while_it_runs() -> None:
    with Served(ASGI, "--pid", "pid") as served:
        file = served.directory / "pid"
        assert file.read_text() == f"{served.process.pid}\n"
        served.signal(signal.SIGHUP)  # and workers that end leave it alone
        until(lambda: served.log.count("is ready") == 2)
        until(lambda: len(served.children()) == 1)
        assert file.exists()
        assert served.end() == 0
        assert not file.exists()


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_pid_of_another_server_is_left_alone(workers: str, tmp_path: pathlib.Path) -> None:
    file = tmp_path / "pid"
    options = ("--workers", workers, "--pid", str(file))
    file.write_text(f"{os.getpid()}\n")
    served = Served(ASGI, *options)
    try:
        assert served.wait() == 1
        assert f"process {os.getpid()} runs, which the file names" in served.log
        assert file.read_text() == f"{os.getpid()}\n"
    finally:
        served.close()
    file.write_text("4194304\n")  # nobody's: Linux has no larger ones than 4194303
    with Served(ASGI, *options):
        assert file.read_text() != "4194304\n"
    assert not file.exists()


def test_a_pid_file_that_cannot_be_written() -> None:
    served = Served(ASGI, "--pid", "gone/pid")
    try:
        assert served.wait() == 1
        assert "--pid gone/pid: No such file or directory" in served.log
    finally:
        served.close()


def test_umask(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    with Served(ASGI + "\nopen('made', 'w')\n", "--umask", "027",
                bind=f"unix:{path}") as served:  # fmt: skip
        assert stat.S_IMODE(path.stat().st_mode) == 0o750
        assert stat.S_IMODE((served.directory / "made").stat().st_mode) == 0o640


@pytest.mark.parametrize("workers", ["0", "1"])
def test_concurrency_of_wsgi_is_refused(workers: str) -> None:
    served = Served(WSGI, "--limit-concurrency", "2", "--workers", workers)
    try:
        assert served.wait() == 1
        assert "--limit-concurrency is for ASGI" in served.log
    finally:
        served.close()
