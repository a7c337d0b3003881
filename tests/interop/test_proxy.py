"""The fault proxy itself: a tool that tests of others stand on does exactly what it was told."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from kit.help import until
from kit.proxy import Proxy


class Echo:
    """Sends back what comes, and keeps what each connection brought until its end."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.got: list[bytes] = []
        self.ended = 0
        self._thread = threading.Thread(target=self._main)
        self._thread.start()

    def _main(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            self.got.append(b"")
            with link:
                while data := link.recv(65536):
                    self.got[-1] += data
                    link.sendall(data)
            self.ended += 1

    def close(self) -> None:
        """End it."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(echo.port) as proxy:
        yield proxy


def connect(proxy: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=20)


def read(link: socket.socket, n: int) -> bytes:
    """So many bytes, or fewer if it ends before."""
    got = b""
    while len(got) < n and (data := link.recv(n - len(got))):
        got += data
    return got


def silent(link: socket.socket) -> bool:
    """Nothing came for a moment."""
    link.settimeout(0.05)
    try:
        link.recv(1)
    except TimeoutError:
        return True
    finally:
        link.settimeout(20)
    return False


def test_passes_all_on(echo: Echo, proxy: Proxy) -> None:
    data = bytes(range(256)) * 4000
    with connect(proxy) as link:
        sender = threading.Thread(target=link.sendall, args=(data,))
        sender.start()
        assert read(link, len(data)) == data
        sender.join()
        assert (proxy.accepted, proxy.open, proxy.cuts) == (1, 1, 0)
        until(lambda: (proxy.passed_up, proxy.passed_down) == (len(data), len(data)))
        link.shutdown(socket.SHUT_WR)
        assert read(link, 1) == b""
    until(lambda: proxy.open == 0)
    assert echo.got == [data]


@pytest.mark.parametrize("way", ["up", "down"])
def test_cut_at_every_byte(echo: Echo, proxy: Proxy, way: str) -> None:
    data = b"0123456789"
    for n in range(len(data) + 1):
        proxy.cut_next(**{way: n})
        with connect(proxy) as link:
            link.sendall(data)
            back = read(link, 100)
        until(lambda n=n: proxy.cuts == n + 1 and proxy.open == 0)
        if way == "up":
            assert echo.got[-1] == data[:n]
            assert data[:n].startswith(back)
        else:
            assert back == data[:n]
    assert proxy.cuts == len(data) + 1
    with connect(proxy) as link:  # only the next connection was meant
        link.sendall(data)
        assert read(link, len(data)) == data


def test_reset(proxy: Proxy) -> None:
    proxy.reset = True
    with connect(proxy) as link:
        link.sendall(b"x")
        assert read(link, 1) == b"x"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            link.recv(1)


def test_late_and_slow(proxy: Proxy) -> None:
    with connect(proxy) as link:
        proxy.delay_up, proxy.delay_down, proxy.jitter = 0.02, 0.03, 0.01
        started = time.monotonic()
        link.sendall(b"late")
        assert read(link, 4) == b"late"
        assert time.monotonic() - started >= 0.05
        proxy.delay_up = proxy.delay_down = proxy.jitter = 0.0
        proxy.rate = 100_000
        started = time.monotonic()
        link.sendall(bytes(5000))
        assert read(link, 5000) == bytes(5000)
        assert time.monotonic() - started >= 0.1  # 50 ms each way


def test_pause(proxy: Proxy) -> None:
    with connect(proxy) as link:
        proxy.pause()
        link.sendall(b"x")
        assert silent(link)
        proxy.resume()
        assert read(link, 1) == b"x"


def test_half_close(echo: Echo, proxy: Proxy) -> None:
    with connect(proxy) as link:
        until(lambda: proxy.open == 1)
        link.sendall(b"x")
        assert read(link, 1) == b"x"
        proxy.half_close()
        assert read(link, 1) == b""
        link.sendall(b"y")
        until(lambda: echo.got[-1] == b"xy")


def test_silence(echo: Echo, proxy: Proxy) -> None:
    proxy.silent = True
    with connect(proxy) as link:
        link.sendall(b"x")
        assert silent(link)
        assert (proxy.accepted, echo.got) == (1, [])


def test_refusing(proxy: Proxy) -> None:
    with connect(proxy) as link:
        link.sendall(b"x")
        assert read(link, 1) == b"x"
        for _ in range(2):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
            proxy.admit()
        link.sendall(b"y")
        assert read(link, 1) == b"y"  # this one stays
    with connect(proxy) as link:
        link.sendall(b"z")
        assert read(link, 1) == b"z"


def test_server_away(echo: Echo) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(nobody.getsockname()[1]) as proxy, connect(proxy) as link:
            assert read(link, 1) == b""
