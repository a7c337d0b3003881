"""Bounds, with real servers: calls that wait or fail, bytes that stay bounded, slow and huge answers that hold up nobody.

Memory is looked at in programs of their own, started for it; limits are generous, and far below what would be held
without the bound.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading

import iokernel
import pytest
from iokernel import asyncio as aio
from iokernel import sync
from kit.help import auntil, run_program, start_program, until
from kit.servers import RedisServer

MANY = 100_000
PORT_CALLS = 16_384


# ---- calls ------------------------------------------------------------------------------------


def test_asyncio_program_that_starts_too_many_calls_waits(shared_redis: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(f"{shared_redis.url}?overload=wait&timeout=60s") as client:
            await client.delete("n")
            replies = await asyncio.gather(*[client.incr("n") for _ in range(MANY)])
            assert replies == list(range(1, MANY + 1))  # each once, and in their order
            stats = client.stats()
            assert (stats["overloaded"], stats["connects"]) == (0, 1)

    asyncio.run(main())


def test_asyncio_program_that_starts_too_many_calls_fails(shared_redis: RedisServer) -> None:
    async def main() -> None:
        async with aio.connect(shared_redis.url) as client:
            calls = [client.ping() for _ in range(MANY)]
            replies = await asyncio.gather(*calls, return_exceptions=True)
            # The loop had no turn meanwhile: all that have room come first.
            assert replies[:PORT_CALLS] == ["PONG"] * PORT_CALLS
            for error in replies[PORT_CALLS:]:
                assert isinstance(error, iokernel.Overloaded)
                assert error.outcome == "never-sent"
            assert "(port_calls_max=16384, overload=fail)" in str(replies[-1])
            assert client.stats()["overloaded"] == MANY - PORT_CALLS
            assert await client.ping() == "PONG"

    asyncio.run(main())


@pytest.mark.parametrize("option", ["wait", "fail"])
def test_batch_beyond_the_port(shared_redis: RedisServer, option: str) -> None:
    with sync.connect(f"{shared_redis.url}?overload={option}&timeout=60s") as client:
        client.delete("n")
        replies = client.call_many([("INCR", "n")] * 40_000)
        if option == "wait":
            assert replies == list(range(1, 40_001))
        else:
            assert replies[:PORT_CALLS] == list(range(1, PORT_CALLS + 1))
            assert all(isinstance(error, iokernel.Overloaded) for error in replies[PORT_CALLS:])


PARKED = """
    import asyncio, sys, threading, time
    import iokernel
    from iokernel import asyncio as aio
    from iokernel import sync

    iokernel.configure(port_calls_max=4)

    async def main():
        client = aio.connect(sys.argv[1] + "?overload=wait")
        blocked = [client.blpop(f"list{i}", 0) for i in range(4)]
        start = time.monotonic()
        try:
            await client.get("k", timeout=0.2)
        except iokernel.Timeout as error:
            assert "no room on its port within 0.2 s (port_calls_max=4" in str(error), error
            assert error.outcome == "never-sent"
            assert time.monotonic() - start >= 0.2
        else:
            raise AssertionError("there was room")
        waiting = [client.incr("n") for _ in range(10)]
        waiting[3].cancel()
        try:
            await asyncio.wait_for(client.incr("n"), 0.05)
        except asyncio.TimeoutError:
            pass
        assert client.stats()["calls"] == 4
        # An asyncio program and a thread have a port each.
        other = sync.connect(client)
        await asyncio.to_thread(lambda: [other.rpush(f"list{i}", "x") for i in range(4)])
        for i, reply in enumerate(blocked):
            assert await reply == [b"list%d" % i, b"x"]
        got = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(got[3], asyncio.CancelledError)
        assert [n for n in got if isinstance(n, int)] == list(range(1, 10))
        assert client.stats()["overloaded"] == 0
        client.close()

    asyncio.run(main())

    # A thread that waits for room lets the others run; and its own deadline holds.
    client = sync.connect(sys.argv[1] + "?overload=wait&timeout=60s")
    batch = [("BLPOP", f"list{i}", 0) for i in range(4)] + [("PING",)]
    got = []
    thread = threading.Thread(target=lambda: got.extend(client.call_many(batch)))
    thread.start()
    while client.stats()["inflight"] < 4:
        time.sleep(0.001)
    assert client.stats()["calls"] == 4
    for i in range(4):
        client.rpush(f"list{i}", "y")
    thread.join()
    assert got == [[b"list%d" % i, b"y"] for i in range(4)] + ["PONG"]
    got = client.call_many(batch, timeout=0.2)
    assert [type(error).__name__ for error in got[:4]] == ["Timeout"] * 4
    # There is room when those end, which may be just before its own deadline.
    assert got[4] == "PONG" or (got[4].outcome, got[4].code) == ("never-sent", "IOK_ETIMEOUT")
    client.close()
    print("well")
"""


def test_calls_that_wait_on_their_port(redis_server: RedisServer) -> None:
    assert run_program(PARKED, redis_server.url) == "well\n"


def test_bytes_of_a_service(redis_server: RedisServer) -> None:
    value = b"x" * 100_000

    async def main() -> None:
        async with aio.connect(f"{redis_server.url}?max_pending_bytes=1m&timeout=60s") as client:
            await client.ready(20)
            redis_server.pause()
            calls = [client.set(f"k{i}", value) for i in range(25)]
            with pytest.raises(
                iokernel.Overloaded, match="max_pending_bytes=1048576, overload=fail"
            ):
                await calls[10]
            with pytest.raises(iokernel.Unsafe, match="more than max_pending_bytes=1048576"):
                await client.set("k", b"x" * 2_000_000)
            redis_server.resume()
            replies = await asyncio.gather(*calls, return_exceptions=True)
            assert replies[:10] == ["OK"] * 10
            assert all(isinstance(error, iokernel.Overloaded) for error in replies[10:])
            assert await client.set("k", value) == "OK"
            assert client.stats()["overloaded"] == 15

    asyncio.run(main())


def test_bytes_of_a_service_that_wait(redis_server: RedisServer) -> None:
    value = b"x" * 100_000
    options = "max_inflight=3&max_queued=0&max_pending_bytes=1m&overload=wait&timeout=60s"

    async def main() -> None:
        async with aio.connect(f"{redis_server.url}?{options}") as client:
            calls = [client.rpush("list", value) for _ in range(100)]
            assert await asyncio.gather(*calls) == list(range(1, 101))
            assert client.stats()["overloaded"] == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("overload=maybe", "bad overload=maybe: expected fail or wait"),
        ("slow_consumer=kill", "bad slow_consumer=kill: expected pause or drop"),
        ("max_pending_bytes=1k", "max_pending_bytes"),
        ("max_stream_bytes=99999g", "max_stream_bytes"),
        ("overlaod=wait", "did you mean 'overload'"),
    ],
)
def test_wrong_options(option: str, says: str) -> None:
    with pytest.raises(iokernel.URLError, match=says):
        sync.connect(f"redis://localhost?{option}")


# ---- memory -----------------------------------------------------------------------------------

MEMORY = """
    import sys, threading, time
    import iokernel
    from iokernel import sync

    def rss():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    def say(text):
        print(text, flush=True)
"""

SLOW = (
    MEMORY
    + """
    url, option, total = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with sync.connect(url + "?slow_consumer=" + option + "&timeout=60s&max_stream_bytes=8m") as client:
        with client.subscribe("flood", gaps=True) as messages:
            before = rss()
            say("listening")
            client.blpop("published", 0)  # all were published; none was taken
            grown = rss() - before
            assert grown < 60 << 20, grown
            assert iokernel.stats()["buffer_bytes"] < 20 << 20, iokernel.stats()
            got = dropped = 0
            while got + dropped < total:
                message = messages.get(20)
                assert message is not None, (got, dropped, client.stats())
                if message.kind == "dropped":
                    dropped += message.data
                else:
                    assert int(message.data[:10]) == got + dropped  # told where they are missing
                    got += 1
            grown = rss() - before
            assert grown < 60 << 20, grown
            assert messages.dropped == dropped == client.stats()["dropped"]
            assert messages.gaps == 0
            assert (dropped > 0) == (option == "drop")
            say(f"{got} {dropped}")
"""
)


@pytest.mark.parametrize("option", ["pause", "drop"])
@pytest.mark.parametrize("size", [100, 10_000, 1_000_000])
def test_program_that_does_not_take_its_messages(start_redis, option: str, size: int) -> None:
    server = start_redis("client-output-buffer-limit pubsub 0 0 0")  # it would end the connection
    total = min(200_000_000 // size, 100_000)
    with start_program(SLOW, server.url, option, str(total)) as program:
        assert program.stdout is not None and program.stdout.readline() == "listening\n"
        with sync.connect(f"{server.url}?timeout=60s") as client:
            for start in range(0, total, 1000):
                numbers = range(start, min(start + 1000, total))
                client.call_many(
                    [("PUBLISH", "flood", b"%0*d" % (10, i) + b"x" * (size - 10)) for i in numbers]
                )
            if option == "drop":  # all of it has come, else the program could be ahead of the flood
                until(lambda: "omem=0 " in server.cli("CLIENT", "LIST", "TYPE", "pubsub"))
            client.rpush("published", "all")
        out, err = program.communicate(timeout=60)
    assert program.returncode == 0, err
    got, dropped = map(int, out.split())
    assert got + dropped == total


UNREAD = (
    MEMORY
    + """
    import asyncio
    from iokernel import asyncio as aio

    MANY = 20_000

    async def main():
        client = aio.connect(sys.argv[1] + "?max_pending_bytes=16m&timeout=60s")
        await client.ready(20)
        say("ready")
        while True:  # until the server stands still
            try:
                await client.ping(timeout=0.1)
            except iokernel.Timeout:
                break
        before = rss()
        refused = []
        def ended(reply):
            assert isinstance(reply.exception(), iokernel.Overloaded)
            refused.append(None)
        for i in range(MANY):  # 200 MB
            client.set(i, bytes([i % 256]) * 10_000).add_done_callback(ended)
            if i % 100 == 0:
                await asyncio.sleep(0.001)
        while len(refused) < MANY - 1_700:  # 16 MB are 1,677 values
            await asyncio.sleep(0.01)
        stats = client.stats()
        assert stats["queued"] + stats["inflight"] > 1_500
        assert iokernel.stats()["buffer_bytes"] < 32 << 20, iokernel.stats()
        assert rss() - before < 60 << 20, rss() - before
        client.close()

    asyncio.run(main())
    say("well")
"""
)


def test_server_that_does_not_read(redis_server: RedisServer) -> None:
    with start_program(UNREAD, redis_server.url) as program:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
        redis_server.pause()
        out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (0, "well\n"), err


# ---- an answer that is slow or huge holds up nobody ---------------------------------------------


class Gate:
    """Between a client and a server; lets through only as many bytes of the answers as it may."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.may = 0
        self.passed = 0
        self._open = True
        self._changed = threading.Condition()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def let(self, n: int) -> None:
        """Let n bytes more through."""
        with self._changed:
            self.may += n
            self._changed.notify_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._server.port))
            self._sockets += [client, server]
            for pair in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pump, args=pair)
                self._threads.append(thread)
                thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, counted: bool) -> None:
        n = 65536
        with contextlib.suppress(OSError):
            while self._open:
                if counted:
                    with self._changed:
                        self._changed.wait_for(lambda: self.may > self.passed or not self._open)
                        n = min(65536, self.may - self.passed)
                data = source.recv(n)
                if not data:
                    break
                sink.sendall(data)
                if counted:
                    self.passed += len(data)

    def __enter__(self) -> Gate:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._open = False
            self._changed.notify_all()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._sockets:
            each.close()


HUGE = 32_000_000


def test_huge_answer_in_chunks(start_redis) -> None:
    async def main() -> None:
        server, other = start_redis(), start_redis()
        with Gate(server) as gate:
            gate.let(100_000)
            async with (
                aio.connect(f"redis://127.0.0.1:{gate.port}?timeout=60s") as slow,
                aio.connect(other.url) as quick,
            ):
                await slow.setrange("huge", HUGE - 1, "x")
                huge = slow.get("huge")
                for _ in range(20):
                    gate.let(1_000_000)
                    await auntil(lambda: gate.passed == gate.may)
                    assert (
                        await asyncio.gather(*[quick.ping() for _ in range(100)]) == ["PONG"] * 100
                    )
                assert not huge.done()
                assert slow.stats()["bytes_in"] > 10_000_000  # it was coming all the time
                gate.let(HUGE)
                assert len(await huge) == HUGE

    asyncio.run(main())


@pytest.mark.parametrize("how", ["stopped", "paused"])
def test_server_that_stops_reading(start_redis, how: str) -> None:
    """Stopped: it reads nothing; paused: it answers nothing."""
    value = b"x" * 100_000_000

    async def main() -> None:
        server, other = start_redis(), start_redis()
        async with (
            aio.connect(f"{server.url}?timeout=60s") as stuck,
            aio.connect(other.url) as quick,
        ):
            await stuck.ready(20)
            if how == "stopped":
                server.pause()
            else:
                server.cli("CLIENT", "PAUSE", "60000", "WRITE")
            sending = stuck.set("k", value)
            await auntil(lambda: stuck.stats()["bytes_out"] > 100_000)
            for _ in range(20):
                assert await asyncio.gather(*[quick.ping() for _ in range(100)]) == ["PONG"] * 100
            assert not sending.done()
            if how == "stopped":
                server.resume()
            else:
                server.cli("CLIENT", "UNPAUSE")
            assert await sending == "OK"

    asyncio.run(main())


def test_slow_listener_holds_up_nobody(shared_redis: RedisServer) -> None:
    """A subscription that is not read, and calls of the same client on its shared connection."""
    with (
        sync.connect(f"{shared_redis.url}?timeout=60s") as client,
        client.subscribe("flood") as messages,
    ):
        for _ in range(5):
            assert client.call_many([("PUBLISH", "flood", "x")] * 1000) == [1] * 1000
        assert [client.incr("n") for _ in range(100)]
        assert [next(messages).data for _ in range(5000)] == [b"x"] * 5000
