"""Calls that nobody waits for any more: tasks cancelled and timed out in every way that asyncio has, at random moments.

No reply goes astray (each carries its own call's word), the connection stays, what was not sent is withdrawn, and what
was sent leaves a counted tombstone that swallows its reply.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import iokernel
import pytest
from iokernel.asyncio import Redis, connect
from kit.help import auntil, run_program
from kit.proxy import Proxy
from kit.servers import RedisServer

# ---- ways to give up -------------------------------------------------------------------------------------------------


async def ask(client: Redis, word: str) -> None:
    assert await client.echo(word) == word.encode()


async def cancel_the_reply(client: Redis, word: str, pause: float) -> None:
    reply = client.echo(word)
    await asyncio.sleep(pause)
    if not reply.cancel():
        assert await reply == word.encode()


async def cancel_the_task(client: Redis, word: str, pause: float) -> None:
    task = asyncio.ensure_future(ask(client, word))
    await asyncio.sleep(pause)
    task.cancel()
    await task


async def wait_for(client: Redis, word: str, pause: float) -> None:
    await asyncio.wait_for(ask(client, word), pause)


async def wait_for_the_reply(client: Redis, word: str, pause: float) -> None:
    assert await asyncio.wait_for(client.echo(word), pause) == word.encode()


async def timeout(client: Redis, word: str, pause: float) -> None:
    async with asyncio.timeout(pause):
        await ask(client, word)


async def cancel_a_gather(client: Redis, word: str, pause: float) -> None:
    both = asyncio.gather(ask(client, word + "a"), client.echo(word + "b"))
    await asyncio.sleep(pause)
    both.cancel()
    await both


async def leave_a_group(client: Redis, word: str, pause: float) -> None:
    with contextlib.suppress(ExceptionGroup):  # noqa: F821 - Python 3.11
        async with asyncio.TaskGroup() as group:
            for i in range(3):
                group.create_task(ask(client, f"{word}-{i}"))
            await asyncio.sleep(pause)
            raise ValueError("the group's others are cancelled")


async def close_a_generator(client: Redis, word: str, pause: float) -> None:
    async def words() -> AsyncIterator[bytes]:
        for i in range(10):
            yield await client.echo(f"{word}-{i}")

    generator = words()
    assert await anext(generator) == f"{word}-0".encode()
    task = asyncio.ensure_future(anext(generator))
    await asyncio.sleep(pause)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await generator.aclose()


async def shield(client: Redis, word: str, pause: float) -> None:
    reply = client.echo(word)
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(asyncio.shield(reply), pause)
    assert await reply == word.encode()


async def deadline(client: Redis, word: str, pause: float) -> None:
    with contextlib.suppress(iokernel.Timeout):
        assert await client.call("ECHO", word, timeout=max(pause, 1e-3)) == word.encode()


Way = Callable[[Redis, str, float], Awaitable[None]]
WAYS: list[Way] = [
    cancel_the_reply,
    cancel_the_task,
    wait_for,
    wait_for_the_reply,
    cancel_a_gather,
    close_a_generator,
    shield,
    deadline,
]
if hasattr(asyncio, "TaskGroup"):  # Python 3.11
    WAYS += [timeout, leave_a_group]


@pytest.mark.parametrize("way", [*WAYS, None], ids=lambda way: way.__name__ if way else "all")
def test_no_reply_goes_astray(shared_redis: RedisServer, way: Way | None) -> None:
    """Some tasks give up all the time, behind a link that delays; the others go on unharmed."""
    chance = random.Random(way.__name__ if way else "all")

    async def main(port: int) -> None:
        async with connect(f"redis://127.0.0.1:{port}") as client:
            number = await client.client_id()
            gave_up = 0

            async def give_up(name: int) -> None:
                nonlocal gave_up
                for i in range(15):
                    pause = chance.choice([0, chance.random() * 0.002, chance.random() * 0.01])
                    try:
                        await (way or chance.choice(WAYS))(client, f"{name}.{i}", pause)
                    except (asyncio.CancelledError, TimeoutError, asyncio.TimeoutError):
                        gave_up += 1

            async def go_on(name: int) -> None:
                for i in range(30):
                    await ask(client, f"steady {name}.{i}")

            await asyncio.gather(
                *[give_up(name) for name in range(20)], *[go_on(name) for name in range(20)]
            )
            assert await client.client_id() == number
            stats = client.stats()
            assert (stats["connects"], stats["disconnects"]) == (1, 0)
            assert stats["cancelled"] > 0 or way is shield
            assert gave_up > 0 or way in (
                cancel_the_reply,
                leave_a_group,
                close_a_generator,
                shield,
                deadline,
            )

    with Proxy(shared_redis.port, delay=0.0005, jitter=0.002) as proxy:
        asyncio.run(main(proxy.port))


# ---- what was sent, and what was not ---------------------------------------------------------------------------------


def test_unsent_calls_are_withdrawn(redis_server: RedisServer) -> None:
    """Cancelled in the queue, behind max_inflight: the server never sees them."""

    async def main() -> None:
        async with connect(f"{redis_server.url}?max_inflight=3") as client:
            number = await client.client_id()
            redis_server.pause()
            sent = [client.incr("sent") for _ in range(3)]
            await auntil(lambda: client.stats()["inflight"] == 3)
            queued = [client.incr("queued") for _ in range(50)]
            tasks = [asyncio.ensure_future(ask(client, str(i))) for i in range(50)]
            kept = [client.incr("kept") for _ in range(20)]
            await auntil(lambda: client.stats()["queued"] == 120)
            for one in [*queued, *tasks]:
                assert one.cancel()
            ends = await asyncio.gather(*queued, *tasks, return_exceptions=True)
            assert {type(end) for end in ends} == {asyncio.CancelledError}
            await auntil(lambda: client.stats()["queued"] == 20)
            assert client.stats()["cancelled"] == 0  # nothing was sent, so there are no tombstones
            redis_server.resume()
            assert await asyncio.gather(*sent) == [1, 2, 3]
            assert await asyncio.gather(*kept) == list(range(1, 21))
            assert await client.get("queued") is None
            assert await client.client_id() == number
        calls = re.search(r"cmdstat_echo:calls=(\d+)", redis_server.cli("INFO", "commandstats"))
        assert calls is None

    asyncio.run(main())


def test_sent_calls_leave_tombstones(redis_server: RedisServer) -> None:
    """They are executed, their replies are swallowed, and each is counted; so are timed out ones."""

    async def main() -> None:
        async with connect(redis_server.url) as client:
            number = await client.client_id()
            redis_server.pause()
            cancelled = [client.incr("n") for _ in range(40)]
            late = [client.incr("n", timeout=0.05) for _ in range(10)]
            between = client.echo("between")
            await auntil(lambda: client.stats()["inflight"] == 51)
            for reply in cancelled:
                reply.cancel()
            for end in await asyncio.gather(*late, return_exceptions=True):
                assert isinstance(end, iokernel.Timeout) and end.outcome == "maybe-executed"
            await auntil(lambda: client.stats()["cancelled"] == 50)
            assert client.stats()["inflight"] == 1
            redis_server.resume()
            assert await between == b"between"
            assert await client.incr("n") == 51
            assert await client.client_id() == number
            assert client.stats()["ended"]["maybe-executed"] == 50

    asyncio.run(main())


def test_tombstones_are_bounded(redis_server: RedisServer) -> None:
    """They count as sent until their replies come, so that calls cannot pile up on a server that hangs."""

    async def main() -> None:
        async with connect(f"{redis_server.url}?max_inflight=5") as client:
            await client.ready(20)
            redis_server.pause()
            replies = [client.incr("n") for _ in range(5)]
            await auntil(lambda: client.stats()["inflight"] == 5)
            for reply in replies:
                reply.cancel()
            await auntil(lambda: client.stats()["cancelled"] == 5)
            waiting = [client.incr("n") for _ in range(5)]
            await auntil(lambda: client.stats()["queued"] == 5)
            redis_server.resume()
            assert await asyncio.gather(*waiting) == [6, 7, 8, 9, 10]

    asyncio.run(main())


def test_cancelled_in_the_middle_of_a_reply(shared_redis: RedisServer) -> None:
    """The rest of a large reply is swallowed, too."""

    async def main(proxy: Proxy) -> None:
        async with connect(f"redis://127.0.0.1:{proxy.port}") as client:
            number = await client.client_id()
            await client.set("large", "x" * 1_000_000)
            for part in (0.1, 0.5, 0.9):
                before = proxy.passed_down
                proxy.rate = 5_000_000
                reply = client.get("large")
                after = client.echo("after")
                await auntil(lambda goal=before + part * 1_000_000: proxy.passed_down > goal)
                reply.cancel()
                proxy.rate = None
                assert await after == b"after"
            assert await client.client_id() == number

    with Proxy(shared_redis.port) as proxy:
        asyncio.run(main(proxy))


def test_cancelled_leases(shared_redis: RedisServer) -> None:
    """A task that is cancelled within a transaction leaves it not run, and its connection is never another's."""
    chance = random.Random(1)

    async def main(port: int) -> None:
        async with connect(f"redis://127.0.0.1:{port}?leases=4") as client:
            await client.delete("a", "b")

            async def both() -> None:
                async with client.transaction() as transaction:
                    transaction.incr("a")
                    transaction.incr("b")

            async def try_it() -> int:
                done = 0
                for _ in range(10):
                    task = asyncio.ensure_future(both())
                    await asyncio.sleep(chance.random() * 0.02)
                    task.cancel()
                    try:
                        await task
                        done += 1
                    except asyncio.CancelledError:
                        pass
                return done

            done = sum(await asyncio.gather(*[try_it() for _ in range(10)]))
            await asyncio.wait_for(both(), 20)
            a, b = await client.mget(["a", "b"])
            assert a == b
            assert done + 1 <= int(a) <= 101

    with Proxy(shared_redis.port, delay=0.0005, jitter=0.002) as proxy:
        asyncio.run(main(proxy.port))


# ---- the end of the program ------------------------------------------------------------------------------------------

EXIT = """
    import asyncio, random, sys
    import iokernel
    from iokernel.asyncio import connect

    url, how, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    done = 0

    async def work(client):
        global done
        while True:
            reply = client.incr("n")
            if chance.random() < 0.3:
                reply.cancel()
                await asyncio.sleep(0)
            else:
                await reply
                done += 1

    async def main():
        client = connect(url)
        number = await client.client_id()
        tasks = [asyncio.create_task(work(client)) for _ in range(50)]
        end = chance.randrange(1000)
        while done < end:
            await asyncio.sleep(0)
        assert await client.client_id() == number
        print(done, flush=True)
        if how == "return":
            return
        if how == "exit":
            sys.exit(0)
        if how == "cancel":
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise KeyboardInterrupt if how == "interrupt" else SystemExit(0)

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
"""


@pytest.mark.parametrize("how", ["return", "exit", "cancel", "interrupt"])
def test_interpreter_exit_in_the_middle(shared_redis: RedisServer, how: str) -> None:
    """It ends in good order, at once, and without a word; what it saw done was done."""
    shared_redis.cli("FLUSHALL")
    done = 0
    for seed in range(3):
        printed = run_program(EXIT, shared_redis.url, how, str(seed))
        done += int(printed)
    assert int(shared_redis.cli("GET", "n") or 0) >= done


def test_results_of_cancelled_calls_are_freed(shared_redis: RedisServer) -> None:
    """Nothing of them stays behind: no call, no object of the kernel, no buffer."""

    async def main() -> Any:
        async with connect(shared_redis.url) as client:
            await client.ready(20)
            for i in range(200):
                replies = [client.echo("x" * 10_000) for _ in range(10)]
                if i % 2:
                    await asyncio.sleep(0)
                for reply in replies:
                    reply.cancel()
            await client.ping()
            await auntil(lambda: client.stats()["inflight"] == 0)
            objects = iokernel.stats()["objects"]
            await auntil(lambda: iokernel.stats()["buffer_bytes"] < 1_000_000)
        return objects

    assert asyncio.run(main()) < 10
