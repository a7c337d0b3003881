"""What several tests need: conditions to wait for, own programs, servers that misbehave."""

from __future__ import annotations

import asyncio
import os
import pathlib
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable

import iokernel

PATIENCE_S = 20
"""How long a condition may take before its test fails; on an idle machine all take milliseconds."""


INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
"""A shell's background jobs ignore Ctrl-C, and so would the programs that tests start there."""


def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until it is true."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true in {PATIENCE_S} s")
        time.sleep(0.005)


async def auntil(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until it is true, and let other tasks run meanwhile."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what} did not come true in {PATIENCE_S} s")
        await asyncio.sleep(0.005)


def start_program(source: str, *args: str) -> subprocess.Popen[str]:
    """Start a Python program that imports the same iokernel; its arguments are sys.argv[1:]."""
    package = pathlib.Path(iokernel.__file__).parent.parent
    return subprocess.Popen(
        [
            sys.executable,
            "-X",
            "faulthandler",
            "-c",
            INTERRUPTIBLE + textwrap.dedent(source),
            *args,
        ],
        env={**os.environ, "PYTHONPATH": str(package)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_program(source: str, *args: str) -> str:
    """Run one to its end, which must be a good one, and give what it printed."""
    with start_program(source, *args) as program:
        try:
            out, err = program.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            program.kill()
            out, err = program.communicate()
            raise AssertionError(f"the program did not end; it printed:\n{out}{err}") from None
    assert program.returncode == 0, f"exit status {program.returncode}:\n{out}{err}"
    return out


class WrongServer:
    """A server on a free port that answers whatever it gets with the bytes given; closes or not.

    The first answer goes to the first bytes that a connection brings, and so on; the last one
    is repeated.
    """

    def __init__(self, *answers: bytes, close: bool = False) -> None:
        self._answers = answers
        self._close = close
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """As if it were a Redis server."""
        return f"redis://127.0.0.1:{self.port}"

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        n = 0
        try:
            while connection.recv(65536):
                connection.sendall(self._answers[min(n, len(self._answers) - 1)])
                n += 1
                if self._close and n == len(self._answers):
                    break
        except OSError:
            pass
        connection.close()

    def __enter__(self) -> WrongServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for connection in self._connections:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for thread in self._threads[1:]:
            thread.join()
