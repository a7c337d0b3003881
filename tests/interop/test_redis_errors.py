"""What a real Redis refuses, and what the kernel refuses before Redis would have to."""

from __future__ import annotations

from typing import Any

import iokernel
import pytest
from iokernel import sync
from kit.servers import RedisServer


def test_reply_errors_say_what_the_server_said(
    cache: sync.Redis, shared_redis: RedisServer
) -> None:
    cache.set("k", "text")
    with pytest.raises(iokernel.ReplyError, match="^WRONGTYPE Operation against a key") as caught:
        cache.lpush("k", 1)
    error = caught.value
    assert (error.kind, error.outcome) == ("WRONGTYPE", "done")
    assert error.endpoint == f"127.0.0.1:{shared_redis.port}"
    assert str(shared_redis.port) in error.service
    with pytest.raises(iokernel.ReplyError, match="not an integer") as caught:
        cache.incr("k")
    assert caught.value.kind == "ERR"
    with pytest.raises(iokernel.ReplyError, match="user's own message"):
        cache.eval("return redis.error_reply('MINE user\\'s own message')", 0)
    with pytest.raises(iokernel.ReplyError) as caught:
        cache.evalsha("f" * 40, 0)
    assert caught.value.kind == "NOSCRIPT"


def test_unknown_commands_do_not_show_their_arguments(cache: sync.Redis) -> None:
    with pytest.raises(iokernel.ReplyError, match="unknown command 'NOSUCH'") as caught:
        cache.call("NOSUCH", "the secret")
    assert "secret" not in str(caught.value)


def test_errors_inside_a_reply_stand_in_their_place(cache: sync.Redis) -> None:
    with cache.lease() as lease:
        replies = lease.call_many([("MULTI",), ("SET", "k", "v"), ("LPUSH", "k", 1), ("EXEC",)])
    assert replies[:3] == ["OK", "QUEUED", "QUEUED"]
    first, second = replies[3]
    assert first == "OK"
    assert isinstance(second, iokernel.ReplyError) and second.kind == "WRONGTYPE"


def test_call_many_gives_errors_in_their_places(cache: sync.Redis) -> None:
    good, bad, good_too = cache.call_many([("SET", "k", "v"), ("INCR", "k"), ("GET", "k")])
    assert (good, good_too) == ("OK", b"v")
    assert isinstance(bad, iokernel.ReplyError)


def test_rejected_calls_did_not_run(redis_server: RedisServer) -> None:
    with sync.connect(redis_server.url) as client:
        client.set("k", "x" * 10_000)
        client.config_set({"maxmemory": "1"})
        with pytest.raises(iokernel.Rejected) as caught:
            client.set("other", "y")
        assert (caught.value.kind, caught.value.outcome) == ("OOM", "rejected")
        client.config_set({"maxmemory": "0"})
        assert client.exists("other") == 0
        assert client.stats()["ended"]["rejected"] == 1


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("SELECT", 1), "lease"),
        (("MULTI",), "lease"),
        (("WATCH", "k"), "lease"),
        (("SUBSCRIBE", "c"), "lease"),
        (("AUTH", "secret"), "URL"),
        (("HELLO", 3), "URL"),
        (("QUIT",), "close"),
        (("CLIENT", "REPLY", "OFF"), "answers"),
    ],
)
def test_unsafe_commands_are_refused(
    cache: sync.Redis, words: tuple[Any, ...], instead: str
) -> None:
    with pytest.raises(iokernel.Unsafe, match=instead) as caught:
        cache.call(*words)
    assert caught.value.outcome == "never-sent"
    assert "secret" not in str(caught.value)
    assert cache.ping() == "PONG"
