"""The demonstration: many tasks and some threads on a private Redis that is stopped in the middle.

``iokernel demo``, ``python -m iokernel.demo`` or ``make demo``. It starts a redis-server of its own on a unix socket in
a temporary directory, makes calls for a few seconds, takes the server away for a second, and accounts for every call:
what it knows from the replies, what the kernel counted, and what the server itself has stored must agree.

The calls alternate between GET, which the kernel may repeat when a connection is lost, and INCR, which it may not. The
server saves its data when it is stopped, so that its counter can be compared with the outcomes at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import iokernel.asyncio
import iokernel.sync
from iokernel.errors import Error

NAME = "iokernel-demo"
COUNTER = "demo:counter"
OUTCOMES = ("done", "never-sent", "maybe-executed", "rejected")
INCR_TIMEOUT_S = 0.5  # shorter than the server is away, to show calls that give up before they are sent
SERVER_START_S = 10.0
SOCKET_PATH_MAX = 100  # sun_path of unix(7) holds 108 bytes


class DemoError(Exception):
    """The demonstration cannot run, or showed something wrong."""


# ---- the server ---------------------------------------------------------------------------------


class Witness:
    """Asks the server over a plain socket, without iokernel."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, command: str) -> str:
        """Send one inline command; give the reply's text."""
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(SERVER_START_S)
            link.connect(self._path)
            link.sendall(command.encode() + b"\r\n")
            with link.makefile("rb") as stream:
                head = stream.readline().decode().rstrip()
                if head.startswith("$"):
                    return stream.read(max(int(head[1:]), 0)).decode()
                if head.startswith(("+", ":")):
                    return head[1:]
                raise OSError(f"the server answered {head!r}")

    def connections(self) -> int:
        """Count the connections that carry the demonstration's name."""
        return sum(f" name={NAME} " in line for line in self.ask("CLIENT LIST").splitlines())


class Server:
    """A private redis-server in a directory of its own."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "redis.sock")
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        program = shutil.which("redis-server") or shutil.which("valkey-server")
        if program is None:
            raise DemoError("neither redis-server nor valkey-server is installed")
        self._program = program

    @property
    def url(self) -> str:
        """What iokernel connects to."""
        return f"redis+unix://{quote(self.path)}?client_name={NAME}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": self.path,
            "dir": self._directory,
            "logfile": os.path.join(self._directory, "server.log"),
            "save": "3600 1",  # so it also saves when it is told to end
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [self._program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for us; we stop it
        )
        end = time.monotonic() + SERVER_START_S
        while True:
            with contextlib.suppress(OSError):
                if Witness(self.path).ask("PING") == "PONG":
                    return
            if self._process.poll() is not None or time.monotonic() > end:
                raise DemoError(f"{self._program} does not start: see {self._directory}/server.log")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it in good order; again is harmless."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(SERVER_START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise DemoError("the server had to be killed") from None


@contextlib.contextmanager
def private_server() -> Iterator[Server]:
    """Run a server in a temporary directory, which stays if something went wrong."""
    place = None if len(tempfile.gettempdir()) < SOCKET_PATH_MAX - 40 else "/tmp"
    directory = tempfile.mkdtemp(prefix="iokernel-demo-", dir=place)
    server = Server(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
    shutil.rmtree(directory)
