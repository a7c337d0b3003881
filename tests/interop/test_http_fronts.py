"""nginx and HAProxy in front of `iokernel serve`, with connections to it that stay: load, and new processes on either side."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from kit.echo import ECHO
from kit.fronts import Front
from kit.help import PATIENCE_S, until
from kit.serve import ASGI_HELP, Served

KINDS = pytest.mark.parametrize("kind", ["haproxy", "nginx"])


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served(ECHO, "--workers", "2") as served:
        yield served


class Load:
    """Clients that POST all the time, each request once, and count what came of it."""

    def __init__(self, port: int, clients: int = 8, *, keep: bool = True) -> None:
        self.came: Counter[str] = Counter()
        self._port = port
        self._keep = keep
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(clients)]

    def _ask(self, client: http.client.HTTPConnection, mark: str) -> str:
        try:
            more = {} if self._keep else {"Connection": "close"}
            client.request("POST", f"/{mark}", mark.encode(), more)
            response = client.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            client.close()
            return repr(error)
        right = f'"body": "{mark}"'.encode() in body
        return "right" if response.status == 200 and right else f"{response.status} {body!r}"

    def _run(self, number: int) -> None:
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE_S)
        asked = 0
        while not self._ended.is_set():
            asked += 1
            came = self._ask(client, f"{number}-{asked}")
            with self._lock:
                self.came[came] += 1
        client.close()

    def more(self, n: int = 300) -> None:
        """Wait for so many more right answers."""
        enough = self.came["right"] + n
        until(lambda: self.came["right"] >= enough, "more answers")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()


def renew_workers(served: Served) -> None:
    """Let new workers take the place of the old ones."""
    old = set(served.children())
    served.signal(signal.SIGHUP)
    until(lambda: len(served.children()) == 2 and not old & set(served.children()))


@KINDS
def test_load(served: Served, kind: str) -> None:
    with Front(kind, served.port, connections=32) as front:
        said = subprocess.run(
            ["wrk", "-t2", "-c128", "-d3s", f"{front.url}/x"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        total = re.search(r"(\d+) requests in", said)
        assert total is not None and int(total[1]) > 128
        assert "Socket errors" not in said
        assert "Non-2xx" not in said
        until(lambda: len(front.logged()) >= int(total[1]))
        statuses = {line.status for line in front.logged() if line.seen}
        assert statuses == {200}


@KINDS
def test_new_workers_behind_a_front_lose_no_request(served: Served, kind: str) -> None:
    """Not even a POST, which no front may repeat."""
    with Front(kind, served.port, connections=16) as front, Load(front.port) as load:
        for _ in range(4):
            load.more()
            renew_workers(served)
        load.more()
    assert set(load.came) == {"right"}


@KINDS
def test_a_new_front_loses_no_request(served: Served, kind: str) -> None:
    # A client of its own connection for each request: one that is idle may be closed by the old front as it asks.
    with Front(kind, served.port, connections=16) as front, Load(front.port, keep=False) as load:
        for _ in range(3):
            load.more()
            front.reload()
        load.more()
    assert set(load.came) == {"right"}


LARGE = (
    ASGI_HELP
    + """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await answer(send, b"x" * 20_000_000)
    open("answered", "w").close()
"""
)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_end_waits_for_slow_readers(workers: str) -> None:
    with Served(LARGE, "--workers", workers) as served, served.connect() as s:
        s.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        until((served.directory / "answered").exists)
        served.signal(signal.SIGTERM)
        until(lambda: "ending" in served.log)
        time.sleep(0.5)  # it would have ended by now
        size = 0
        while part := s.recv(1_000_000):
            size += len(part)
        assert size > 20_000_000
        assert served.wait() == 0
