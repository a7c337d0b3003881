"""Codecs alone: nanoseconds to read an HTTP request or a WebSocket message, without any I/O.

Ours goes to a tape, in C; httptools (llhttp), h11 and websockets give their events to Python, as
servers use them. So the figures say what a request costs each way, and not which parser is the
better one. The request has a line and ten fields; messages are masked texts.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import h11
import httptools
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, Protocol, Side

PROGRAMS = pathlib.Path(__file__).parents[2] / "build" / "c" / "tests"
LARGE = 65536
REQUEST = (
    b"GET /wp-content/uploads/2026/03/hello-kitty.jpg HTTP/1.1\r\n"
    b"Host: www.kittyhell.example\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: ja,en-us;q=0.7,en;q=0.3\r\n"
    b"Accept-Encoding: gzip, deflate, br\r\n"
    b"Connection: keep-alive\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; seen=1\r\n"
    b"Cache-Control: max-age=0\r\n"
    b"Referer: https://www.kittyhell.example/index.html\r\n"
    b"X-Request-Id: 3f8c2d1e-0b4a-4d6e-9f53-7a1c2b3d4e5f\r\n\r\n"
)


def least(run: Callable[[], object], n: int, rounds: int = 7) -> float:
    """Nanoseconds for one, the least of the rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter_ns()
        for _ in range(n):
            run()
        best = min(best, (time.perf_counter_ns() - start) / n)
    return best


class Request:
    """What uvicorn collects."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


def read_httptools() -> None:
    request = Request()
    httptools.HttpRequestParser(request).feed_data(REQUEST)
    assert len(request.headers) == 10


def read_h11() -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(REQUEST)
    assert len(connection.next_event().headers) == 10


def read_websockets(size: int) -> Callable[[], object]:
    """A function that reads one message of that size with the state machine of websockets."""
    data = Frame(Opcode.TEXT, b"a" * size).serialize(mask=True)
    protocol = Protocol(Side.SERVER, state=OPEN)

    def read() -> None:
        protocol.receive_data(data)
        (event,) = protocol.events_received()
        assert isinstance(event, Frame) and len(event.data.decode()) == size

    return read


def time_requests() -> dict[str, float | None]:
    """HTTP."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(REQUEST)
        file.flush()
        program = [PROGRAMS / "http_time", file.name]
        words = subprocess.run(program, capture_output=True, check=True).stdout.split()
    ours, instructions, answer = (float(word) for word in words)
    tools, pure = round(least(read_httptools, 20_000), 1), round(least(read_h11, 1_000), 1)
    counted = f"{instructions:.0f}" if instructions >= 0 else "not counted on this machine"
    print(f"a request of {len(REQUEST)} bytes: ours {ours:.0f} ns (instructions: {counted}),")
    print(f"httptools {tools:.0f} ns, h11 {pure:.0f} ns")
    return {
        "http1_request_ns": ours,
        "http1_request_instructions": instructions if instructions >= 0 else None,
        "http1_answer_ns": answer,
        "httptools_request_ns": tools,
        "h11_request_ns": pure,
    }


def time_messages() -> dict[str, float]:
    """WebSocket."""
    words = subprocess.run(
        PROGRAMS / "websocket_time", capture_output=True, check=True
    ).stdout.split()
    small, large, greek, deflated, copy = (float(word) for word in words)
    other_small = round(least(read_websockets(32), 5_000), 1)
    other_large = round(least(read_websockets(LARGE), 500), 1)
    print(f"a WebSocket text of 32 bytes: ours {small:.0f} ns, websockets {other_small:.0f} ns;")
    print(f"of 64 KiB: ours {large:.0f} ns ({LARGE / large:.1f} GB/s), in Greek {greek:.0f} ns,")
    print(f"websockets {other_large:.0f} ns, a copy {copy:.0f} ns;")
    print(f"of 1 KiB, compressed and inflated: {deflated:.0f} ns")
    return {
        "websocket_32_ns": small,
        "websocket_64k_ns": large,
        "websocket_64k_greek_ns": greek,
        "websocket_1k_deflate_ns": deflated,
        "copy_64k_ns": copy,
        "websockets_32_ns": other_small,
        "websockets_64k_ns": other_large,
    }


def main() -> None:
    """Measure, print, and give one JSON object as the last line."""
    print(json.dumps({**time_requests(), **time_messages()}))


if __name__ == "__main__":
    sys.exit(main())
