"""The application that every server runs, as ASGI and as WSGI."""

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from typing import Any

HELLO = b"Hello, world!"
TEN_KB = b"0123456789" * 1024
SLEEP_S = 0.01
BUSY_S = 0.2
TEXT, JSON, BYTES = b"text/plain; charset=utf-8", b"application/json", b"application/octet-stream"


def record() -> bytes:
    return json.dumps({"id": 4711, "name": "Ada", "tags": ["a", "b", "c"], "score": 0.5}).encode()


def compute() -> None:
    """Hold the interpreter's lock, as a loop over numbers does."""
    end = time.perf_counter() + BUSY_S
    while time.perf_counter() < end:
        sum(range(1000))


async def read_all(receive: Any) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    path = scope["path"]
    kind, body = TEXT, HELLO
    if path == "/json":
        kind, body = JSON, record()
    elif path == "/10kb":
        kind, body = BYTES, TEN_KB
    elif path == "/echo":
        kind, body = BYTES, await read_all(receive)
    elif path == "/sleep":
        await asyncio.sleep(SLEEP_S)
    elif path == "/busy":
        compute()
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    kind, body = TEXT, HELLO
    if path == "/json":
        kind, body = JSON, record()
    elif path == "/10kb":
        kind, body = BYTES, TEN_KB
    elif path == "/echo":
        kind, body = BYTES, environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    elif path == "/sleep":
        time.sleep(SLEEP_S)
    elif path == "/busy":
        compute()
    headers = [("content-type", kind.decode()), ("content-length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
