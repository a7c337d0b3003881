"""Subscriptions: messages in their order, patterns, lost connections and their gaps, ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import until
from kit.servers import RedisServer

PROTOCOLS = pytest.mark.parametrize("option", ["", "?protocol=2"])
FLOOD = 20_000


@PROTOCOLS
def test_messages_of_channels(shared_redis: RedisServer, option: str) -> None:
    with sync.connect(shared_redis.url + option) as client:
        with client.subscribe("a", "b") as messages:
            assert client.pubsub_numsub("a", "b", "c") in (
                {b"a": 1, b"b": 1, b"c": 0},
                [b"a", 1, b"b", 1, b"c", 0],
            )
            client.publish("c", "not ours")
            assert client.publish("a", "first") == 1
            assert client.publish("b", b"\x00\xff") == 1
            assert next(messages) == ("message", b"a", b"first", None)
            message = messages.get(20)
            assert message is not None
            assert (message.kind, message.channel, message.data) == ("message", b"b", b"\x00\xff")
            assert messages.get(0.01) is None
        until(lambda: not client.pubsub_channels())


@PROTOCOLS
def test_messages_of_patterns(shared_redis: RedisServer, option: str) -> None:
    with sync.connect(shared_redis.url + option, decode=True) as client:
        with client.psubscribe("news.*", "*.sport") as messages:
            assert client.publish("news.sport", "x") == 2
            got = {next(messages), next(messages)}
        assert got == {
            sync.Message("pmessage", "news.sport", "x", "news.*"),
            sync.Message("pmessage", "news.sport", "x", "*.sport"),
        }


@PROTOCOLS
def test_asyncio_messages(shared_redis: RedisServer, option: str) -> None:
    async def main() -> None:
        async with aio.connect(shared_redis.url + option) as client:
            async with client.subscribe("a") as plain, client.psubscribe("*") as pattern:
                assert await client.publish("a", "x") == 2
                async for message in plain:
                    assert message == ("message", b"a", b"x", None)
                    break
                assert await pattern.get() == ("pmessage", b"a", b"x", b"*")

    asyncio.run(main())


def test_sharded_channels(shared_redis: RedisServer) -> None:
    with sync.connect(shared_redis.url) as client, client.ssubscribe("a") as messages:
        assert client.spublish("a", "x") == 1
        assert next(messages) == ("smessage", b"a", b"x", None)


@PROTOCOLS
def test_channels_come_and_go(shared_redis: RedisServer, option: str) -> None:
    with sync.connect(shared_redis.url + option) as client, client.subscribe("a") as messages:
        messages.add("b", "c")
        until(lambda: len(client.pubsub_channels()) == 3)
        messages.remove("a", "c")
        until(lambda: client.pubsub_channels() == [b"b"])
        assert messages.channels == ["b"]
        client.publish("a", "not ours any more")
        client.publish("b", "x")
        assert next(messages) == ("message", b"b", b"x", None)


@pytest.mark.parametrize("slow", [False, True])
def test_flood_arrives_whole_and_in_order(shared_redis: RedisServer, slow: bool) -> None:
    """Also when nobody takes the messages for a while: the kernel stops reading and the server waits."""
    with sync.connect(shared_redis.url) as client, client.subscribe("flood") as messages:

        def publish() -> None:
            for start in range(0, FLOOD, 1000):
                client.call_many([("PUBLISH", "flood", i) for i in range(start, start + 1000)])

        thread = threading.Thread(target=publish)
        thread.start()
        if slow:
            thread.join()
        got = [int(next(messages).data) for _ in range(FLOOD)]
        thread.join()
        assert got == list(range(FLOOD))
        assert messages.gaps == 0


def test_asyncio_flood(shared_redis: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_redis.url) as client, client.subscribe("flood") as messages:

            async def publish() -> None:
                for start in range(0, FLOOD, 1000):
                    await asyncio.gather(
                        *[client.publish("flood", i) for i in range(start, start + 1000)]
                    )

            task = asyncio.create_task(publish())
            got = [int((await messages.get()).data) for _ in range(FLOOD)]
            await task
            assert got == list(range(FLOOD))

    asyncio.run(main())


def publish_until_heard(client: Any, channel: str) -> None:
    until(lambda: client.publish(channel, "again") == 1, "the new subscription")


def test_lost_connection_leaves_a_gap(redis_server: RedisServer) -> None:
    with sync.connect(redis_server.url) as client:
        with client.subscribe("a", gaps=True) as messages:
            client.publish("a", "before")
            assert next(messages).data == b"before"
            redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
            thread = threading.Thread(target=publish_until_heard, args=(client, "a"))
            thread.start()
            assert next(messages) == ("gap", None, None, None)
            assert next(messages) == ("message", b"a", b"again", None)
            thread.join()
            assert messages.gaps == 1


def test_restart_of_the_server_leaves_a_gap(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(redis_server.url) as client:
            async with client.subscribe("a", "b", gaps=True) as messages:
                listening = asyncio.create_task(messages.get())
                await asyncio.to_thread(redis_server.restart)
                message = await listening
                assert message is not None and message.kind == "gap"
                listening = asyncio.create_task(messages.get())
                while not listening.done():
                    await client.publish("b", "again", timeout=20)
                    await asyncio.sleep(0.01)
                assert (await listening).data == b"again"
                assert messages.gaps >= 1

    asyncio.run(main())


def test_gaps_are_silent_unless_asked_for(redis_server: RedisServer) -> None:
    with sync.connect(redis_server.url) as client, client.subscribe("a") as messages:
        redis_server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        thread = threading.Thread(target=publish_until_heard, args=(client, "a"))
        thread.start()
        assert next(messages).kind == "message"
        thread.join()
        assert messages.gaps == 1


def test_cancelled_wait_loses_no_message(shared_redis: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_redis.url) as client, client.subscribe("a") as messages:
            got = []
            published = 0
            while len(got) < 100:
                task = asyncio.ensure_future(messages.get())
                if published < 100:
                    client.publish("a", published)
                    published += 1
                for _ in range(len(got) % 3):
                    await asyncio.sleep(0)
                if published < 100:
                    task.cancel()
                try:
                    got.append(int((await task).data))
                except asyncio.CancelledError:
                    pass
            assert got == list(range(100))

    asyncio.run(main())


def test_close_ends_the_iteration(shared_redis: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_redis.url) as client:
            messages = client.subscribe("a")

            async def listen() -> list[Any]:
                return [message.data async for message in messages]

            task = asyncio.create_task(listen())
            while await client.publish("a", "x") == 0:
                pass
            messages.close()
            assert await task in ([], [b"x"])
            messages.close()

    asyncio.run(main())


def test_close_of_the_client_ends_the_iteration(shared_redis: RedisServer) -> None:
    client = sync.connect(shared_redis.url)
    messages = client.subscribe("a")
    assert messages.get(0.01) is None
    client.close()
    with pytest.raises(iokernel.Error) as caught:
        next(messages)
    assert caught.value.code == "IOK_ECLOSED"


def test_no_channel_is_an_error(shared_redis: RedisServer) -> None:
    with sync.connect(shared_redis.url) as client, pytest.raises(TypeError, match="channel"):
        client.subscribe()


def test_forgotten_subscription_gives_its_connection_back(shared_redis: RedisServer) -> None:
    with sync.connect(shared_redis.url) as client:
        messages = client.subscribe("forgotten")
        messages.get(0.01)
        assert client.pubsub_numsub("forgotten")
        del messages
        until(lambda: b"forgotten" not in client.pubsub_channels())
        until(lambda: client.stats()["leased"] == 0)
