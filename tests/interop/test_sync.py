"""Plain threads: one connection for all, blocking commands beside them, timeouts and Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time

import iokernel
import pytest
from iokernel import sync
from kit.help import PATIENCE_S, start_program, until
from kit.servers import RedisServer


def in_threads(n: int, work) -> None:
    """Run work(number) in n threads and raise what one of them raised."""
    errors: list[BaseException] = []

    def body(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=body, args=(number,)) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_threads_share_one_connection(cache: sync.Redis) -> None:
    def work(number: int) -> None:
        for i in range(200):
            word = f"{number}-{i}".encode()
            assert cache.echo(word) == word
            cache.incr("n")

    in_threads(20, work)
    assert cache.get("n") == b"4000"
    assert cache.stats()["connects"] == 1


def test_threads_come_and_go(cache: sync.Redis) -> None:
    for _ in range(20):
        in_threads(5, lambda number: cache.incr("n"))
    assert cache.get("n") == b"100"
    assert cache.stats()["connects"] == 1


def test_threads_with_many_calls_each(cache: sync.Redis) -> None:
    def work(number: int) -> None:
        words = [f"{number}-{i}".encode() for i in range(2000)]
        assert cache.call_many([("ECHO", word) for word in words]) == words

    in_threads(4, work)


def test_blocking_commands_stall_nobody(cache: sync.Redis) -> None:
    popped: list[object] = []
    threads = [
        threading.Thread(target=lambda: popped.append(cache.blpop(["list"], 0, timeout=60)))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    until(lambda: cache.stats()["leased"] == 3)
    assert [cache.incr("n", timeout=20) for _ in range(100)] == list(range(1, 101))
    cache.rpush("list", "a", "b", "c")
    for thread in threads:
        thread.join()
    assert sorted(popped) == [[b"list", b"a"], [b"list", b"b"], [b"list", b"c"]]
    until(lambda: cache.stats()["leased"] == 0)


def test_blocking_command_ends_by_the_servers_clock(cache: sync.Redis) -> None:
    started = time.monotonic()
    assert cache.blpop(["none"], 0.1) is None
    assert time.monotonic() - started >= 0.1
    # Longer than the service's timeout, which is about replies that are due.
    with sync.connect(f"{cache.url}?timeout=500ms") as quick:
        assert quick.blpop(["none"], 0.8) is None
        with pytest.raises(iokernel.Timeout):
            quick.blpop(["none"], 0, timeout=0.2)


def test_timeouts(cache: sync.Redis) -> None:
    for timeout in (0.01, 0.05, 0.1):
        started = time.monotonic()
        with pytest.raises(iokernel.Timeout) as caught:
            cache.call("BLPOP", "none", 0, timeout=timeout)
        assert time.monotonic() - started >= timeout
        assert caught.value.outcome == "maybe-executed"
    assert cache.ping() == "PONG"


def test_close_ends_waiting_threads(shared_redis: RedisServer) -> None:
    client = sync.connect(shared_redis.url)
    ends: list[iokernel.Error] = []

    def wait() -> None:
        with pytest.raises(iokernel.Error) as caught:
            client.blpop(["none"], 0, timeout=60)
        ends.append(caught.value)

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: client.stats()["leased"] == 1)
    client.close()
    thread.join()
    assert ends[0].code == "IOK_ECLOSED"
    assert ends[0].outcome == "maybe-executed"


INTERRUPTED = """
    import signal, sys, time
    from iokernel import sync

    client = sync.connect(sys.argv[1])
    client.ready(10)
    print("waiting", flush=True)
    try:
        {call}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    assert client.call("PING", timeout=10) == "PONG"
    print("and well", flush=True)
"""


@pytest.mark.parametrize(
    "call",
    [
        "client.blpop(['none'], 0, timeout=3600)",
        "client.call('BLPOP', 'none', 0, timeout=float('inf'))",
        "client.call_many([('PING',), ('BLPOP', 'none', 0)], timeout=3600)",
        "client.lease().call('BLPOP', 'none', 0, timeout=3600)",
        "client.subscribe('channel').get(3600)",
        "next(client.subscribe('channel'))",
    ],
)
def test_ctrl_c_ends_the_wait(redis_server: RedisServer, call: str) -> None:
    with start_program(INTERRUPTED.format(call=call), redis_server.url) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "waiting\n"
        until(
            lambda: (
                "blocked_clients:1" in redis_server.cli("INFO", "clients")
                or "channel" in redis_server.cli("PUBSUB", "CHANNELS")
            )
        )
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=PATIENCE_S)
    assert (program.returncode, out, err) == (0, "interrupted\nand well\n", "")


def test_signal_handlers_run_while_a_call_waits(cache: sync.Redis) -> None:
    """A handler that raises nothing lets the wait go on."""
    handled: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: handled.append(number))
    main = threading.get_ident()

    def disturb() -> None:
        for n in range(1, 4):
            until(lambda: cache.stats()["leased"] == 1)
            signal.pthread_kill(main, signal.SIGUSR1)
            until(lambda n=n: len(handled) == n)
        cache.rpush("list", "x")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert cache.blpop(["list"], 0, timeout=60) == [b"list", b"x"]
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert handled == [signal.SIGUSR1] * 3


def test_handler_may_make_calls_itself(cache: sync.Redis) -> None:
    replies: list[object] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: replies.append(cache.incr("n")))
    main = threading.get_ident()

    def disturb() -> None:
        until(lambda: cache.stats()["leased"] == 1)
        signal.pthread_kill(main, signal.SIGUSR1)
        until(lambda: replies)
        cache.rpush("list", "x")

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert cache.blpop(["list"], 0, timeout=60) == [b"list", b"x"]
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert replies == [1]


def test_scans(cache: sync.Redis) -> None:
    keys = {b"key:%d" % i for i in range(500)}
    cache.mset(dict.fromkeys(keys, "x"))
    cache.set("other", "x")
    assert set(cache.scan_iter(match="key:*", count=50)) == keys
    fields = {f"f{i}": str(i) for i in range(1000)}
    cache.hset("h", mapping=fields)
    assert {f.decode(): v.decode() for f, v in cache.hscan_iter("h")} == fields
    cache.sadd("s", list(fields))
    assert {m.decode() for m in cache.sscan_iter("s")} == set(fields)
    cache.zadd("z", {f: float(v) for f, v in fields.items()})
    assert dict(cache.zscan_iter("z"))[b"f7"] == 7.0


def test_clients_are_freed(shared_redis: RedisServer) -> None:
    objects = iokernel.stats()["objects"]
    for _ in range(20):
        sync.connect(shared_redis.url).ping()
    until(lambda: iokernel.stats()["objects"] <= objects, "the release of dropped clients")
