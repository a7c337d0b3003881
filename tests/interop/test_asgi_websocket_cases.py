"""`iokernel serve` with an ASGI application that echoes does what the cases of the Autobahn list ask.

Not 7.1.1 and 7.1.6: there a close follows messages at once, and may be answered before the application has echoed them
(docs/protocols/websocket.md). The bare codec, in both roles, has test_websocket_cases.py.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kit.serve import Served
from wsecho import cases

APP = """
async def app(scope, receive, send):
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})
"""

LEFT_OUT = ("7.1.1", "7.1.6")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Served(APP, "--lifespan", "off") as server:
        yield server.port


@pytest.mark.parametrize("section", cases.SECTIONS)
def test_cases(section: str, port: int) -> None:
    chosen = [case for case in cases.SECTIONS[section]() if not case.name.startswith(LEFT_OUT)]
    found = [cases.against_server("127.0.0.1", port, "/", case) for case in chosen]
    assert len(found) > 5
    assert not any(found), "\n".join(filter(None, found))
