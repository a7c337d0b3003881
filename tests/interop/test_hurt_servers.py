"""A real server that is killed, stopped, paused, full, locked, read-only or loading: what its calls end as, that all
comes back by itself, and that other services do not notice.

What a call ended as is compared with what the server counted: n is at least the number of INCRs that were done, and
at most that and the ones that may have been executed.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import threading
from collections.abc import Callable

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import PATIENCE_S, auntil, until
from kit.servers import RedisServer

LONG = 60
"""A deadline, in seconds, that no call here may need: what ends before it ended by itself."""


class Tally:
    """Outcomes of INCRs on one key, to be compared with the server's count."""

    def __init__(self) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.codes: collections.Counter[str] = collections.Counter()
        self.replies: list[int] = []

    async def incr(self, client: aio.Redis, timeout: float) -> None:
        try:
            self.replies.append(await client.incr("n", timeout=timeout))
            self.outcomes["done"] += 1
        except iokernel.Error as error:
            self.outcomes[error.outcome] += 1
            self.codes[error.code] += 1

    def check(self, counted: int) -> None:
        assert len(set(self.replies)) == len(self.replies)
        assert self.outcomes["done"] <= counted
        assert counted <= self.outcomes["done"] + self.outcomes["maybe-executed"]


def test_killed_under_load(start_redis: Callable[..., RedisServer]) -> None:
    """The server writes each INCR to disk before it answers, so its count survives the kill."""
    server = start_redis("appendonly yes", "appendfsync always")
    tally = Tally()

    async def main() -> None:
        async with aio.connect(server.url) as client:
            await client.ready(PATIENCE_S)
            stop = False

            async def work() -> None:
                while not stop:
                    await tally.incr(client, LONG)

            workers = [asyncio.ensure_future(work()) for _ in range(30)]
            for _ in range(4):
                enough = tally.outcomes["done"] + 200
                await auntil(lambda enough=enough: tally.outcomes["done"] >= enough)
                server.kill()
                await asyncio.to_thread(server.start)
            enough = tally.outcomes["done"] + 200
            await auntil(lambda: tally.outcomes["done"] >= enough)
            stop = True
            await asyncio.gather(*workers)
            assert client.stats()["disconnects"] == 4

    asyncio.run(main())
    assert tally.outcomes["done"] >= 1000
    assert "IOK_ETIMEOUT" not in tally.codes
    tally.check(int(server.cli("GET", "n")))


def test_stopped_for_seconds(redis_server: RedisServer, shared_redis: RedisServer) -> None:
    """Calls end at their deadlines while it is stopped; it goes on at once on the same connection."""
    tally = Tally()

    async def main() -> None:
        async with aio.connect(redis_server.url) as hurt, aio.connect(shared_redis.url) as well:
            number = await hurt.client_id()
            redis_server.pause()
            loop = asyncio.get_running_loop()
            end = loop.time() + 2
            rounds = 0
            while loop.time() < end:
                others = [asyncio.ensure_future(well.echo(str(i))) for i in range(20)]
                await asyncio.gather(*[tally.incr(hurt, 0.1) for _ in range(20)])
                # All of them ended although the server still hangs, and the other one answered.
                assert await asyncio.gather(*others) == [b"%d" % i for i in range(20)]
                rounds += 1
            assert tally.outcomes == {"maybe-executed": rounds * 20}
            assert tally.codes == {"IOK_ETIMEOUT": rounds * 20}
            waiting = [hurt.incr("n", timeout=LONG) for _ in range(10)]
            redis_server.resume()
            # What was sent before was executed late; none of those replies is one of these.
            assert await asyncio.gather(*waiting) == [rounds * 20 + i for i in range(1, 11)]
            assert await hurt.client_id() == number
            stats = hurt.stats()
            assert (stats["connects"], stats["disconnects"]) == (1, 0)
            assert stats["cancelled"] == rounds * 20
            assert well.stats()["disconnects"] == 0

    asyncio.run(main())


def test_stopped_until_pings_give_up(redis_server: RedisServer) -> None:
    """The connection is given up; once the server goes on, a new one serves, and the count adds up."""
    tally = Tally()

    async def main() -> None:
        url = f"{redis_server.url}?ping=100ms&ping_timeout=200ms"
        async with aio.connect(url) as client:
            number = await client.client_id()
            redis_server.pause()
            await asyncio.gather(*[tally.incr(client, LONG) for _ in range(20)])
            assert tally.outcomes == {"maybe-executed": 20}
            queued = asyncio.gather(*[tally.incr(client, LONG) for _ in range(20)])
            redis_server.resume()
            await queued
            assert await client.client_id() != number

    asyncio.run(main())
    tally.check(int(redis_server.cli("GET", "n")))


def test_paused_clients(redis_server: RedisServer) -> None:
    """CLIENT PAUSE holds writes back: they time out, and are executed when it is over."""
    with sync.connect(redis_server.url) as client, sync.connect(redis_server.url) as reader:
        number = client.client_id()
        redis_server.cli("CLIENT", "PAUSE", "100000", "WRITE")
        ends = client.call_many([("INCR", "n")] * 5, timeout=0.1)
        assert {(type(e), e.outcome) for e in ends} == {(iokernel.Timeout, "maybe-executed")}
        assert reader.get("n") is None
        redis_server.cli("CLIENT", "UNPAUSE")
        assert client.incr("n") == 6
        assert client.client_id() == number


def test_no_room_for_another_client(redis_server: RedisServer) -> None:
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(sync.connect(redis_server.url))
        assert first.config_set("maxclients", "1") == "OK"
        second = stack.enter_context(sync.connect(redis_server.url))
        with pytest.raises(
            iokernel.Unavailable, match="no room for another connection.*max number of clients"
        ):
            second.incr("n", timeout=0.3)
        with pytest.raises(iokernel.Unavailable, match="max number of clients"):
            second.ready(0.3)
        assert first.ping() == "PONG"  # the one that is in is not disturbed
        waiting: list[int] = []
        thread = threading.Thread(target=lambda: waiting.append(second.incr("n", timeout=LONG)))
        thread.start()
        first.close()
        thread.join()
        assert waiting == [1]


def test_password_changed(start_redis: Callable[..., RedisServer]) -> None:
    """The connection stays in; once it is cut, calls fail at once and say why, until the password is put right."""
    server = start_redis("requirepass old")

    def admin(*words: str) -> str:
        return server.cli("-a", password, "--no-auth-warning", *words)

    with sync.connect(f"redis://:old@127.0.0.1:{server.port}") as client:
        client.set("k", "v")
        password = "old"
        admin("CONFIG", "SET", "requirepass", "new")
        password = "new"
        assert client.get("k") == b"v"
        admin("CLIENT", "KILL", "TYPE", "normal")
        with pytest.raises(iokernel.Unavailable, match="sign-in refused.*WRONGPASS") as caught:
            client.get("k", timeout=LONG)
        assert (caught.value.code, caught.value.outcome) == ("IOK_EAUTH", "never-sent")
        assert "old" not in str(caught.value)
        with pytest.raises(iokernel.Unavailable):
            client.incr("n", timeout=LONG)
        admin("CONFIG", "SET", "requirepass", "old")

        def heals() -> bool:
            try:
                return client.get("k", timeout=LONG) == b"v"
            except iokernel.Unavailable:  # by what is known until the next attempt
                return False

        until(heals)
        assert client.get("n") is None


def test_primary_becomes_a_replica(redis_server: RedisServer, shared_redis: RedisServer) -> None:
    with sync.connect(redis_server.url) as client:
        client.incr("n")
        redis_server.cli("REPLICAOF", "127.0.0.1", str(shared_redis.port))
        with pytest.raises(iokernel.Rejected) as caught:
            client.incr("n")
        assert (caught.value.kind, caught.value.outcome) == ("READONLY", "rejected")
        with (
            pytest.raises(iokernel.Rejected, match="READONLY"),
            client.transaction() as transaction,
        ):
            transaction.incr("n")
        redis_server.cli("REPLICAOF", "NO", "ONE")
        redis_server.cli("FLUSHALL")
        assert client.incr("n") == 1
        assert client.stats()["ended"]["rejected"] == 3  # INCR; INCR and EXEC of the transaction
        assert client.stats()["disconnects"] == 0


SLOW_TO_LOAD = ("enable-debug-command yes", "loading-process-events-interval-bytes 1024")


def fill(server: RedisServer, microseconds_a_key: int) -> None:
    """Make it take a second to load its data."""
    with sync.connect(server.url) as client:
        client.call_many([("SET", f"key:{i}", "x" * 500) for i in range(1000)])
        client.config_set("key-load-delay", str(microseconds_a_key))


def test_loading_on_an_open_connection(start_redis: Callable[..., RedisServer]) -> None:
    server = start_redis(*SLOW_TO_LOAD)
    fill(server, 1000)
    outcomes: collections.Counter[str] = collections.Counter()
    with sync.connect(server.url) as client:
        number = client.client_id()
        reload = threading.Thread(target=server.cli, args=("DEBUG", "RELOAD"))
        reload.start()
        done_after = False
        done = 0
        while not done_after:
            try:
                client.incr("n", timeout=LONG)
                done += 1
                done_after = outcomes["rejected"] > 0
            except iokernel.Rejected as error:
                assert error.kind == "LOADING"
                outcomes[error.outcome] += 1
        reload.join()
        assert outcomes["rejected"] > 0
        # What was rejected did not run. (The reload took the INCRs before it along.)
        assert client.get("n") == b"%d" % done
        assert client.client_id() == number


def test_loading_at_its_start(start_redis: Callable[..., RedisServer]) -> None:
    """A server that loads lets clients in, and rejects what they ask for until it is ready."""
    server = start_redis(*SLOW_TO_LOAD, "key-load-delay 2000")
    fill(server, 2000)
    server.cli("SAVE")
    with sync.connect(server.url) as client:
        client.incr("n")
        server.kill()
        until(lambda: client.stats()["disconnects"] == 1)
        starting = threading.Thread(target=server.start)
        starting.start()
        rejected = 0
        done = False
        while not done:
            try:
                done = client.incr("n", timeout=LONG) == 1  # the one before was not saved
            except iokernel.Rejected as error:
                assert (error.kind, error.outcome) == ("LOADING", "rejected")
                rejected += 1
        starting.join()
        assert rejected > 0
        assert client.dbsize() == 1001
