"""pycurl: one handle that is used again; for many callers its multi interface, without tasks."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

import pycurl
from shared.load import SAMPLE_MASK, State


def handle(port: int) -> tuple[Any, BytesIO]:
    body = BytesIO()
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, f"http://127.0.0.1:{port}/item")
    curl.setopt(pycurl.WRITEDATA, body)
    curl.setopt(pycurl.PROXY, "")
    return curl, body


def taken(body: BytesIO) -> int:
    size = body.tell()
    body.seek(0)
    body.truncate()
    return size


@contextmanager
def sync_client(port: int, callers: int) -> Iterator[Callable[[], int]]:
    curl, body = handle(port)

    def get() -> int:
        curl.perform()
        return taken(body)

    yield get


def call_all(port: int, state: State, expected: int) -> None:
    callers = len(state.turns)
    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAXCONNECTS, callers)
    starts = [0.0] * callers
    handles = [handle(port) for _ in range(callers)]
    numbers = {curl: me for me, (curl, _) in enumerate(handles)}
    for curl, _ in handles:
        multi.add_handle(curl)
    while True:
        multi.perform()
        _, done, failed = multi.info_read()
        if failed:
            raise RuntimeError(failed[0][2])
        for curl in done:
            me = numbers[curl]
            if taken(handles[me][1]) != expected:
                raise RuntimeError("a body of the wrong size")
            turn = state.turns[me] = state.turns[me] + 1
            if turn & SAMPLE_MASK == 0 and starts[me]:
                state.samples.append(time.perf_counter() - starts[me])
            multi.remove_handle(curl)
            starts[me] = time.perf_counter() if turn + 1 & SAMPLE_MASK == 0 else 0.0
            multi.add_handle(curl)
        if not done:
            multi.select(1.0)


def version() -> str:
    return f"pycurl {pycurl.version_info()[1]}"
