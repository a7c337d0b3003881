"""Tasks of iokernel's factory: resumed in the drain, cancelled, mixed with others, destroyed."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from typing import Any

import iokernel
import pytest
from iokernel.asyncio import Redis, Task, connect, task_factory
from kit.help import auntil, run_program, until
from kit.servers import RedisServer


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    loop.set_task_factory(task_factory)
    yield loop
    loop.close()


def test_is_an_asyncio_task(loop: asyncio.AbstractEventLoop) -> None:
    async def main() -> None:
        task = asyncio.current_task()
        assert isinstance(task, Task) and isinstance(task, asyncio.Task)
        assert asyncio.isfuture(task)
        assert task in asyncio.all_tasks()
        assert task.get_name().startswith("Task-")
        child = asyncio.create_task(asyncio.sleep(0), name="child")
        assert child.get_name() == "child"
        await child
        assert child not in asyncio.all_tasks()

    loop.run_until_complete(main())


def test_who_is_current_in_a_drain(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    """Of tasks resumed one behind the other, of both kinds, each is the current one; between and behind them none is."""

    async def main() -> None:
        async with connect(shared_redis.url) as client:
            await client.ready()
            before = client.stats()["ended"]["done"]
            right: list[bool] = []

            async def work() -> None:
                mine = asyncio.current_task()
                await client.ping()
                right.append(asyncio.current_task() is mine)

            def make(n: int) -> asyncio.Task[None]:
                return asyncio.create_task(work()) if n % 3 else asyncio.Task(work())

            tasks = [make(n) for n in range(60)]
            await asyncio.sleep(0)  # all are sent
            until(lambda: client.stats()["ended"]["done"] == before + 60)  # the loop stands still
            none: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            tasks[0].add_done_callback(lambda _: none.set_result(asyncio.current_task() is None))
            await asyncio.gather(*tasks)
            assert right == [True] * 60
            assert await none

    loop.run_until_complete(main())


def test_resumed_within_the_drain(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    """No turn of the loop passes between a reply and the task that awaits it."""

    async def main() -> None:
        async with connect(shared_redis.url) as client:
            await client.ready()
            before = client.stats()["ended"]["done"]
            events: list[str] = []

            async def work() -> None:
                reply = client.ping()
                reply.add_done_callback(lambda _: events.append("callback"))
                await reply
                events.append("task")

            tasks = [asyncio.create_task(work()) for _ in range(50)]
            await asyncio.sleep(0)  # all are sent
            until(lambda: client.stats()["ended"]["done"] == before + 50)  # the loop stands still
            await asyncio.gather(*tasks)
            await auntil(lambda: len(events) == 100)
            assert events == ["task"] * 50 + ["callback"] * 50  # callbacks come by call_soon

    loop.run_until_complete(main())


def test_cancelled_while_it_awaits_a_reply(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    async def main() -> None:
        async with connect(shared_redis.url) as client:

            async def work() -> None:
                try:
                    await client.blpop(["none"], 0, timeout=20)
                finally:
                    caught.append(await client.ping())  # may still call

            caught: list[Any] = []
            task = asyncio.create_task(work())
            await auntil(lambda: client.stats()["leased"])
            assert task.cancel("enough")
            with pytest.raises(asyncio.CancelledError, match="enough"):
                await task
            assert task.cancelled() and caught == ["PONG"]
            assert not task.cancel()

    loop.run_until_complete(main())


def test_cancelled_before_its_first_step(loop: asyncio.AbstractEventLoop) -> None:
    async def never() -> None:
        raise AssertionError("it ran")

    async def main() -> None:
        task = asyncio.create_task(never())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(main())


def test_cancelled_by_itself_before_it_awaits(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    async def main() -> None:
        async with connect(shared_redis.url) as client:

            async def work() -> None:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await client.ping()

            task = asyncio.create_task(work())
            with pytest.raises(asyncio.CancelledError):
                await task

    loop.run_until_complete(main())


def test_two_tasks_await_one_reply(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    async def main() -> None:
        async with connect(shared_redis.url) as client:
            reply = client.incr("two-tasks")

            async def work() -> Any:
                return await reply

            plain = asyncio.Task(work())
            first, second = await asyncio.gather(work(), work())
            assert first == second == await plain

    loop.run_until_complete(main())


def test_a_reply_of_another_loop(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    other = asyncio.new_event_loop()

    async def make(client: Redis) -> Any:
        return client.blpop(["none"], 0, timeout=20)

    async def main(reply: Any) -> None:
        with pytest.raises(RuntimeError, match="attached to a different loop"):
            await reply

    client = connect(shared_redis.url)
    reply = other.run_until_complete(make(client))
    loop.run_until_complete(main(reply))
    client.close()
    other.close()


def test_what_must_not_be_yielded(loop: asyncio.AbstractEventLoop) -> None:
    class Bad:
        def __init__(self, what: object) -> None:
            self.what = what

        def __await__(self) -> Iterator[Any]:
            yield self.what

    async def main() -> None:
        with pytest.raises(RuntimeError, match="Task got bad yield: 7"):
            await Bad(7)
        with pytest.raises(RuntimeError, match="yield was used instead of yield from"):
            await Bad(asyncio.get_running_loop().create_future())
        with pytest.raises(RuntimeError, match="cannot await on itself"):
            await asyncio.current_task()  # type: ignore[misc]

    loop.run_until_complete(main())


def test_failures_of_calls_are_raised_where_they_are_awaited(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    async def main() -> None:
        async with connect(shared_redis.url) as client:
            with pytest.raises(iokernel.ReplyError):
                await client.call("NOSUCH")
            with pytest.raises(iokernel.Timeout):
                await client.call("BLPOP", "none", 0, timeout=0.02)
            assert await client.ping() == "PONG"

    loop.run_until_complete(main())


def test_eager_start(loop: asyncio.AbstractEventLoop, shared_redis: RedisServer) -> None:
    async def main() -> None:
        outer = asyncio.current_task()
        async with connect(shared_redis.url) as client:
            ran: list[Any] = []

            async def work() -> Any:
                ran.append(asyncio.current_task())
                return await client.ping()

            task = Task(work(), eager_start=True)
            assert ran == [task]
            assert asyncio.current_task() is outer
            assert await task == "PONG"
            assert Task(asyncio.sleep(0, 5), eager_start=False).cancel()

    loop.run_until_complete(main())


def test_wrong_arguments(loop: asyncio.AbstractEventLoop) -> None:
    wrong: Any = 5
    with pytest.raises(TypeError, match="a coroutine was expected, got 5"):
        Task(wrong, loop=loop)
    with pytest.raises(TypeError):
        Task()  # type: ignore[call-arg]


def test_destroyed_while_pending(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    problems: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: problems.append(context))

    async def main() -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        del task
        gc.collect()

    loop.run_until_complete(main())
    gc.collect()
    assert [problem["message"] for problem in problems] == ["Task was destroyed but it is pending!"]


def test_keyboard_interrupt_in_the_drain_ends_the_run(shared_redis: RedisServer) -> None:
    """Raised in a task that a reply resumed, it reaches whoever runs the loop, as from a step of asyncio's."""
    run_program(
        """
        import asyncio, sys
        from iokernel.asyncio import connect, task_factory

        async def work(client):
            await client.ping()
            raise KeyboardInterrupt

        async def main():
            asyncio.get_running_loop().set_task_factory(task_factory)
            client = connect(sys.argv[1])
            task = asyncio.create_task(work(client))
            await asyncio.sleep(20)

        try:
            asyncio.run(main())
        except KeyboardInterrupt:
            sys.exit(0)
        sys.exit("no KeyboardInterrupt")
        """,
        shared_redis.url,
    )


def test_generators_and_other_coroutines(
    loop: asyncio.AbstractEventLoop, shared_redis: RedisServer
) -> None:
    """A coroutine need not be of async def: whatever has send, throw and close will do."""

    class Own(Coroutine[Any, Any, Any]):
        def __init__(self, inner: Coroutine[Any, Any, Any]) -> None:
            self.inner = inner

        def __await__(self) -> Any:
            return self.inner.__await__()

        def send(self, value: Any) -> Any:
            return self.inner.send(value)

        def throw(self, *args: Any) -> Any:
            return self.inner.throw(*args)

        def close(self) -> None:
            self.inner.close()

    async def main() -> None:
        async with connect(shared_redis.url) as client:

            async def work() -> Any:
                return await client.echo("own")

            assert await Task(Own(work())) == b"own"

    loop.run_until_complete(main())
