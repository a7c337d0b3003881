"""Servers that die, hang, restart or hang up, and processes that fork: what calls end as, and that all comes back."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import auntil, until
from kit.servers import RedisServer


def test_outcomes_add_up_when_the_connection_is_cut(redis_server: RedisServer) -> None:
    """Each INCR that was done counts, each that was never sent does not, and only the rest is open."""
    outcomes: collections.Counter[str] = collections.Counter()
    replies: list[int] = []

    async def work(client: aio.Redis, cutting: asyncio.Task[None]) -> None:
        while not cutting.done():
            try:
                replies.append(await client.incr("n", timeout=20))
                outcomes["done"] += 1
            except iokernel.Error as error:
                assert not isinstance(error, iokernel.Timeout)
                outcomes[error.outcome] += 1

    async def cut(client: aio.Redis) -> None:
        for _ in range(8):
            enough = outcomes["done"] + 500
            await auntil(lambda enough=enough: outcomes["done"] >= enough)
            await asyncio.to_thread(redis_server.cli, "CLIENT", "KILL", "TYPE", "normal")

    async def main() -> None:
        async with aio.connect(redis_server.url) as client:
            cutting = asyncio.create_task(cut(client))
            await asyncio.gather(*[work(client, cutting) for _ in range(50)])
            await cutting
            assert client.stats()["disconnects"] > 0

    asyncio.run(main())
    truth = int(redis_server.cli("GET", "n"))
    assert outcomes["done"] <= truth <= outcomes["done"] + outcomes["maybe-executed"]
    assert len(set(replies)) == len(replies)
    assert outcomes["rejected"] == 0


def test_killed_with_calls_in_flight(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(redis_server.url) as client:
            await client.ready(20)
            redis_server.pause()
            calls = [client.incr("n", timeout=60) for _ in range(100)]
            await auntil(lambda: client.stats()["inflight"] == 100)
            redis_server.kill()
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end) for end in ends} == {iokernel.MaybeExecuted}
            assert {end.code for end in ends} == {"IOK_ERESET"}
            later = asyncio.gather(*[client.incr("n", timeout=60) for _ in range(100)])
            redis_server.start()
            assert await later == list(range(1, 101))

    asyncio.run(main())


def test_repeatable_calls_survive_a_restart(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(redis_server.url) as client:
            await client.ready(20)
            redis_server.pause()
            get = client.get("k", timeout=60)
            mset = client.call("SET", "k", "v", timeout=60, repeatable=True)
            await auntil(lambda: client.stats()["inflight"] == 2)
            redis_server.kill()
            redis_server.start()
            assert await get is None
            assert await mset == "OK"
            assert client.stats()["retries"] == 2

    asyncio.run(main())


def test_deadline_holds_when_the_server_hangs(redis_server: RedisServer) -> None:
    with sync.connect(redis_server.url) as client:
        client.set("k", "v")
        redis_server.pause()
        with pytest.raises(iokernel.Timeout) as caught:
            client.incr("n", timeout=0.1)
        assert caught.value.outcome == "maybe-executed"
        assert caught.value.code == "IOK_ETIMEOUT"
        redis_server.resume()
        # The same connection; the late reply is nobody's.
        assert client.get("k") == b"v"
        assert client.get("n") == b"1"
        stats = client.stats()
        assert (stats["connects"], stats["disconnects"], stats["cancelled"]) == (1, 0, 1)


def test_hung_server_is_noticed_by_pings(redis_server: RedisServer) -> None:
    with sync.connect(f"{redis_server.url}?ping=100ms&ping_timeout=200ms") as client:
        client.ready(20)
        redis_server.pause()
        with pytest.raises(iokernel.MaybeExecuted):
            client.incr("n", timeout=20)
        assert "ping" in client.stats()["last_failure"]
        redis_server.resume()
        client.ready(20)
        assert client.ping(timeout=20) == "PONG"


def test_restart_between_calls(redis_server: RedisServer) -> None:
    with sync.connect(redis_server.url) as client:
        client.set("k", "v")
        redis_server.restart()
        until(lambda: client.stats()["disconnects"] == 1)
        assert client.get("k", timeout=20) is None
        assert client.stats()["connects"] == 2


def test_server_that_starts_later(redis_server: RedisServer) -> None:
    redis_server.stop()
    with sync.connect(redis_server.url) as client:
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(client.ping(timeout=20)))
        thread.start()
        until(lambda: client.stats()["connect_failures"] > 0)
        redis_server.start()
        thread.join()
        assert results == ["PONG"]


def test_queue_is_bounded_while_the_server_is_away(redis_server: RedisServer) -> None:
    redis_server.stop()
    with sync.connect(f"{redis_server.url}?max_inflight=5&max_queued=10") as client:
        ends = client.call_many([("PING",)] * 50, timeout=0.2)
        kinds = collections.Counter(type(end) for end in ends)
        assert kinds[iokernel.Overloaded] == 35
        assert kinds[iokernel.Unavailable] == 15


def test_lease_ends_with_its_connection(redis_server: RedisServer) -> None:
    with sync.connect(redis_server.url) as client, client.lease() as lease:
        number = lease.client_id()
        client.client_kill("ID", number)
        with contextlib.suppress(iokernel.NeverSent, iokernel.MaybeExecuted):
            lease.ping()
        with pytest.raises(iokernel.Closed):
            lease.ping()
        with client.lease() as another:
            assert another.client_id() != number
