"""Calls to a real Redis: what goes in and what comes out, over RESP3 and RESP2."""

from __future__ import annotations

import asyncio
import decimal
import math
from collections.abc import Iterator
from typing import Any

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.servers import RedisServer


@pytest.fixture
def old(shared_redis: RedisServer, cache: sync.Redis) -> Iterator[sync.Redis]:
    """The same over RESP2."""
    with sync.connect(f"{shared_redis.url}?protocol=2") as client:
        yield client


@pytest.fixture(scope="module")
def debug_redis() -> Iterator[RedisServer]:
    with RedisServer(["enable-debug-command yes"]) as server:
        yield server


# ---- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (b"", b""),
        ("", b""),
        (b"\x00\r\n$-1\r\n\xff", b"\x00\r\n$-1\r\n\xff"),
        ("grüße, 世界 \U0001f600", "grüße, 世界 \U0001f600".encode()),
        (bytearray(b"abc"), b"abc"),
        (memoryview(b"abcdef")[1:3], b"bc"),
        (0, b"0"),
        (-(2**63), b"-9223372036854775808"),
        (2**63 - 1, b"9223372036854775807"),
        (2**70, b"1180591620717411303424"),
        (1.5, b"1.5"),
        (0.1, b"0.1"),
        (1e300, b"1e+300"),
        (math.inf, b"inf"),
    ],
)
def test_arguments_arrive_as_written(cache: sync.Redis, value: Any, stored: bytes) -> None:
    assert cache.set("k", value) == "OK"
    assert cache.get("k") == stored
    assert cache.set(value, "x") == "OK"
    assert cache.exists(stored) == 1


@pytest.mark.parametrize("value", [3.141592653589793, 5e-324, 1.7976931348623157e308, -0.0])
def test_floats_keep_every_bit(cache: sync.Redis, value: float) -> None:
    cache.set("f", value)
    stored = float(cache.get("f"))
    assert stored == value and math.copysign(1, stored) == math.copysign(1, value)


@pytest.mark.parametrize(
    "value",
    [None, True, False, [1], (1,), {"a": 1}, {1}, object(), decimal.Decimal("1.5"), 1j],
)
def test_other_types_are_refused_at_once(cache: sync.Redis, value: Any) -> None:
    with pytest.raises(TypeError, match=f"argument 3 must be .*not .*{type(value).__name__}"):
        cache.call("SET", "k", value)
    with pytest.raises(TypeError):
        cache.set("k", value)
    with pytest.raises(TypeError):
        cache.call_many([("SET", "good", "1"), ("SET", "k", value)])
    assert cache.exists("k", "good") == 0


def test_wrong_calls_are_type_errors(cache: sync.Redis) -> None:
    with pytest.raises(TypeError, match="at least one argument"):
        cache.call()
    with pytest.raises(TypeError):
        cache.get()
    with pytest.raises(TypeError):
        cache.get("a", "b")
    with pytest.raises(TypeError):
        cache.call("GET", "k", patience=3)
    with pytest.raises(TypeError, match="tuple"):
        cache.call_many(["PING"])
    with pytest.raises(ValueError, match="timeout"):
        cache.call("GET", "k", timeout=-1)
    with pytest.raises(UnicodeEncodeError):
        cache.set("k", "\ud800")


def test_buffer_is_released_after_the_call(cache: sync.Redis) -> None:
    value = bytearray(b"x" * 1_000_000)
    cache.set("k", value)
    value.append(0)  # BufferError while somebody holds it
    assert cache.strlen("k") == 1_000_000


# ---- replies ----------------------------------------------------------------------------------


def test_replies_over_resp3(cache: sync.Redis) -> None:
    assert cache.get("none") is None
    assert cache.hset("h", mapping={"a": 1, "b": 2.5}) == 2
    assert cache.hgetall("h") == {b"a": b"1", b"b": b"2.5"}
    assert cache.sadd("s", "x", "y") == 2
    assert cache.smembers("s") == {b"x", b"y"}
    assert cache.zadd("z", {"low": 1, "high": math.inf}) == 2
    assert cache.zscore("z", "high") == math.inf
    assert cache.zrange("z", 0, -1, withscores=True) == [[b"low", 1.0], [b"high", math.inf]]
    assert cache.rpush("l", *range(5)) == 5
    assert cache.lrange("l", 0, -1) == [b"0", b"1", b"2", b"3", b"4"]
    assert cache.lrange("none", 0, -1) == []
    assert cache.hgetall("none") == {}
    assert "redis_version" in cache.info("server")
    assert cache.type("l") == "list"


def test_replies_over_resp2(old: sync.Redis) -> None:
    assert old.get("none") is None
    assert old.hset("h", mapping={"a": 1}) == 1
    assert old.hgetall("h") == [b"a", b"1"]
    assert old.sadd("s", "x") == 1
    assert old.smembers("s") == [b"x"]
    assert old.zadd("z", {"m": 1.5}) == 1
    assert old.zscore("z", "m") == b"1.5"
    assert old.call("BLPOP", "none", 0.01) is None
    assert "resp=2" in old.client_info().decode()


def test_decoded_replies(shared_redis: RedisServer, cache: sync.Redis) -> None:
    with sync.connect(shared_redis.url, decode=True) as text:
        text.hset("h", "grüße", "世界")
        assert text.hgetall("h") == {"grüße": "世界"}
        cache.set("k", b"\xff\xfe")
        with pytest.raises(iokernel.DecodeError) as caught:
            text.get("k")
        assert caught.value.outcome == "done"
        assert text.get("none") is None  # the connection goes on
        assert text.call("PING", "x") == "x"


DEBUG_TYPES: list[tuple[str, Any]] = [
    ("string", b"Hello World"),
    ("integer", 12345),
    ("double", 3.141),
    ("null", None),
    ("array", [0, 1, 2]),
    ("set", {0, 1, 2}),
    ("map", {0: False, 1: True, 2: False}),
    ("bignum", 1234567999999999999999999999999999999),
    ("true", True),
    ("false", False),
    ("verbatim", "This is a verbatim\nstring"),
    ("attrib", b"Some real reply following the attribute"),
]


@pytest.mark.parametrize(("name", "value"), DEBUG_TYPES)
def test_every_resp3_type(debug_redis: RedisServer, name: str, value: Any) -> None:
    with sync.connect(debug_redis.url) as client:
        reply = client.call("DEBUG", "PROTOCOL", name)
        assert reply == value
        assert type(reply) is type(value)


def test_pushes_between_replies_harm_nobody(debug_redis: RedisServer) -> None:
    with sync.connect(debug_redis.url) as client:
        client.set("k", "v")
        replies = client.call_many([("DEBUG", "PROTOCOL", "push"), ("GET", "k"), ("PING",)])
        assert replies[1:] == [b"v", "PONG"]


# ---- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [15_000, 16_384, 65_536, 1_000_003, 64 << 20])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_big_values(cache: sync.Redis, size: int, kind: type) -> None:
    value = kind((b"0123456789abcdef" * (size // 16 + 1))[:size])
    cache.set("big", value, timeout=60)
    assert cache.strlen("big") == size
    assert cache.get("big", timeout=60) == value


def test_big_text(cache: sync.Redis) -> None:
    cache.set("big", "世" * 500_000)
    assert cache.get("big").decode() == "世" * 500_000


def test_many_values_in_one_reply(cache: sync.Redis) -> None:
    cache.rpush("l", *range(100_000))
    assert cache.lrange("l", 0, -1) == [b"%d" % i for i in range(100_000)]


# ---- one connection ---------------------------------------------------------------------------


def test_a_thousand_tasks_use_one_connection(redis_server: RedisServer) -> None:
    def accepted() -> int:
        """By the server's count; each look is one by itself."""
        statistics = redis_server.cli("INFO", "stats")
        return int(statistics.partition("total_connections_received:")[2].split()[0])

    async def main() -> None:
        async with aio.connect(redis_server.url) as client:
            replies = await asyncio.gather(*[client.echo(f"{i}") for i in range(1000)])
            assert replies == [f"{i}".encode() for i in range(1000)]

    before = accepted()
    asyncio.run(main())
    assert accepted() - before == 1 + 1


def test_stamps_are_in_order(cache: sync.Redis, shared_redis: RedisServer) -> None:
    async def main() -> dict[str, int] | None:
        async with aio.connect(shared_redis.url) as client:
            reply = client.ping()
            await reply
            return reply.stamps

    stamps = asyncio.run(main())
    assert stamps is not None
    order = ["submitted", "taken", "sent", "first_byte", "complete"]
    times = [stamps[name] for name in order]
    assert times == sorted(times) and times[-1] > 0


def test_urls_hide_the_password() -> None:
    with sync.connect("redis://user:secret@127.0.0.1:1/0") as client:
        assert "secret" not in client.url and "secret" not in repr(client)
        assert client.protocol == "redis"


def test_unix_socket_and_database(shared_redis: RedisServer, cache: sync.Redis) -> None:
    with sync.connect(f"{shared_redis.unix_url}?db=3") as client:
        client.set("here", "yes")
        assert "db=3" in client.client_info()
    assert cache.exists("here") == 0
    with sync.connect(f"{shared_redis.url}/3") as client:
        assert client.exists("here") == 1
