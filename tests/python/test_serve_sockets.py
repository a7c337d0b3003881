"""What `iokernel serve` binds: options of addresses, names of several addresses."""

from __future__ import annotations

import pathlib
import socket
import stat

import pytest
from iokernel.serve.options import Options
from iokernel.serve.sockets import BindError, bind_all


def test_a_unix_socket_has_the_mode_that_was_asked_for(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "s"
    bound = bind_all(Options("x", [f"unix:{path}?mode=0620&idle=5s"]))
    try:
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        assert bound.of_slot(0)[0].endswith("&idle=5s")
        assert "mode" not in bound.of_slot(0)[0]
    finally:
        bound.close()


def test_a_backlog_is_as_long_as_was_asked_for() -> None:
    bound = bind_all(Options("x", ["127.0.0.1:0?backlog=1"], workers=2))
    try:
        assert "backlog" not in bound.of_slot(1)[0]
        address = bound.addresses[0].sockets[0].getsockname()
        with pytest.raises((BlockingIOError, TimeoutError)):  # 2 x (1 + 1) fit
            taken = []
            for _ in range(64):
                taken.append(socket.create_connection(address, timeout=0.2))
    finally:
        for s in taken:
            s.close()
        bound.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0?fd=3", "fd= has no meaning here"),
        ("0?reuse_port=yes", "reuse_port= has no meaning here"),
        ("0?mode=0600", "mode= is for unix sockets"),
        ("0?backlog=0", "backlog= must be from 1 to 65535"),
        ("unix:s?mode=9", "mode= must be octal"),
    ],
)
def test_options_that_are_none(text: str, said: str) -> None:
    with pytest.raises(BindError) as caught:
        bind_all(Options("x", [text]))
    assert said in str(caught.value)


def names(monkeypatch: pytest.MonkeyPatch, *hosts: str) -> None:
    """Let every name stand for these addresses."""

    def found(host: object, port: int, **how: object) -> list[object]:
        family = {True: socket.AF_INET6, False: socket.AF_INET}
        return [(family[":" in h], socket.SOCK_STREAM, 6, "", (h, port)) for h in hosts]

    monkeypatch.setattr(socket, "getaddrinfo", found)


def test_an_address_that_the_machine_has_not_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """/etc/hosts often says ::1 where there is no IPv6; 192.0.2.1 is nobody's (RFC 5737)."""
    names(monkeypatch, "192.0.2.1", "127.0.0.1")
    bound = bind_all(Options("x", ["localhost:0"]))
    assert [a.shown().rpartition(":")[0] for a in bound.addresses] == ["127.0.0.1"]
    bound.close()


def test_a_name_without_any_address_here_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "192.0.2.1")
    with pytest.raises(BindError, match="cannot bind x:0: Cannot assign requested address"):
        bind_all(Options("x", ["x:0"]))


def test_an_address_of_a_name_that_is_taken_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        names(monkeypatch, "127.0.0.2", "127.0.0.1")
        with pytest.raises(BindError, match="Address already in use"):
            bind_all(Options("x", [f"x:{port}"]))
    with socket.create_server(("127.0.0.2", port)):  # nothing is left of the one that was free
        pass
