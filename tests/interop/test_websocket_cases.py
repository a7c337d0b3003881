"""The WebSocket codec does what the published cases of the Autobahn test suite ask, in both roles.

The codec is alone here, behind blocking sockets (tests/wsecho/echo.c); the same cases run against
whatever serves WebSocket.
"""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
from collections.abc import Iterator

import pytest
from conftest import ROOT
from wsecho import cases

BUILD = pathlib.Path(os.environ.get("IOK_BUILD", ROOT / "build" / "c"))
ECHO = BUILD / "tests" / "websocket_echo"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The port of an echo server by our codec; whatever is worth anything is compressed."""
    server = subprocess.Popen(
        [ECHO, "server", "min=1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdout is not None
    yield int(server.stdout.readline())
    server.communicate()


@pytest.mark.parametrize("section", cases.SECTIONS)
def test_server(section: str, port: int) -> None:
    found = [cases.against_server("127.0.0.1", port, "/", c) for c in cases.SECTIONS[section]()]
    assert len(found) > 5
    assert not any(found), "\n".join(filter(None, found))


@pytest.mark.parametrize("section", cases.SECTIONS)
def test_client(section: str) -> None:
    found = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [ECHO, "client", str(listener.getsockname()[1]), "/", "min=1"]
        for case in cases.SECTIONS[section]():
            client = subprocess.Popen(command)
            found.append(cases.against_client(listener.accept()[0], case))
            assert client.wait(60) == 0
    assert not any(found), "\n".join(filter(None, found))


def test_refused_openings(port: int) -> None:
    """A request that is no opening gets the status that says why."""
    good = {
        "Host": "h",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    changes = [
        ({}, "101"),
        ({"Sec-WebSocket-Version": "12"}, "426"),
        ({"Sec-WebSocket-Key": "short"}, "400"),
        ({"Upgrade": "h2c"}, "400"),
        ({"Connection": "close"}, "400"),
        ({"Content-Length": "3"}, "400"),
    ]
    for change, status in changes:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            fields = "".join(f"{name}: {value}\r\n" for name, value in (good | change).items())
            sock.sendall(f"GET / HTTP/1.1\r\n{fields}\r\n".encode())
            sock.settimeout(30)
            head = sock.recv(4096).decode()
            assert head.startswith(f"HTTP/1.1 {status} "), (change, head)
            assert status != "426" or "Sec-WebSocket-Version: 13" in head
