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
from kit.help import auntil, run_program, until
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


FORK = """
    import os, sys, threading
    import iokernel
    from iokernel import sync

    client = sync.connect(sys.argv[1])
    lease = client.lease()
    lease.set("who", "parent")
    blocked = threading.Thread(target=lambda: client.call("BLPOP", "list", 0, timeout=20))
    blocked.start()
    while client.stats()["leased"] < 2: pass
    child = os.fork()
    if child == 0:
        for caller in (client, lease):
            try:
                caller.ping()
            except iokernel.Forked as error:
                assert error.outcome == "never-sent"
            else:
                os._exit(3)
        fresh = sync.connect(sys.argv[1])
        assert fresh.set("who", "child") == "OK"
        fresh.close()
        lease.close()
        client.close()
        del client, lease, fresh
        os._exit(0) if sys.argv[2] == "_exit" else sys.exit(0)
    pid, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    assert client.get("who") == b"child" and lease.get("who") == b"child"
    assert client.stats()["connects"] == 3 and client.stats()["disconnects"] == 0
    client.rpush("list", "x")
    blocked.join()
    print("ok")
"""


@pytest.mark.parametrize("way", ["_exit", "exit"])
def test_fork(redis_server: RedisServer, way: str) -> None:
    assert run_program(FORK, redis_server.url, way) == "ok\n"


def test_fork_inside_a_loop(redis_server: RedisServer) -> None:
    source = """
        import asyncio, os, sys
        import iokernel
        from iokernel.asyncio import connect

        async def parent():
            client = connect(sys.argv[1])
            calls = [client.incr("n") for _ in range(100)]
            if (child := os.fork()) == 0:
                return client, calls
            assert len(set(await asyncio.gather(*calls))) == 100
            os.waitpid(child, 0)
            return child, await client.get("n")

        async def child(client):
            try:
                await client.ping()
            except iokernel.Forked:
                async with connect(sys.argv[1]) as fresh:
                    await fresh.incr("n", timeout=10)
                    os._exit(0)

        loop = asyncio.new_event_loop()
        first, second = loop.run_until_complete(parent())
        if not isinstance(first, int):
            asyncio.run(child(first))
        print(second.decode())
    """
    assert run_program(source, redis_server.url) == "101\n"
