"""asyncio: replies as futures, cancellation, several loops, uvloop, and the ends of loops and programs."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import random
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import iokernel
import pytest
import uvloop
from iokernel.asyncio import Redis, connect, task_factory
from kit.help import auntil
from kit.servers import RedisServer

Main = Callable[[Redis], Coroutine[Any, Any, Any]]


@pytest.fixture(params=["asyncio", "uvloop", "asyncio+tasks", "uvloop+tasks"])
def run(request: pytest.FixtureRequest, shared_redis: RedisServer) -> Callable[[Main], Any]:
    """Run a function with a client, on each kind of loop and of tasks."""

    def runner(main: Main) -> Any:
        async def whole() -> Any:
            async with connect(shared_redis.url) as client:
                await client.flushall()
                return await main(client)

        kind = asyncio if request.param.startswith("asyncio") else uvloop
        loop = kind.new_event_loop()
        if request.param.endswith("+tasks"):
            loop.set_task_factory(task_factory)
        problems: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: problems.append(context))
        try:
            return loop.run_until_complete(whole())
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            gc.collect()
            assert problems == []

    return runner


def test_gather(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        assert await asyncio.gather(*[client.incr("n") for _ in range(100)]) == list(range(1, 101))
        bad = await asyncio.gather(
            client.set("k", "x"), client.incr("k"), client.get("k"), return_exceptions=True
        )
        assert (bad[0], bad[2]) == ("OK", b"x")
        assert isinstance(bad[1], iokernel.ReplyError)
        with pytest.raises(iokernel.ReplyError):
            await asyncio.gather(client.incr("k"), client.get("k"))

    run(main)


def test_reply_is_a_future(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        reply = client.echo("a")
        assert asyncio.isfuture(reply)
        assert not reply.done()
        with pytest.raises(asyncio.InvalidStateError):
            reply.result()
        called: list[Any] = []
        reply.add_done_callback(called.append)
        assert await reply == b"a"
        assert await reply == b"a"  # again
        assert (reply.done(), reply.cancelled(), reply.exception()) == (True, False, None)
        assert reply.get_loop() is asyncio.get_running_loop()
        await auntil(lambda: called)
        assert called == [reply]
        failed = client.call("NOSUCH")
        done, pending = await asyncio.wait([failed, client.ping()])
        assert len(done) == 2 and not pending
        assert isinstance(failed.exception(), iokernel.ReplyError)
        assert {await r for r in asyncio.as_completed([client.echo("a"), client.echo("b")])} == {
            b"a",
            b"b",
        }

    run(main)


def test_one_reply_for_many_waiters(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        reply = client.incr("n")

        async def wait() -> Any:
            return await reply

        assert await asyncio.gather(*[wait() for _ in range(10)]) == [1] * 10

    run(main)


def test_wait_for(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        assert await asyncio.wait_for(client.ping(), 20) == "PONG"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.blpop(["none"], 0, timeout=20), 0.05)
        assert await client.echo("next") == b"next"

    run(main)


def test_deadline(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        started = time.monotonic()
        with pytest.raises(iokernel.Timeout) as caught:
            await client.call("BLPOP", "none", 0, timeout=0.05)
        assert time.monotonic() - started >= 0.05
        assert isinstance(caught.value, TimeoutError)

    run(main)


@pytest.mark.skipif(
    sys.version_info < (3, 11), reason="asyncio.timeout and TaskGroup are new in 3.11"
)
def test_timeout_and_task_group(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.blpop(["none"], 0, timeout=20)
        async with asyncio.TaskGroup() as group:

            async def get(i: int) -> Any:
                return await client.echo(str(i))

            tasks = [group.create_task(get(i)) for i in range(10)]
        assert [task.result() for task in tasks] == [b"%d" % i for i in range(10)]
        with pytest.raises(ExceptionGroup) as caught:  # noqa: F821 - Python 3.11
            async with asyncio.TaskGroup() as group:

                async def fail() -> None:
                    await client.call("NOSUCH")

                async def hang() -> None:
                    await client.blpop(["none"], 0, timeout=20)

                group.create_task(hang())
                group.create_task(fail())
        assert isinstance(caught.value.exceptions[0], iokernel.ReplyError)

    run(main)


def test_shield(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        inner = client.blpop(["list"], 0, timeout=20)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(inner), 0.02)
        assert not inner.done()
        await client.rpush("list", "x")
        assert await inner == [b"list", b"x"]

    run(main)


def test_cancelled_calls_leave_the_others_their_replies(run: Callable[[Main], Any]) -> None:
    """Every reply that arrives carries its own call's word, whoever was cancelled before, during and after."""

    async def main(client: Redis) -> None:
        chance = random.Random(1)
        mixed = 0
        cancelled = 0

        async def work(name: int) -> None:
            nonlocal mixed
            for i in range(50):
                mixed += await client.echo(f"{name}-{i}") != f"{name}-{i}".encode()

        async def disturb() -> None:
            nonlocal cancelled
            for i in range(500):
                task = asyncio.ensure_future(work(-1))
                reply = client.echo(f"cancelled-{i}")
                if chance.random() < 0.5:
                    await asyncio.sleep(0)
                reply.cancel()
                task.cancel()
                for ended in await asyncio.gather(task, reply, return_exceptions=True):
                    cancelled += isinstance(ended, asyncio.CancelledError)

        await asyncio.gather(disturb(), *[work(name) for name in range(50)])
        assert mixed == 0
        assert cancelled > 0
        stats = client.stats()
        assert (stats["connects"], stats["disconnects"]) == (1, 0)

    run(main)


def test_cancel_of_a_reply(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        reply = client.blpop(["none"], 0, timeout=20)
        assert reply.cancel()
        assert reply.cancelled() and reply.done()
        assert not reply.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reply
        assert await client.ping() == "PONG"

    run(main)


def test_forgotten_replies(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        for _ in range(100):
            client.incr("n")
        assert await client.incr("n") == 101

    run(main)


def test_forgotten_failure_is_told_to_the_loop(run: Callable[[Main], Any]) -> None:
    """As asyncio does for its own futures."""

    async def main(client: Redis) -> None:
        problems: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: problems.append(context))
        client.call("NOSUCH")
        await auntil(lambda: problems)
        assert "never retrieved" in problems[0]["message"]
        assert isinstance(problems[0]["exception"], iokernel.ReplyError)

    run(main)


def test_context_variables_stay_with_their_tasks(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable")

        async def work(i: int) -> None:
            variable.set(i)
            for _ in range(20):
                await client.ping()
                assert variable.get() == i

        await asyncio.gather(*[work(i) for i in range(50)])
        assert variable.get(None) is None

    run(main)


def test_current_task_is_right_after_a_reply(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        async def work() -> None:
            mine = asyncio.current_task()
            for _ in range(20):
                await client.ping()
                assert asyncio.current_task() is mine

        await asyncio.gather(*[work() for _ in range(50)])

    run(main)


def test_other_tasks_get_their_turn(run: Callable[[Main], Any]) -> None:
    async def main(client: Redis) -> None:
        turns = 0
        done = False

        async def ticker() -> None:
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        async def work() -> None:
            for _ in range(200):
                await client.ping()

        ticking = asyncio.ensure_future(ticker())
        await asyncio.gather(*[work() for _ in range(50)])
        done = True
        await ticking
        assert turns > 10

    run(main)
