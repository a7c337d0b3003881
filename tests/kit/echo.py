"""An ASGI application that says what it was asked, and remembers it; and how to ask it for that."""

from __future__ import annotations

import json
from typing import TypedDict

from kit.serve import ASGI_HELP, Served

ECHO = (
    ASGI_HELP
    + """
seen = []

async def app(scope, receive, send):
    assert scope["type"] == "http"
    target = scope["raw_path"]
    if scope["query_string"]:
        target += b"?" + scope["query_string"]
    if target == b"/-/seen":
        said, seen[:] = json.dumps(seen).encode(), []
        return await answer(send, said)
    try:
        body = await read_all(receive)
    except ConnectionError:
        return
    request = {
        "method": scope["method"],
        "target": target.decode("latin-1"),
        "headers": [[n.decode("latin-1"), v.decode("latin-1")] for n, v in scope["headers"]],
        "body": body.decode("latin-1"),
    }
    seen.append(request)
    await answer(send, json.dumps(request).encode(), headers=[(b"x-seen", b"yes")])
"""
)


class Request(TypedDict):
    """What the application saw."""

    method: str
    target: str
    headers: list[list[str]]
    body: str


def seen(served: Served) -> list[Request]:
    """Give the requests that were read whole since the last time, in their order."""
    requests: list[Request] = json.loads(served.get("/-/seen").body)
    return requests


def lines(requests: list[Request]) -> list[str]:
    """As "method target body"."""
    return [f"{r['method']} {r['target']} {r['body']}" for r in requests]
