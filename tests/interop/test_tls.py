"""TLS to a real Redis: whom we trust, who we are, and what is said when that does not fit."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import WrongServer
from kit.servers import RedisServer, make_certificates


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with RedisServer(tls=True) as redis:
        yield redis


@pytest.fixture(scope="module")
def strict() -> Iterator[RedisServer]:
    """One that wants to see a client's certificate."""
    with RedisServer(["tls-auth-clients yes"], tls=True) as redis:
        yield redis


def trusting(server: RedisServer, host: str = "localhost", more: str = "") -> str:
    """The URL for a client that trusts the server's authority."""
    return f"rediss://{host}:{server.tls_port}?tls_ca={server.directory / 'ca.crt'}{more}"


def failure(url: str) -> iokernel.Error:
    with sync.connect(url) as client, pytest.raises(iokernel.Error) as caught:
        client.ping(timeout=1)
    assert caught.value.outcome == "never-sent"
    return caught.value


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_trusted_authority(server: RedisServer, host: str) -> None:
    with sync.connect(trusting(server, host)) as client:
        assert client.set("k", "v") == "OK"
        assert client.get("k") == b"v"
        with client.lease() as lease:
            assert lease.ping() == "PONG"


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 20 << 20])
def test_values_of_many_sizes(server: RedisServer, size: int) -> None:
    value = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with sync.connect(trusting(server)) as client:
        client.set("k", value, timeout=30)
        assert client.get("k", timeout=30) == value


def test_many_tasks(server: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(trusting(server)) as client:
            for _ in range(5):
                words = [f"{i}".encode() * (i % 50) for i in range(1000)]
                assert await asyncio.gather(*[client.echo(word) for word in words]) == words
            assert client.stats()["connects"] == 1

    asyncio.run(main())


def test_unknown_authority(server: RedisServer, tmp_path: pathlib.Path) -> None:
    make_certificates(tmp_path)  # of another authority by the same name
    for url in (server.tls_url, f"{server.tls_url}?tls_ca={tmp_path / 'ca.crt'}"):
        error = failure(url)
        assert isinstance(error, iokernel.Unavailable)
        assert error.code == "IOK_ETLS"
        assert "certificate verify failed" in str(error)


def test_wrong_name(server: RedisServer) -> None:
    error = failure(trusting(server, more="&tls_name=other.example"))
    assert error.code == "IOK_ETLS"
    assert "other.example" in str(error)
    with sync.connect(trusting(server, "127.0.0.2", "&tls_name=localhost")) as client:
        # Nobody listens at that address: the name alone does not fail.
        with pytest.raises(iokernel.Unavailable) as caught:
            client.ping(timeout=0.3)
        assert caught.value.code == "IOK_EREFUSED"


def test_name_may_differ_from_the_host(server: RedisServer) -> None:
    with sync.connect(trusting(server, "127.0.0.1", "&tls_name=localhost")) as client:
        assert client.ping() == "PONG"


def test_verifying_can_be_turned_off(server: RedisServer) -> None:
    with sync.connect(f"{server.tls_url}?tls_verify=no") as client:
        assert client.ping() == "PONG"
    with pytest.raises(iokernel.URLError, match="tls_verify"):
        sync.connect(f"{server.tls_url}?tls_verify=perhaps")


def test_client_certificate(strict: RedisServer) -> None:
    ours = f"&tls_cert={strict.directory / 'client.crt'}&tls_key={strict.directory / 'client.key'}"
    with sync.connect(trusting(strict, more=ours)) as client:
        assert client.ping() == "PONG"
    error = failure(trusting(strict))
    assert error.code in ("IOK_ETLS", "IOK_ERESET")
    assert "certificate" in str(error)


@pytest.mark.parametrize("option", ["tls_ca", "tls_cert", "tls_key"])
def test_missing_files(server: RedisServer, option: str) -> None:
    with pytest.raises(iokernel.Error, match="/nonexistent/file|certificate file") as caught:
        with sync.connect(f"{server.tls_url}?{option}=/nonexistent/file") as client:
            client.ping(timeout=1)
    assert caught.value.code == "IOK_ETLS"


def test_plain_server(server: RedisServer) -> None:
    # Redis takes our hello for the beginning of a command and waits for its end.
    url = trusting(server, more="&connect_timeout=200ms")
    error = failure(url.replace(str(server.tls_port), str(server.port)))
    assert error.code in ("IOK_ECONNECT", "IOK_ETLS")
    assert "TLS" in str(error) or "connect_timeout" in str(error)
    with WrongServer(b"HTTP/1.1 400 Bad Request\r\n\r\n") as other:
        error = failure(f"rediss://127.0.0.1:{other.port}")
        assert error.code == "IOK_ETLS"
        assert "does not speak TLS" in str(error)


def test_plain_client_of_a_tls_server(server: RedisServer) -> None:
    error = failure(f"redis://127.0.0.1:{server.tls_port}")
    assert error.code in ("IOK_EPROTO", "IOK_ERESET")


def test_lost_connection_comes_back(start_redis) -> None:
    server = start_redis(tls=True)
    with sync.connect(trusting(server)) as client:
        client.set("k", "v")
        server.cli("CLIENT", "KILL", "TYPE", "normal")
        assert client.get("k", timeout=20) == b"v"
        server.kill()
        server.start()
        assert client.get("k", timeout=20) is None


def test_old_protocol_versions_are_refused(start_redis) -> None:
    server = start_redis('tls-protocols "TLSv1.1"', tls=True)
    error = failure(trusting(server))
    assert error.code in ("IOK_ETLS", "IOK_ERESET")
