"""`iokernel serve` with an ASGI application that echoes does what the cases of the Autobahn list ask.

The bare codec, in both roles, has test_websocket_cases.py.
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


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with Served(APP, "--lifespan", "off") as server:
        yield server.port


@pytest.mark.parametrize("section", cases.SECTIONS)
def test_cases(section: str, port: int) -> None:
    found = [
        cases.against_server("127.0.0.1", port, "/", case) for case in cases.SECTIONS[section]()
    ]
    assert len(found) > 5
    assert not any(found), "\n".join(filter(None, found))
