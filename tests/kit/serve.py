"""`iokernel serve` with an application that a test wrote, and plain ways to talk to it."""

from __future__ import annotations

import http.client
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping
from typing import NamedTuple

import iokernel
from kit.help import PATIENCE_S, until

ASGI_HELP = """
import asyncio
import json

async def read_all(receive):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has gone")
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body

async def answer(send, body=b"", status=200, headers=()):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
"""
"""Two functions that many ASGI applications of tests begin with."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """A server of one's own, from its start-up line to its end, which must be a good one."""

    def __init__(
        self,
        source: str,
        *options: str,
        app: str = "app:app",
        bind: str = "127.0.0.1:0",
        env: Mapping[str, str] | None = None,
        status: int | None = 0,
    ) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="iok-serve-")
        self.directory = pathlib.Path(self._directory.name)
        self.write(source)
        self._said = self.directory / "said"
        self._status = status
        package = pathlib.Path(iokernel.__file__).parent.parent
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                [
                    sys.executable, "-m", "iokernel", "serve", app,
                    "--bind", bind, "--log-level", "debug", *options,
                ],
                cwd=self.directory,
                env={
                    **os.environ,
                    "PYTHONPATH": str(package),
                    "PYTHONDONTWRITEBYTECODE": "1",
                    "PYTHONFAULTHANDLER": "1",
                    **(env or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
            )  # fmt: skip

    def write(self, source: str, name: str = "app.py") -> None:
        """Replace a file of the application; as a whole, since it may be watched."""
        new = self.directory / "new"
        new.write_text(textwrap.dedent(source))
        new.rename(self.directory / name)

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._said.read_text(errors="replace")

    def started(self) -> Served:
        """Wait until it serves."""
        until(lambda: self._address() or self.process.poll() is not None, "a start-up line")
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended: {self.log}")
        return self

    def _address(self) -> str | None:
        found = re.search(r"(?:serves .* on|serving) (\S+?),? ", self.log)
        return found[1] if found else None

    @property
    def url(self) -> str:
        """Where it listens."""
        address = self._address()
        assert address is not None
        return address

    @property
    def port(self) -> int:
        """The port of TCP."""
        return int(self.url.rpartition(":")[2])

    def connect(self) -> socket.socket:
        """Give a connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)

    def client(self) -> http.client.HTTPConnection:
        """Give a client that keeps its connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)

    def request(
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask once, on a connection of its own."""
        client = self.client()
        try:
            client.request(method, target, body, dict(headers or {}))
            response = client.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            client.close()

    def get(self, target: str = "/", **headers: str) -> Answer:
        """GET; of headers' names underscores become dashes."""
        return self.request(
            "GET", target, headers={n.replace("_", "-"): v for n, v in headers.items()}
        )

    def children(self) -> list[int]:
        """Give the pids of the workers."""
        text = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in text.read_text().split()]

    def signal(self, number: signal.Signals) -> None:
        """Send it to the first process."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end; give the status."""
        return self.process.wait(PATIENCE_S)

    def end(self) -> int:
        """End it as asked to."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the server did not end; it said:\n{self.log}") from None

    def __enter__(self) -> Served:
        try:
            return self.started()
        except BaseException:
            self.process.kill()
            self.process.wait()
            self._directory.cleanup()
            raise

    def close(self) -> int:
        """End it, whether it has started or not; give the status."""
        try:
            return self.end()
        finally:
            self._directory.cleanup()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            status = self.end()
            if kind is not None:
                print(self.log)
            elif self._status is not None:
                assert status == self._status, self.log
        finally:
            self._directory.cleanup()


def read_answer(s: socket.socket) -> bytes:
    """Read an answer with a length, whole, from a plain connection."""
    got = b""
    end = time.monotonic() + PATIENCE_S
    while b"\r\n\r\n" not in got and time.monotonic() < end:
        part = s.recv(65536)
        if not part:
            return got
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    while length is not None and len(body) < int(length[1]):
        part = s.recv(65536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body
