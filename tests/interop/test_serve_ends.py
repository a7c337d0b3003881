"""The ends of `iokernel serve` that are not as planned: signals twice, at a bad time, by others."""

from __future__ import annotations

import os
import pathlib
import signal
import socket

import pytest
from kit.help import until
from kit.serve import ASGI_HELP, Served, read_answer

GATE_ASGI = (
    ASGI_HELP
    + """
import os

async def app(scope, receive, send):
    if scope["path"] == "/wait":
        open("waits", "w").close()
        while not os.path.exists("enough"):
            await asyncio.sleep(0.01)
    await answer(send, str(os.getpid()).encode())
"""
)
GATE_WSGI = """
import os, time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/wait":
        open("waits", "w").close()
        while not os.path.exists("enough"):
            time.sleep(0.01)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


def begin(served: Served, s: socket.socket) -> None:
    s.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    until((served.directory / "waits").exists)


@pytest.mark.parametrize("source", [GATE_ASGI, GATE_WSGI], ids=["asgi", "wsgi"])
def test_a_worker_that_is_signalled_twice_answers_what_is_under_way(source: str) -> None:
    """systemd signals all processes of a unit, and the parent hands its own signal on."""
    with Served(source, "--graceful-timeout", "1000") as served:
        (pid,) = served.children()
        with served.connect() as s:
            begin(served, s)
            served.signal(signal.SIGTERM)
            until(lambda: "SIGTERM: ending\n" in served.log)
            for _ in range(3):
                os.kill(pid, signal.SIGTERM)
                until(lambda: "SigPnd:\t0000000000000000" in status_of(pid))
            (served.directory / "enough").touch()
            assert read_answer(s).startswith(b"HTTP/1.1 200")
        assert served.wait() == 0
        assert "cut off" not in served.log


def status_of(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("source", [GATE_ASGI, GATE_WSGI], ids=["asgi", "wsgi"])
@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_second_signal_to_the_first_process_ends_at_once(source: str, workers: str) -> None:
    with Served(source, "--graceful-timeout", "1000", "--workers", workers) as served:
        with served.connect() as s:
            begin(served, s)
            served.signal(signal.SIGTERM)
            until(lambda: " ending\n" in served.log)
            served.signal(signal.SIGTERM)
            assert served.wait() == 0
        assert "cut off" in served.log
        assert "killed" not in served.log


HANGS = """
import asyncio

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        open("hangs", "w").close()
        await asyncio.sleep(3600)
"""


@pytest.mark.parametrize(
    ("workers", "number"), [("0", signal.SIGTERM), ("0", signal.SIGINT), ("1", signal.SIGTERM)]
)
def test_a_start_that_hangs_ends_when_told_to(workers: str, number: signal.Signals) -> None:
    served = Served(HANGS, "--workers", workers, "--graceful-timeout", "1000")
    try:
        until((served.directory / "hangs").exists)
        served.signal(number)
        assert served.wait() == 0
    finally:
        served.close()


def test_a_start_that_hangs_ends_with_the_parent() -> None:
    served = Served(HANGS, status=None)
    try:
        until((served.directory / "hangs").exists)
        (pid,) = served.children()
        served.signal(signal.SIGKILL)
        until(lambda: not pathlib.Path(f"/proc/{pid}").exists())
    finally:
        served.close()


LEAVES = """
import asyncio

async def app(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    open("leaves", "w").close()
    while not __import__("os").path.exists("enough"):
        await asyncio.sleep(0.01)
    open("left", "w").close()
    await send({"type": "lifespan.shutdown.complete"})
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_applications_shutdown_has_its_time_without_a_grace(workers: str) -> None:
    with Served(LEAVES, "--graceful-timeout", "0", "--workers", workers) as served:
        served.signal(signal.SIGTERM)
        until((served.directory / "leaves").exists)
        (served.directory / "enough").touch()
        until((served.directory / "left").exists)
        assert served.wait() == 0
        assert "did not end in time" not in served.log


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_shutdown_that_hangs_ends_by_a_second_signal(workers: str) -> None:
    with Served(LEAVES, "--graceful-timeout", "1000", "--workers", workers) as served:
        served.signal(signal.SIGTERM)
        until((served.directory / "leaves").exists)
        served.signal(signal.SIGTERM)
        assert served.wait() == 0
        assert "killed" not in served.log


EXITS = (
    ASGI_HELP
    + """
import os, signal, sys

async def app(scope, receive, send):
    if scope["path"] == "/exit":
        asyncio.get_running_loop().call_soon(sys.exit, 7)
    await answer(send, str(os.getpid()).encode())
"""
)


def test_an_application_that_exits_is_no_failed_start() -> None:
    """Or the server would end if it happened before all of its workers were ready."""
    with Served(EXITS) as served:
        before = served.children()
        served.get("/exit")
        until(lambda: "ended with status 7" in served.log)
        until(lambda: served.children() not in ([], before))
        assert "while it was loaded" not in served.log
        assert served.get().status == 200


def test_a_worker_less_leaves_nobody_behind() -> None:
    """The others must not hold the socket of the one that has gone."""
    with Served(GATE_ASGI, "--workers", "3") as served:
        served.signal(signal.SIGTTOU)
        until(lambda: len(served.children()) == 2)
        for _ in range(50):
            assert served.get().status == 200
