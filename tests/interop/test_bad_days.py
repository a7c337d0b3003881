"""What goes wrong on a bad day, and what the program is told: addresses, servers and passwords that are wrong."""

from __future__ import annotations

import asyncio
import pickle
import re
import threading

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import PATIENCE_S, WrongServer, until
from kit.servers import RedisServer, free_port

SOON = 0.3
"""A deadline, in seconds, for calls that cannot succeed."""


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("localhost:6379", "no scheme|unknown scheme"),
        ("redis:", "no scheme"),
        ("gopher://localhost", "unknown scheme 'gopher': known are redis"),
        ("redis://", "no host"),
        ("redis://h:99999", "bad port: expected a number"),
        ("redis://h:port", "bad port: expected a number"),
        ("redis://[::1", "without"),
        ("redis://a b", "blank"),
        ("redis://h/name", "database number"),
        ("redis://h/1?db=2", "twice"),
        ("redis://h?timeut=3", "unknown option 'timeut': did you mean 'timeout'"),
        ("redis://h?max_repl=3", "did you mean 'max_reply'"),
        ("redis://h?protocl=3", "did you mean 'protocol'"),
        ("redis://h?xyzzy=3", "unknown option 'xyzzy'"),
        ("redis://h?timeout=3parsecs", "bad timeout=3parsecs: expected a duration"),
        ("redis://h?connections=0", "bad connections=0: expected a whole number from 1"),
        ("redis://h?protocol=9", "from 2 to 3"),
        ("redis://h?tls_ca=/ca.crt", "rediss://"),
    ],
)
@pytest.mark.parametrize("connect", [sync.connect, aio.connect])
def test_wrong_urls(connect: type, url: str, says: str) -> None:
    with pytest.raises(iokernel.URLError, match=says) as caught:
        connect(url)
    assert isinstance(caught.value, ValueError)
    assert caught.value.code in ("IOK_EURL", "IOK_EOPTION")


def test_url_errors_hide_the_password() -> None:
    with pytest.raises(iokernel.URLError) as caught:
        sync.connect("redis://user:secret@host?timeout=never")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [None, 3, b"redis://localhost"])
def test_urls_of_other_types(value: object) -> None:
    with pytest.raises((TypeError, AttributeError)):
        sync.connect(value)  # type: ignore[arg-type]


def failure(url: str, *, timeout: float = SOON) -> iokernel.Error:
    """How a call to it fails, which must be the same whichever way it is made."""

    async def main() -> iokernel.Error:
        async with aio.connect(url) as client:
            with pytest.raises(iokernel.Error) as caught:
                await client.get("k", timeout=timeout)
            return caught.value

    with sync.connect(url) as client:
        with pytest.raises(iokernel.Error) as caught:
            client.get("k", timeout=timeout)
        error = caught.value
        with pytest.raises(iokernel.Error) as caught:
            client.ready(timeout)
        assert caught.value.code == error.code
    other = asyncio.run(main())
    assert (type(other), other.code, other.outcome) == (type(error), error.code, error.outcome)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code) == (type(error), str(error), error.code)
    return error


def test_refused_connection() -> None:
    port = free_port()
    error = failure(f"redis://127.0.0.1:{port}")
    assert isinstance(error, iokernel.Unavailable) and isinstance(error, ConnectionError)
    assert (error.code, error.outcome) == ("IOK_EREFUSED", "never-sent")
    assert f"127.0.0.1:{port}: connection refused" in str(error)


def test_missing_socket() -> None:
    error = failure("redis+unix:///nonexistent/redis.sock")
    assert isinstance(error, iokernel.Unavailable)
    assert "/nonexistent/redis.sock: no such file or directory" in str(error)


def test_name_that_does_not_resolve() -> None:
    # A resolver that answers slowly leaves the deadline to speak first.
    error = failure("redis://no-such-host.invalid", timeout=1)
    assert error.outcome == "never-sent"
    assert error.code in ("IOK_ERESOLVE", "IOK_ETIMEOUT")
    assert "no-such-host.invalid" in str(error)


@pytest.mark.parametrize(
    "url", ["redis://127.0.0.1", "redis://:wrong@127.0.0.1", "redis://me:wrong@127.0.0.1"]
)
def test_wrong_passwords_fail_at_once(start_redis, url: str) -> None:
    server = start_redis("requirepass right")
    error = failure(f"{url}:{server.port}", timeout=20)
    assert isinstance(error, iokernel.Unavailable)
    assert (error.code, error.outcome) == ("IOK_EAUTH", "never-sent")
    assert "sign-in refused" in str(error)
    assert "wrong" not in str(error).replace("WRONGPASS", "")


@pytest.mark.parametrize("option", ["", "?protocol=2"])
def test_right_passwords(start_redis, option: str) -> None:
    server = start_redis("requirepass right", "user app on >of-app ~* +@all")
    for who, name in (
        (":right", b"default"),
        ("app:of-app", b"app"),
        ("default:right", b"default"),
    ):
        with sync.connect(f"redis://{who}@127.0.0.1:{server.port}{option}") as client:
            assert client.acl_whoami() == name


def test_password_that_becomes_right(redis_server: RedisServer) -> None:
    redis_server.cli("CONFIG", "SET", "requirepass", "right")
    with sync.connect(redis_server.url) as client:
        with pytest.raises(iokernel.Unavailable):
            client.get("k")
        redis_server.cli("-a", "right", "--no-auth-warning", "CONFIG", "SET", "requirepass", "")

        def is_ready() -> bool:
            try:
                client.ready(PATIENCE_S)
            except iokernel.Unavailable:  # at once, by what is known until the next attempt
                return False
            return True

        until(is_ready)
        assert client.ping() == "PONG"


def test_database_that_does_not_exist(shared_redis: RedisServer) -> None:
    error = failure(f"{shared_redis.url}/99")
    assert isinstance(error, iokernel.URLError)
    assert "database was refused" in str(error)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
            "does not speak RESP.*HTTP/1.1 400",
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak RESP.*SSH-2.0"),
        (b"\x15\x03\x01\x00\x02\x02\x0a", "not RESP.*TLS alert: use rediss://"),
    ],
)
@pytest.mark.parametrize("close", [True, False])
def test_servers_of_other_protocols(answer: bytes, says: str, close: bool) -> None:
    with WrongServer(answer, close=close) as server:
        error = failure(server.url, timeout=20)
    assert (error.code, error.outcome) == ("IOK_EPROTO", "never-sent")
    assert re.search(says, str(error))


def test_server_that_says_nothing() -> None:
    with WrongServer(b"") as server:
        error = failure(server.url)
    assert isinstance(error, iokernel.Timeout) and isinstance(error, TimeoutError)
    assert error.outcome == "never-sent"


def test_server_that_hangs_up() -> None:
    with WrongServer(b"", close=True) as server:
        error = failure(server.url)
    assert (error.code, error.outcome) == ("IOK_ERESET", "never-sent")
    assert "closed the connection during sign-in" in str(error)


SIGNED_IN = b"%1\r\n+proto\r\n:3\r\n+OK\r\n+OK\r\n"


@pytest.mark.parametrize(
    "answer", [b"$5\r\nabcdefgh\r\n", b":12x\r\n", b"*-7\r\n", b"!\r\n", b"\x00"]
)
def test_replies_that_break_the_protocol(answer: bytes) -> None:
    with WrongServer(SIGNED_IN, answer) as server, sync.connect(server.url) as client:
        with pytest.raises(iokernel.MaybeExecuted) as caught:
            client.incr("k", timeout=20)
    error = caught.value
    assert (error.code, error.outcome) == ("IOK_EPROTO", "maybe-executed")
    assert error.endpoint == f"127.0.0.1:{server.port}"


def test_replies_that_are_cut_short() -> None:
    with WrongServer(SIGNED_IN, b"$5\r\nabc", close=True) as server:
        with sync.connect(server.url) as client, pytest.raises(iokernel.MaybeExecuted) as caught:
            client.incr("k", timeout=20)
    assert caught.value.code == "IOK_ERESET"


def test_reply_over_the_limit(shared_redis: RedisServer) -> None:
    with sync.connect(f"{shared_redis.url}?max_reply=4096") as client:
        client.set("big", "x" * 100_000)
        client.set("small", "x" * 1000)
        with pytest.raises(iokernel.MaybeExecuted, match="more than 4096 bytes") as caught:
            client.get("big")
        assert caught.value.code == "IOK_ELIMIT"
        assert client.get("small") == b"x" * 1000


@pytest.mark.parametrize("code", ["IOK_ELIMIT", "IOK_EOVERLOAD", "IOK_ERESET"])
def test_a_done_call_never_looks_as_if_it_was_never_sent(code: str) -> None:
    """Whatever was wrong with its reply: a program repeats what is NeverSent."""
    error = iokernel.errors._failure(code, "done", "the reply is too large", "redis://host", "")
    assert (type(error), error.outcome) == (iokernel.Error, "done")


def test_calls_after_close(shared_redis: RedisServer) -> None:
    async def main() -> None:
        client = aio.connect(shared_redis.url)
        await client.ping()
        client.close()
        client.close()
        with pytest.raises(iokernel.Closed):
            await client.ping()

    asyncio.run(main())
    client = sync.connect(shared_redis.url)
    lease = client.lease()
    lease.ping()
    client.close()
    for caller in (client, lease):
        with pytest.raises(iokernel.Closed) as caught:
            caller.ping()
        assert caught.value.outcome == "never-sent"
    assert client.closed
    lease.close()


def test_lease_of_another_thread(shared_redis: RedisServer) -> None:
    caught: list[BaseException] = []

    def other() -> None:
        try:
            lease.ping()
        except BaseException as error:
            caught.append(error)

    with sync.connect(shared_redis.url) as client, client.lease() as lease:
        lease.ping()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert isinstance(caught[0], iokernel.WrongThread)
        assert lease.ping() == "PONG"


def test_asyncio_client_without_a_loop(shared_redis: RedisServer) -> None:
    client = aio.connect(shared_redis.url)
    with pytest.raises(RuntimeError, match="loop"):
        client.ping()
    client.close()
