"""Transactions, watched keys and leases: all or nothing, and nothing of it leaks to others."""

from __future__ import annotations

import asyncio
import threading

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import until
from kit.servers import RedisServer


def test_transaction(cache: sync.Redis) -> None:
    with cache.transaction() as transaction:
        transaction.set("k", "v")
        transaction.incr("n")
        transaction.hset("h", mapping={"a": 1})
        transaction.hgetall("h")
        transaction.call("GET", "k")
        assert cache.exists("k") == 0  # nothing was sent yet
    assert transaction.results == ["OK", 1, 1, {b"a": b"1"}, b"v"]


def test_asyncio_transaction(shared_redis: RedisServer, cache: sync.Redis) -> None:
    async def main() -> None:
        async with aio.connect(shared_redis.url) as client:

            async def pair(i: int) -> None:
                async with client.transaction() as transaction:
                    transaction.incr("a")
                    transaction.incr("b")
                assert transaction.results is not None
                a, b = transaction.results
                assert a == b

            await asyncio.gather(*[pair(i) for i in range(100)])
            assert await client.mget("a", "b") == [b"100", b"100"]
            assert client.stats()["connects"] <= 1 + 16  # leases= of docs/urls.md

    asyncio.run(main())


def test_empty_transaction(cache: sync.Redis) -> None:
    with cache.transaction() as transaction:
        pass
    assert transaction.results == []


def test_exception_in_the_block_runs_nothing(cache: sync.Redis) -> None:
    with pytest.raises(ZeroDivisionError):
        with cache.transaction() as transaction:
            transaction.set("k", "v")
            1 / 0  # noqa: B018
    assert cache.exists("k") == 0
    with pytest.raises(iokernel.Closed):
        transaction.set("k", "v")


def test_failure_inside_is_raised_after_the_rest_ran(cache: sync.Redis) -> None:
    with pytest.raises(iokernel.ReplyError, match="WRONGTYPE"):
        with cache.transaction() as transaction:
            transaction.set("k", "v")
            transaction.lpush("k", 1)
            transaction.set("after", "x")
    assert transaction.results is not None
    assert transaction.results[0] == transaction.results[2] == "OK"
    assert isinstance(transaction.results[1], iokernel.ReplyError)
    assert cache.get("after") == b"x"


def test_refused_command_runs_nothing(cache: sync.Redis) -> None:
    with pytest.raises(iokernel.ReplyError, match="unknown command"):
        with cache.transaction() as transaction:
            transaction.set("k", "v")
            transaction.call("NOSUCH")
    assert cache.exists("k") == 0
    assert transaction.results is None
    with cache.transaction() as transaction:  # the connection is clean
        transaction.ping()
    assert transaction.results == ["PONG"]


def test_wrong_argument_in_a_transaction_is_refused_at_once(cache: sync.Redis) -> None:
    with pytest.raises(TypeError):
        with cache.transaction() as transaction:
            transaction.set("k", "v")
            transaction.set("k", None)
    assert cache.exists("k") == 0


def test_watched_key_that_stays(cache: sync.Redis) -> None:
    cache.set("n", 41)
    with cache.watch("n") as lease:
        value = int(lease.get("n"))
        with lease.transaction() as transaction:
            transaction.set("n", value + 1)
    assert cache.get("n") == b"42"


def test_watched_key_that_changes(cache: sync.Redis) -> None:
    cache.set("n", 1)
    with pytest.raises(iokernel.WatchError) as caught:
        with cache.watch("n") as lease:
            value = int(lease.get("n"))
            cache.set("n", 100)
            with lease.transaction() as transaction:
                transaction.set("n", value + 1)
    assert caught.value.outcome == "rejected"
    assert cache.get("n") == b"100"


def test_optimistic_increments_of_many_tasks(shared_redis: RedisServer, cache: sync.Redis) -> None:
    """Every increment is made exactly once, by as many attempts as that takes."""
    conflicts = 0

    async def main() -> None:
        async with aio.connect(shared_redis.url) as client:

            async def increment() -> None:
                nonlocal conflicts
                while True:
                    try:
                        async with client.watch("n") as lease:
                            value = int(await lease.get("n") or 0)
                            async with lease.transaction() as transaction:
                                transaction.set("n", value + 1)
                        return
                    except iokernel.WatchError:
                        conflicts += 1

            await asyncio.gather(*[increment() for _ in range(50)])

    asyncio.run(main())
    assert cache.get("n") == b"50"
    assert conflicts > 0


@pytest.mark.parametrize("option", ["", "?protocol=2"])
def test_lease_is_cleaned_before_others_get_it(shared_redis: RedisServer, option: str) -> None:
    with sync.connect(f"{shared_redis.url}{option}") as client:
        client.flushall()
        for spoil in (
            [("SELECT", 5)],
            [("MULTI",), ("SET", "k", "spoilt")],
            [("WATCH", "k")],
            [("CLIENT", "SETNAME", "mine")],
            [("CLIENT", "TRACKING", "ON")],
            [("CLIENT", "NO-EVICT", "ON")],
            [("SELECT", 3), ("MULTI",), ("NOSUCH",)],
        ):
            with client.lease() as lease:
                lease.call_many(spoil)
            with client.lease() as lease:
                assert lease.set("k", "clean") == "OK"
                info = dict(word.split("=", 1) for word in text(lease.client_info()).split())
                assert (info["db"], info["multi"], info["name"]) == ("0", "-1", "")
                assert info["flags"] == "N"
                assert info["resp"] == ("2" if option else "3")
            assert client.get("k") == b"clean"


def text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def test_select_on_a_lease_is_the_leases_own(cache: sync.Redis) -> None:
    with cache.lease() as lease:
        lease.call("SELECT", 7)
        lease.set("there", "x")
        assert cache.exists("there") == 0
        assert "db=0" in text(cache.client_info())
        assert "db=7" in text(lease.client_info())
    assert cache.exists("there") == 0


def test_database_of_the_url_is_the_leases_too(shared_redis: RedisServer) -> None:
    with sync.connect(f"{shared_redis.url}/4") as client:
        for _ in range(3):
            with client.lease() as lease:
                assert "db=4" in text(lease.client_info())
                lease.call("SELECT", 5)


def test_leases_are_used_again(cache: sync.Redis) -> None:
    for _ in range(20):
        with cache.lease() as lease:
            lease.call_many([("MULTI",), ("INCR", "n"), ("EXEC",)])
        until(lambda: cache.stats()["leased"] == 0)
    assert cache.get("n") == b"20"
    assert cache.stats()["connects"] <= 3


def test_leases_wait_for_their_turn(shared_redis: RedisServer, cache: sync.Redis) -> None:
    """More lessees than leases= allows connections."""

    async def main() -> None:
        async with aio.connect(f"{shared_redis.url}?leases=2") as client:

            async def work(i: int) -> None:
                async with client.lease() as lease:
                    await lease.call("SELECT", i % 16)
                    await asyncio.sleep(0)
                    assert f"db={i % 16} " in text(await lease.client_info())

            await asyncio.gather(*[work(i) for i in range(50)])
            assert client.stats()["connects"] <= 3

    asyncio.run(main())


def test_given_back_lease_is_closed(cache: sync.Redis) -> None:
    with cache.lease() as lease:
        lease.ping()
    assert lease.closed
    with pytest.raises(iokernel.Closed):
        lease.ping()
    lease.close()


def test_giving_back_cancels_what_is_under_way(shared_redis: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_redis.url) as client:
            async with client.lease() as lease:
                reply = lease.blpop(["none"], 0, timeout=60)
                await client.ping()
            with pytest.raises((iokernel.Error, asyncio.CancelledError)):
                await reply
            async with client.lease() as lease:
                assert await lease.echo("clean") == b"clean"

    asyncio.run(main())


def test_threads_with_transactions(cache: sync.Redis) -> None:
    def work() -> None:
        for _ in range(20):
            with cache.transaction() as transaction:
                transaction.incr("a")
                transaction.incr("b")
            assert transaction.results is not None
            assert transaction.results[0] == transaction.results[1]

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.mget("a", "b") == [b"100", b"100"]
