"""A connection to a real server that is cut at every byte of a request and of a reply: what calls end as is what the
server knows.

Two places cut. The proxy cuts between the process and the server: all was handed to the operating system, so what has
no reply may have been executed. Chaos (IOK_CHAOS, `reset_sent`) cuts inside the process, as if the operating system
took no byte more: then whole requests may have been executed, and the others were never sent.
"""

from __future__ import annotations

import collections
import json
import os
import threading
from collections.abc import Sequence
from typing import Any

import iokernel
import pytest
from iokernel import sync
from kit.help import start_program, until
from kit.proxy import Proxy
from kit.servers import RedisServer

PIPELINE = 4
"""Calls that are under way together."""

STEP = 1 if "IOK_SOAK" in os.environ else 3
"""Between two cuts where each costs a process, or is one of many that are alike."""


def outcomes(ends: Sequence[Any]) -> collections.Counter[str]:
    return collections.Counter(
        end.outcome if isinstance(end, iokernel.Error) else "done" for end in ends
    )


def brackets(ended: collections.Counter[str], counted: int) -> bool:
    """Done ones were counted once, never-sent ones not, the others once or not at all."""
    return ended["done"] <= counted <= ended["done"] + ended["maybe-executed"]


def sizes(server: RedisServer, commands: list[tuple[str, ...]]) -> tuple[int, int, int, int]:
    """Bytes of the sign-in up and down, and of the commands and their replies."""
    with Proxy(server.port) as proxy, sync.connect(url_of(proxy)) as client:
        client.ready(20)
        up, down = client.stats()["bytes_out"], client.stats()["bytes_in"]
        client.call_many(commands)
        stats = client.stats()
        return up, down, stats["bytes_out"] - up, stats["bytes_in"] - down


def url_of(proxy: Proxy, options: str = "") -> str:
    return f"redis://127.0.0.1:{proxy.port}?timeout=60s{options}"


def settled(proxy: Proxy) -> None:
    """The server has acted on all that it got before the cut."""
    until(lambda: proxy.cuts == 1 and proxy.draining == 0, "the end of the cut connection")


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("way", ["up", "down"])
def test_shared_calls(shared_redis: RedisServer, way: str, reset: bool) -> None:
    server = shared_redis
    server.cli("FLUSHALL")
    up, down, request, reply = sizes(server, [("INCR", "x000")] * PIPELINE)
    first, size = (up, request) if way == "up" else (down, reply)
    seen: collections.Counter[str] = collections.Counter()
    for n in range(1, size + 1):
        with Proxy(server.port) as proxy:
            proxy.reset = reset
            proxy.cut_next(**{way: first + n})
            with sync.connect(url_of(proxy)) as client:
                key = f"n{n:03}"
                ends = client.call_many([("INCR", key)] * PIPELINE)
                settled(proxy)
                counted = int(server.cli("GET", key) or 0)
                ended = outcomes(ends)
                assert ended["never-sent"] == 0, (n, ends)
                assert brackets(ended, counted), (n, ends, counted)
                replies = [end for end in ends if not isinstance(end, iokernel.Error)]
                assert replies == sorted(set(replies))
                whole = n * PIPELINE // size
                if way == "up":  # the server acted on whole requests
                    assert counted >= whole
                else:  # it acted on all; the replies that arrived count, but a reset may swallow them
                    assert counted == PIPELINE
                    assert ended["done"] >= whole or reset
                assert client.incr(key) == counted + 1  # all goes on
                seen += ended
    assert seen["maybe-executed"] > 0


@pytest.mark.parametrize("way", ["up", "down"])
def test_sign_in(shared_redis: RedisServer, way: str) -> None:
    """A cut before it is ready costs no call anything."""
    server = shared_redis
    server.cli("FLUSHALL")
    first = sizes(server, [("PING",)])[0 if way == "up" else 1]
    for n in range(0, first, STEP):
        with Proxy(server.port) as proxy:
            proxy.cut_next(**{way: n})
            with sync.connect(url_of(proxy)) as client:
                assert client.incr(f"n{n}") == 1
                settled(proxy)
                assert proxy.accepted == 2


@pytest.mark.parametrize("way", ["up", "down"])
def test_repeatable_calls(shared_redis: RedisServer, way: str) -> None:
    """Each has its own key's value, wherever the cut was."""
    server = shared_redis
    server.cli("FLUSHALL")
    for i in range(PIPELINE):
        server.cli("SET", f"k{i}", f"value {i}")
    gets = [("GET", f"k{i}") for i in range(PIPELINE)]
    wanted = [b"value %d" % i for i in range(PIPELINE)]
    up, down, request, reply = sizes(server, gets)
    first, size = (up, request) if way == "up" else (down, reply)
    retries = 0
    for n in range(size):
        with Proxy(server.port) as proxy:
            proxy.cut_next(**{way: first + n})
            with sync.connect(url_of(proxy)) as client:
                assert client.call_many(gets) == wanted
                settled(proxy)
                retries += client.stats()["retries"]
    assert retries >= size


@pytest.mark.parametrize("way", ["up", "down"])
def test_transactions(shared_redis: RedisServer, way: str) -> None:
    """MULTI to EXEC on a lease: all or nothing, and the error says which of it is known."""
    server = shared_redis
    server.cli("FLUSHALL")
    words = [("MULTI",), ("INCR", "x000"), ("INCR", "y000"), ("EXEC",)]
    with Proxy(server.port) as proxy, sync.connect(url_of(proxy)) as client:
        client.ready(20)
        before = client.stats()
        with client.lease() as lease:
            lease.call_many(words)
            after = client.stats()
        signed_in = (before["bytes_out"], before["bytes_in"])
        whole = (after["bytes_out"] - before["bytes_out"], after["bytes_in"] - before["bytes_in"])
    first, last = (signed_in[0], whole[0]) if way == "up" else (signed_in[1], whole[1])
    seen: collections.Counter[str] = collections.Counter()
    for n in range(first, last + 1):
        with Proxy(server.port) as proxy, sync.connect(url_of(proxy)) as client:
            client.ready(20)
            proxy.cut_next(**{way: n})
            transaction = client.transaction()
            outcome = "done"
            try:
                with transaction:
                    transaction.incr(f"a{n:03}")
                    transaction.incr(f"b{n:03}")
            except iokernel.Error as error:
                outcome = error.outcome
            settled(proxy)
            ran = [int(server.cli("GET", f"{name}{n:03}") or 0) for name in "ab"]
            allowed = {"done": [1], "maybe-executed": [0, 1], "never-sent": [0]}[outcome]
            assert ran[0] == ran[1] and ran[0] in allowed, (n, outcome, ran)
            if outcome == "done":
                assert transaction.results == [1, 1]
            seen[outcome] += 1
    assert seen["maybe-executed"] > 0 and seen["done"] > 0


INSIDE = """
    import json, os, sys
    import iokernel
    from iokernel import sync

    url, what, chaos = sys.argv[1:4]
    step = int(sys.argv[4])

    def shared(client, n):
        return client.call_many([("INCR", f"n{n:03}")] * 2, timeout=0.1)

    def repeatable(client, n):
        return client.call_many([("GET", f"k{i}") for i in range(2)], timeout=60)

    def transaction(n):
        return [("MULTI",), ("INCR", f"a{n:03}"), ("INCR", f"b{n:03}"), ("EXEC",)]

    def resp(words):
        return f"*{len(words)}\\r\\n" + "".join(f"${len(w)}\\r\\n{w}\\r\\n" for w in words)

    def leased(client, n):
        with client.lease() as lease:
            return lease.call_many(transaction(n), timeout=60)

    def child(n):
        with sync.connect(url) as client:
            client.ready(20)
            before = client.stats()
            ends = globals()[what](client, n)
            after = client.stats()
            signed_in = before["bytes_in" if what == "repeatable" else "bytes_out"]
            size = after["bytes_in" if what == "repeatable" else "bytes_out"] - signed_in
            if what == "leased":  # other connections may have signed in meanwhile
                size = sum(len(resp(words)) for words in transaction(n))
        words = [end.outcome if isinstance(end, iokernel.Error) else "done" for end in ends]
        return [signed_in, size, words, [end for end in ends if what == "repeatable" and end != b"value"]]

    def run(n, chaos):
        reads, writes = os.pipe()
        if (pid := os.fork()) == 0:
            os.environ["IOK_CHAOS"] = chaos
            try:
                os.write(writes, json.dumps(child(n)).encode())
            except BaseException:
                sys.excepthook(*sys.exc_info())
                sys.stderr.flush()
                os._exit(1)
            os._exit(0)
        os.close(writes)
        with os.fdopen(reads, "rb") as pipe:
            data = pipe.read()
        assert os.waitpid(pid, 0)[1] == 0, n
        return json.loads(data)

    signed_in, size, _, _ = run(0, "")
    # One whole reply must arrive on each connection, or there is no progress.
    first = size // 2 if what == "repeatable" else 1
    results = {n: run(n, chaos.format(n=signed_in + n)) for n in [*range(first, size, step), size]}
    assert not any(wrong for _, _, _, wrong in results.values())
    print(json.dumps([size, {n: words for n, (_, _, words, _) in results.items()}]))
"""
"""Makes calls of one of three kinds in children, whose connections are reset at one byte after the other."""


def inside(
    server: RedisServer, what: str, chaos: str, options: str = ""
) -> tuple[int, dict[int, list[str]]]:
    """The size of the requests (or replies), and for each byte the outcomes."""
    with start_program(INSIDE, server.url + options, what, chaos, str(STEP)) as program:
        out, err = program.communicate(timeout=100)
    assert program.returncode == 0, err
    size, results = json.loads(out)
    return size, {int(n): ends for n, ends in results.items()}


TRICKLE = "seed={n},partial=0.5,stall=200us,reset_sent={n}"
"""Earlier requests may have their replies before the later ones are sent."""


@pytest.mark.parametrize("chaos", ["reset_sent={n}", TRICKLE], ids=["at once", "trickling"])
def test_shared_calls_cut_inside(shared_redis: RedisServer, chaos: str) -> None:
    shared_redis.cli("FLUSHALL")
    size, results = inside(shared_redis, "shared", chaos)
    seen: collections.Counter[str] = collections.Counter()
    for n, ends in results.items():
        ended = collections.Counter(ends)
        counted = int(shared_redis.cli("GET", f"n{n:03}") or 0)
        assert brackets(ended, counted), (n, ends, counted)
        if n < size // 2:  # no request ever was whole
            assert (ended["done"], counted) == (0, 0)
        seen += ended
    assert seen["maybe-executed"] > 0 and seen["never-sent"] > 0


def test_leased_calls_cut_inside(shared_redis: RedisServer) -> None:
    """A request of a lease is never sent again: nothing of the transaction ran, unless EXEC went out whole."""
    shared_redis.cli("FLUSHALL")
    size, results = inside(shared_redis, "leased", TRICKLE)
    order = ["done", "maybe-executed", "never-sent"]
    seen: collections.Counter[str] = collections.Counter()
    for n, ends in results.items():
        ran = [int(shared_redis.cli("GET", f"{name}{n:03}") or 0) for name in "ab"]
        allowed = {"done": [1], "maybe-executed": [0, 1], "never-sent": [0]}[ends[-1]]
        assert ran[0] == ran[1] and ran[0] in allowed, (n, ends, ran)
        assert (ends[-1] == "never-sent") == (n < size), (n, ends)
        assert ends == sorted(ends, key=order.index), (n, ends)
        seen += collections.Counter(ends)
    assert seen["maybe-executed"] > 0 and seen["never-sent"] > 0


def test_repeatable_calls_cut_inside(shared_redis: RedisServer) -> None:
    """Every connection is reset again, and all are done in the end."""
    shared_redis.cli("FLUSHALL")
    for i in range(2):
        shared_redis.cli("SET", f"k{i}", "value")
    _, results = inside(shared_redis, "repeatable", "reset_received={n}", "?retries=100")
    assert all(ends == ["done", "done"] for ends in results.values())


# ---- other ends ------------------------------------------------------------------------------------------------------


def test_half_closed(shared_redis: RedisServer) -> None:
    """The server's side ends while a call is under way: it may have run, and the next one has a new connection."""
    shared_redis.cli("FLUSHALL")
    with Proxy(shared_redis.port) as proxy, sync.connect(url_of(proxy)) as client:
        client.ready(20)
        proxy.delay_up = 0.05
        proxy.half_close()
        ends = client.call_many([("INCR", "n")] * 3)
        until(lambda: proxy.accepted == 2)
        proxy.delay_up = 0
        last = client.incr("n")
        assert brackets(outcomes(ends), last - 1)


def test_silent_server(shared_redis: RedisServer) -> None:
    """Somebody accepts and says nothing: calls end at their deadlines, never sent; and all comes back."""
    with Proxy(shared_redis.port) as proxy:
        proxy.silent = True
        with sync.connect(url_of(proxy, "&connect_timeout=100ms")) as client:
            with pytest.raises(iokernel.Error) as caught:
                client.incr("n", timeout=0.3)
            assert caught.value.outcome == "never-sent"
            until(lambda: proxy.accepted >= 2, "another attempt")
            proxy.silent = False
            assert client.ping() == "PONG"


def test_link_that_pauses(shared_redis: RedisServer) -> None:
    """Nothing comes or goes for a while; deadlines hold meanwhile, and the connection lives on."""
    shared_redis.cli("FLUSHALL")
    with Proxy(shared_redis.port) as proxy, sync.connect(url_of(proxy)) as client:
        number = client.client_id()
        proxy.pause()
        ends = client.call_many([("INCR", "n")] * 5, timeout=0.1)
        assert outcomes(ends) == {"maybe-executed": 5}
        proxy.resume()
        assert client.incr("n") == 6
        assert client.client_id() == number


def test_refused_after_a_cut(shared_redis: RedisServer) -> None:
    shared_redis.cli("FLUSHALL")
    with Proxy(shared_redis.port) as proxy, sync.connect(url_of(proxy)) as client:
        client.ready(20)
        proxy.refuse()
        proxy.cut()
        with pytest.raises(iokernel.NeverSent, match="refused"):
            client.incr("n", timeout=0.2)
        proxy.admit()
        assert client.incr("n") == 1


def test_slow_link(shared_redis: RedisServer) -> None:
    """A large reply trickles in; another service is not held up by it."""
    with (
        Proxy(shared_redis.port) as proxy,
        sync.connect(url_of(proxy)) as slow,
        sync.connect(shared_redis.url) as well,
    ):
        slow.set("large", "x" * 200_000)
        proxy.rate = 500_000
        ends: list[bytes] = []
        thread = threading.Thread(target=lambda: ends.append(slow.get("large")))
        thread.start()
        meanwhile = 0
        while not ends:
            assert well.echo("x") == b"x"
            meanwhile += 1
        thread.join()
        assert ends == [b"x" * 200_000]
        assert meanwhile > 0
