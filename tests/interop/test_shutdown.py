"""The end of loops, interpreters and processes, wanted or not, with calls under way. More ends are in
test_asyncio_loops.py; those of a forked child in test_fork.py."""

from __future__ import annotations

import asyncio
import gc
import signal

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel.asyncio import connect
from kit.help import PATIENCE_S, run_program, start_program, until
from kit.servers import RedisServer

HEAD = """
    import asyncio, os, signal, sys, threading, time
    import iokernel
    from iokernel import asyncio as aio, sync

    url = sys.argv[1]
"""

TRAFFIC = """
    client = sync.connect(url)
    loop_client = aio.connect(url)

    def calls():
        while True:
            client.incr("n")

    async def tasks():
        async def task():
            while True:
                await loop_client.incr("n")
        await asyncio.gather(*[task() for _ in range(20)])

    for work in (calls, calls, lambda: client.blpop(["none"], 0, timeout=60), lambda: asyncio.run(tasks())):
        threading.Thread(target=work, daemon=True).start()
    while client.stats()["leased"] == 0 or loop_client.stats()["calls"] < 100:
        time.sleep(0.001)
"""


def nobody_is_connected(server: RedisServer) -> bool:
    return len(server.cli("CLIENT", "LIST").splitlines()) == 1


@pytest.mark.parametrize(
    ("way", "status"),
    [
        ("pass", 0),
        ("sys.exit(3)", 3),
        ("os._exit(4)", 4),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", -signal.SIGTERM),
        ("os.abort()", -signal.SIGABRT),
    ],
)
def test_end_of_the_process_under_load(redis_server: RedisServer, way: str, status: int) -> None:
    with start_program(f"{HEAD}{TRAFFIC}\n    {way}\n", redis_server.url) as program:
        _, err = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == status, err
    if status >= 0:
        assert err == ""
    until(lambda: nobody_is_connected(redis_server), "the end of all connections")


def test_unhandled_exception_under_load(redis_server: RedisServer) -> None:
    with start_program(f"{HEAD}{TRAFFIC}\n    1 / 0\n", redis_server.url) as program:
        _, err = program.communicate(timeout=PATIENCE_S)
    assert program.returncode == 1
    assert err.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert err.count("Traceback") == 1


@pytest.mark.parametrize("handler", ["lambda *_: sys.exit(5)", "stop"])
def test_sigterm_with_a_handler(redis_server: RedisServer, handler: str) -> None:
    """It runs at once, also while its thread waits for a call."""
    source = """
    class Stopped(BaseException): pass

    def stop(*_):
        raise Stopped

    client = sync.connect(url)
    signal.signal(signal.SIGTERM, HANDLER)
    print(client.ping(), flush=True)
    try:
        client.blpop(["none"], 0, timeout=3600)
    except Stopped:
        assert client.incr("n") == 1
        sys.exit(5)
    """.replace("HANDLER", handler)
    with start_program(HEAD + source, redis_server.url) as program:
        assert program.stdout is not None and program.stdout.readline() == "PONG\n"
        until(lambda: "blocked_clients:1" in redis_server.cli("INFO", "clients"))
        program.send_signal(signal.SIGTERM)
        _, err = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, err) == (5, "")
    until(lambda: nobody_is_connected(redis_server), "the end of all connections")


def test_sigterm_handler_of_a_loop(redis_server: RedisServer) -> None:
    source = """
    async def main():
        client = aio.connect(url)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        waiting = asyncio.ensure_future(forever(client))
        print(await client.ping(), flush=True)
        await stop.wait()
        waiting.cancel()
        try:
            await waiting
        except asyncio.CancelledError:
            print(await client.incr("n"))
        client.close()

    async def forever(client):
        await client.blpop(["none"], 0, timeout=3600)

    asyncio.run(main())
    """
    with start_program(HEAD + source, redis_server.url) as program:
        assert program.stdout is not None and program.stdout.readline() == "PONG\n"
        until(lambda: "blocked_clients:1" in redis_server.cli("INFO", "clients"))
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, out, err) == (0, "1\n", "")


def test_the_kernel_thread_blocks_all_signals(redis_server: RedisServer) -> None:
    source = """
    client = sync.connect(url)
    client.ping()

    def masks():
        of = {}
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/status") as file:
                fields = dict(line.split(":", 1) for line in file)
            of[fields["Name"].strip()] = int(fields["SigBlk"], 16)
        return of

    def check():
        blocked = masks()["iokernel"]
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            assert blocked >> (number - 1) & 1, number
        assert sum(mask == 0 for mask in masks().values()) >= 1

    check()
    if (child := os.fork()) == 0:
        client.ping()
        check()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print("ok")
    """
    assert run_program(HEAD + source, redis_server.url) == "ok\n"


def test_subinterpreters_say_that_they_are_not_served(redis_server: RedisServer) -> None:
    source = """
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters

    client = sync.connect(url)
    read, write = os.pipe()
    code = (
        "import os\\n"
        "try:\\n    import iokernel\\n"
        f"except ImportError as error:\\n    os.write({write}, str(error).encode())\\n"
    )
    for _ in range(2):
        number = interpreters.create()
        interpreters.run_string(number, code)
        interpreters.destroy(number)
        print(os.read(read, 1000).decode())
        assert client.ping() == "PONG"
    """
    text = "iokernel supports the main interpreter only, not subinterpreters\n"
    assert run_program(HEAD + source, redis_server.url) == 2 * text


def test_loop_closed_with_calls_under_way(shared_redis: RedisServer) -> None:
    """They go with it; the client, and its connection, go on in the next loop."""
    client = connect(shared_redis.url)

    async def begin() -> list[aio.Reply]:
        await client.delete("n")
        return [client.blpop(["none"], 0, timeout=60), *[client.incr("n") for _ in range(100)]]

    async def go_on() -> None:
        words = [str(n).encode() for n in range(100)]
        assert await asyncio.gather(*[client.echo(word) for word in words]) == words

    for _ in range(3):
        loop = asyncio.new_event_loop()
        left = loop.run_until_complete(begin())
        loop.close()
        asyncio.run(go_on())
        assert left[0].cancelled() and all(reply.done() for reply in left)
        del left, loop
        gc.collect()
        asyncio.run(go_on())
    assert client.stats()["inflight"] == 0
    client.close()


def test_second_run_of_a_client_made_in_the_first(shared_redis: RedisServer) -> None:
    made: list[aio.Redis] = []

    async def first() -> int:
        made.append(connect(shared_redis.url))
        await made[0].set("n", 0)
        async with made[0].subscribe("channel") as messages:
            await made[0].publish("channel", "x")
            assert (await messages.get()).data == b"x"
        return await made[0].client_id()

    async def second() -> int:
        await asyncio.gather(*[made[0].incr("n") for _ in range(100)])
        async with made[0].transaction() as tx:
            tx.incr("n")
        assert tx.results == [101]
        return await made[0].client_id()

    number = asyncio.run(first())
    assert asyncio.run(second()) == number
    made[0].close()
    with pytest.raises(iokernel.Closed):
        asyncio.run(second())
