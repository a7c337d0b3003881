"""asyncio: several loops one after the other and at once, and what outlives what."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import iokernel
import pytest
import uvloop
from iokernel import sync
from iokernel.asyncio import connect
from kit.help import run_program
from kit.servers import RedisServer


def test_one_client_in_several_runs(shared_redis: RedisServer) -> None:
    client = connect(shared_redis.url)

    async def main() -> bytes:
        return await client.echo("hello")

    for _ in range(3):
        assert asyncio.run(main()) == b"hello"
    loop = uvloop.new_event_loop()
    assert loop.run_until_complete(main()) == b"hello"
    loop.close()
    assert client.stats()["connects"] == 1
    client.close()


def test_loops_in_threads_share_a_connection(shared_redis: RedisServer) -> None:
    client = connect(shared_redis.url)
    plain = sync.connect(shared_redis.url)
    plain.delete("n")
    counts: list[int] = []

    async def main() -> None:
        for _ in range(20):
            counts.extend(await asyncio.gather(*[client.incr("n") for _ in range(20)]))

    def run(number: int) -> None:
        loop = uvloop.new_event_loop() if number % 2 else asyncio.new_event_loop()
        loop.run_until_complete(main())
        loop.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == list(range(1, 4 * 400 + 1))
    assert plain.get("n") == b"1600"
    assert client.stats()["connects"] == 1
    client.close()
    plain.close()


def test_reply_of_another_loop(shared_redis: RedisServer) -> None:
    client = connect(shared_redis.url)

    async def make() -> object:
        return client.blpop(["none"], 0, timeout=20)

    first = asyncio.new_event_loop()
    reply = first.run_until_complete(make())

    async def main() -> None:
        with pytest.raises((RuntimeError, iokernel.WrongThread)):
            await reply  # type: ignore[misc]
        assert await client.ping() == "PONG"

    asyncio.run(main())
    first.close()
    client.close()


def test_lease_of_another_loop(shared_redis: RedisServer) -> None:
    client = connect(shared_redis.url)

    async def make() -> object:
        lease = client.lease()
        await lease.ping()
        return lease

    async def main() -> None:
        with pytest.raises(iokernel.WrongThread):
            await lease.ping()  # type: ignore[attr-defined]

    first = asyncio.new_event_loop()
    lease = first.run_until_complete(make())
    asyncio.run(main())
    first.close()
    client.close()


def test_tasks_are_freed(shared_redis: RedisServer) -> None:
    async def main() -> None:
        async with connect(shared_redis.url) as client:

            async def work() -> None:
                await client.ping()

            task = asyncio.ensure_future(work())
            gone = weakref.ref(task)
            await task
            del task
            await asyncio.sleep(0)  # until then the loop holds it
            gc.collect()
            assert gone() is None

    asyncio.run(main())


ENDS = {
    "calls in flight": """
        client = connect(url)
        async def main():
            calls = [client.blpop(["none"], 0, timeout=60) for _ in range(10)]
            calls += [client.incr("n") for _ in range(1000)]
            await client.ping()
        asyncio.run(main())
    """,
    "loop closed before the client": """
        async def main():
            global client
            client = connect(url)
            await client.ping()
        asyncio.run(main())
        client.close()
    """,
    "tasks that wait": """
        async def main():
            client = connect(url)
            for _ in range(10):
                asyncio.ensure_future(hang(client))
            await client.ping()
        async def hang(client):
            await client.blpop(["none"], 0, timeout=60)
        asyncio.run(main())
    """,
    "subscription open": """
        async def main():
            client = connect(url)
            messages = client.subscribe("channel")
            async def listen():
                async for message in messages:
                    pass
            asyncio.ensure_future(listen())
            await client.ping()
        asyncio.run(main())
    """,
    "daemon thread in a call": """
        import threading
        from iokernel import sync
        client = sync.connect(url)
        thread = threading.Thread(target=lambda: client.call("BLPOP", "none", 0, timeout=60), daemon=True)
        thread.start()
        while not client.stats()["leased"]: pass
    """,
    "calls from atexit": """
        import atexit
        from iokernel import sync
        client = sync.connect(url)
        @atexit.register
        def last():
            try:
                client.ping()
            except iokernel.Error:
                pass
        client.ping()
    """,
    "calls from __del__": """
        class Late:
            def __del__(self):
                try:
                    client.ping()
                except Exception:
                    pass
        from iokernel import sync
        client = sync.connect(url)
        late = Late()
        late.itself = late
        client.ping()
    """,
    "nothing reachable": """
        async def main():
            await connect("redis://127.0.0.1:1").ping(timeout=0.05)
        try:
            asyncio.run(main())
        except iokernel.Unavailable:
            pass
    """,
    "never used": "connect(url)",
    "lease not given back": """
        from iokernel import sync
        lease = sync.connect(url).lease()
        lease.call("MULTI")
    """,
}


@pytest.mark.parametrize("name", ENDS)
def test_programs_end(shared_redis: RedisServer, name: str) -> None:
    """With status 0, with nothing to say, and long before any of the calls would end."""
    head = "import asyncio, sys, time\nimport iokernel\nfrom iokernel.asyncio import connect\nurl = sys.argv[1]\n"
    lines = ENDS[name].strip("\n").splitlines()
    indent = len(lines[0]) - len(lines[0].lstrip())
    source = head + "\n".join(line[indent:] for line in lines) + "\nprint('end')"
    assert run_program(source, shared_redis.url) == "end\n"
