"""fork(): clients made before it work in the child, on connections of its own, and the parent does not notice.

Each program here has a redis-server of its own, whose CLIENT LIST is the witness.
"""

from __future__ import annotations

import http.client
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import iokernel
import pytest
from iokernel import sync
from kit.help import PATIENCE_S, run_program, start_program, until
from kit.servers import RedisServer, free_port

HEAD = """
    import asyncio, multiprocessing, os, signal, socket, stat, subprocess, sys, threading, time
    import iokernel
    from iokernel import asyncio as aio, sync

    url = sys.argv[1]

    def sockets():
        "The inode of each socket that this process has open."
        found = set()
        for number in os.listdir("/proc/self/fd"):
            try:
                about = os.fstat(int(number))
            except OSError:
                continue
            if stat.S_ISSOCK(about.st_mode):
                found.add(about.st_ino)
        return found

    def child_of(work, *args):
        "Fork; the child does the work and must be done in time."
        before = sockets()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(60)
                assert not sockets() & before, "sockets of the parent"
                work(*args)
                assert not sockets() & before, "sockets of the parent"
                status = 0
            except BaseException:
                import traceback
                traceback.print_exc()
            finally:
                os._exit(status)
        return pid

    def check(pid):
        assert os.waitpid(pid, 0)[1] == 0, "the child failed"
"""


def run(source: str, *args: str) -> str:
    return run_program(HEAD + source, *args)


def connections(server: RedisServer) -> set[str]:
    """The ids of all clients but the one that asks."""
    lines = server.cli("CLIENT", "LIST").splitlines()
    return {line.split()[0] for line in lines if "cmd=client|list" not in line}


def test_same_client_in_parent_and_child(redis_server: RedisServer) -> None:
    run(
        """
    client = sync.connect(url)
    other = sync.connect(client)
    plain = sync.connect(url, decode=True)
    mine = client.client_id()
    plain.set("who", "parent")

    def work():
        assert client.client_id() != mine
        assert client.client_id() == other.client_id() != plain.client_id()
        assert plain.get("who") == "parent"
        assert other.incr("n") and client.incr("n") and plain.incr("n")
        with client.lease() as lease, client.transaction() as tx:
            assert lease.ping() == "PONG"
            tx.incr("n")
        other.close()
        client.close()
        plain.close()

    for _ in range(3):
        check(child_of(work))
        assert client.client_id() == mine
    assert client.get("n") == b"12"
    assert client.stats()["connects"] == 1 and client.stats()["disconnects"] == 0
    """,
        redis_server.url,
    )


@pytest.mark.parametrize("way", ["os._exit(0)", "sys.exit(0)", "raise SystemExit", "pass"])
@pytest.mark.parametrize("used", [True, False])
def test_ends_of_the_child(redis_server: RedisServer, way: str, used: bool) -> None:
    out = run(
        f"""
    client = sync.connect(url)
    lease = client.lease()
    lease.set("who", "parent")
    waiting = threading.Thread(target=lambda: client.call("BLPOP", "list", 0, timeout=60))
    waiting.start()
    while client.stats()["leased"] < 2: pass
    big = client.set("big", "x" * 100_000)
    ids = lease.client_id(), client.client_id()
    child = os.fork()
    if child == 0:
        if {used}:
            assert client.set("who", "child") == "OK"
        {way}
    else:
        assert os.waitpid(child, 0)[1] == 0
        assert ids == (lease.client_id(), client.client_id())
        assert client.stats()["connects"] == 3 and client.stats()["disconnects"] == 0
        client.rpush("list", "x")
        waiting.join()
        print("parent", flush=True)
    """,
        redis_server.url,
    )
    assert out == "parent\n"


def test_leases_streams_and_transactions(redis_server: RedisServer) -> None:
    run(
        """
    client = sync.connect(url)
    lease = client.lease()
    lease.set("k", "v")
    untouched = client.lease()
    messages = client.subscribe("channel")
    client.publish("channel", "nobody hears it")
    with messages:
        client.publish("channel", "one")
        assert messages.get(20).data == b"one"
        collecting = client.transaction()
        collecting.set("collected", 1)

        def work():
            for broken in (lease.ping, untouched.ping, lambda: messages.get(20)):
                try:
                    broken()
                except iokernel.Forked as error:
                    assert error.code == "IOK_EFORKED" and error.outcome == "never-sent", error
                    assert not isinstance(error, iokernel.NeverSent)
                else:
                    raise AssertionError("it belongs to the parent")
            lease.close()
            collecting.incr("collected")
            collecting.__exit__(None, None, None)
            assert collecting.results == ["OK", 2]
            with client.subscribe("channel") as fresh:
                assert client.publish("channel", "two") == 2
                assert fresh.get(20).data == b"two"

        check(child_of(work))
        assert messages.get(20).data == b"two"
        assert lease.get("k") == b"v"
        lease.call("MULTI")
        lease.incr("n")
        check(child_of(lambda: client.ping()))
        assert lease.call("EXEC") == [1]
    """,
        redis_server.url,
    )


def test_threads_in_the_middle_of_calls(redis_server: RedisServer) -> None:
    run(
        """
    client = sync.connect(url)
    ends, enough = [], threading.Event()

    def work(number):
        n = 0
        while not enough.is_set():
            n += 1
            word = f"{number}-{n}".encode()
            assert client.echo(word) == word
            if n % 50 == 0: # memory that is lent to the kernel
                assert client.echo(word * 10_000) == word * 10_000
        ends.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()

    def child():
        for n in range(20):
            assert client.echo(f"child {n}") == f"child {n}".encode()
        replies = []
        more = [threading.Thread(target=lambda: replies.append(client.ping())) for _ in range(3)]
        for thread in more:
            thread.start()
        for thread in more:
            thread.join()
        assert replies == ["PONG"] * 3

    for _ in range(20):
        check(child_of(child))
    forks = []
    def fork_in_a_thread():
        for _ in range(10):
            forks.append(child_of(child))
            check(forks[-1])
    forking = [threading.Thread(target=fork_in_a_thread) for _ in range(2)]
    for thread in forking:
        thread.start()
    for thread in forking:
        thread.join()
    assert len(forks) == 20
    enough.set()
    for thread in threads:
        thread.join()
    assert sorted(ends) == [0, 1, 2, 3]
    assert client.stats()["connects"] == 1
    """,
        redis_server.url,
    )


def test_fork_from_a_signal_handler_while_a_call_waits(redis_server: RedisServer) -> None:
    """The call belongs to the parent, and says so in the child; there the handler may make calls, too."""
    out = run(
        """
    client = sync.connect(url)
    client.ping()
    main = os.getpid()

    def handler(number, frame):
        if (child := os.fork()) == 0:
            assert client.echo("in the handler") == b"in the handler"
        else:
            check(child)
            client.rpush("list", "x")

    signal.signal(signal.SIGUSR1, handler)

    def disturb():
        while client.stats()["leased"] == 0: time.sleep(0.001)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        assert client.blpop(["list"], 0, timeout=50) == [b"list", b"x"]
        assert os.getpid() == main
        thread.join()
        print("parent")
    except iokernel.Forked as error:
        assert os.getpid() != main and error.outcome == "maybe-executed", error
        assert "belongs to the parent" in str(error)
        assert client.ping() == "PONG"
        os._exit(0)
    """,
        redis_server.url,
    )
    assert out == "parent\n"


LOOP = """
    async def parent(client):
        calls = [client.incr("n") for _ in range(100)]
        if os.fork() == 0:
            return calls
        got = set(await asyncio.gather(*calls))
        assert len(got) == 100 and max(got) <= 102, got  # the child's two may come between
        status = os.wait()[1]
        assert status == 0, status
        mine = await client.client_id()
        assert client.stats()["connects"] == 1
        return await client.get("n"), mine

    async def child(client, calls):
        assert await client.incr("n", timeout=20) > 0
        assert await asyncio.gather(*[client.echo(str(n)) for n in range(100)]) == [b"%d" % n for n in range(100)]
        async with client.lease() as lease:
            assert await lease.ping() == "PONG"
        async with client.subscribe("channel") as messages:
            await client.publish("channel", "x")
            assert (await messages.get()).data == b"x"
        assert not any(call.done() for call in calls)

    def main():
        client = aio.connect(url)
        plain = sync.connect(client)
        loop = new_event_loop()
        result = loop.run_until_complete(parent(client))
        if isinstance(result, list):
            signal.alarm(60)
            again = new_event_loop()
            again.run_until_complete(child(client, result))
            asyncio.run(child(client, result))
            assert plain.ping() == "PONG"
            # The inherited loop's descriptors are the parent's, too.
            async def on_the_old_one():
                try:
                    await client.ping()
                except iokernel.Forked as error:
                    assert "run a new loop" in str(error)
                    return
                raise AssertionError("it used the parent's loop")
            coroutine = on_the_old_one()
            asyncio._set_running_loop(loop)
            try:
                coroutine.send(None)
            except StopIteration:
                os._exit(0)
            sys.stderr.write("it waits on the old loop\\n")
            os._exit(1)
        print(result[0].decode())

    main()
"""


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_fork_inside_a_loop(redis_server: RedisServer, kind: str) -> None:
    # uvloop's libuv may batch epoll_ctl in an io_uring, whose memory parent and child share: after a fork its own
    # assertion about it can fail (uv__epoll_ctl_flush), with or without iokernel.
    source = f"""
    os.environ["UV_USE_IO_URING"] = "0"
    from {kind} import new_event_loop
"""
    assert run(source + LOOP, redis_server.url) == "102\n"


def test_replies_of_the_parent_can_be_cancelled_in_the_child(redis_server: RedisServer) -> None:
    """As asyncio.run() does with all that is left, when the child leaves by sys.exit()."""
    run(
        """
    async def wait(client):
        await client.blpop(["none"], 0, timeout=60)

    async def main():
        client = aio.connect(url)
        task = asyncio.ensure_future(wait(client))
        await client.ping()
        reply = client.echo("x")
        if os.fork() == 0:
            assert reply.cancel() and reply.cancelled() and not reply.cancel()
            task.cancel()
            os._exit(0)
        assert os.wait()[1] == 0
        assert await reply == b"x" and not task.done()
        await client.ping()
        client.close()

    asyncio.run(main())
    """,
        redis_server.url,
    )


def test_tls_connection_of_the_parent_lives_on(start_redis) -> None:
    server = start_redis(tls=True)
    url = f"{server.tls_url}?tls_ca={server.directory}/ca.crt"
    run(
        """
    client = sync.connect(url)
    mine = client.client_id()

    def work():
        assert client.client_id() != mine
        assert client.echo("x" * 200_000) == b"x" * 200_000
        client.close()

    for _ in range(3):
        check(child_of(work))
        check(child_of(lambda: None))
        child = os.fork()
        if child == 0:
            sys.exit(0)
        check(child)
        assert client.client_id() == mine
        assert client.echo("y" * 200_000) == b"y" * 200_000
    assert client.stats()["connects"] == 1 and client.stats()["disconnects"] == 0
    """,
        url,
    )


def test_forks_of_forks(redis_server: RedisServer) -> None:
    run(
        """
    client = sync.connect(url)
    client.ping()

    def use(depth):
        if depth % 2:
            client.incr("n")
        if depth < 5:
            check(child_of(use, depth + 1))
            check(child_of(use, depth + 1))
        client.incr("n")

    use(0)
    expected = sum((1 + depth % 2) * 2**depth for depth in range(6))
    assert client.get("n") == str(expected).encode(), client.get("n")
    """,
        redis_server.url,
    )


def test_daemon(redis_server: RedisServer) -> None:
    """The classical one: two forks, a new session, the parents exit, all descriptors are closed."""
    run(
        """
    client = sync.connect(url)
    client.set("daemon", "asked for")
    if os.fork() != 0:
        os._exit(0)
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    signal.alarm(60)
    os.closerange(0, 1024)
    files = [os.open("/dev/zero", os.O_RDONLY) for _ in range(32)]
    client.set("daemon", "runs")
    assert client.get("daemon") == b"runs"
    assert all(os.read(file, 4) == bytes(4) for file in files)
    client.set("daemon", "done")
    """,
        redis_server.url,
    )
    until(lambda: redis_server.cli("GET", "daemon") == "done", "the daemon's work")


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_multiprocessing(redis_server: RedisServer, tmp_path: pathlib.Path, method: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        f"""
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from iokernel import sync

client = sync.connect({redis_server.url!r})

def work(n):
    assert client.echo(str(n)) == str(n).encode()
    return client.incr("n"), client.client_id()

def main():
    mine = client.client_id()
    context = multiprocessing.get_context({method!r})
    with context.Pool(3, maxtasksperchild=5) as pool:
        results = pool.map(work, range(30), chunksize=1)
    with ProcessPoolExecutor(3, mp_context=context) as pool:
        results += pool.map(work, range(30), chunksize=1)
    assert sorted(n for n, _ in results) == list(range(1, 61))
    assert mine not in {{number for _, number in results}}
    process = context.Process(target=work, args=(1,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert client.client_id() == mine and client.stats()["connects"] == 1
    print("ok")

if __name__ == "__main__":
    main()
"""
    )
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", program],
        env={"PYTHONPATH": str(pathlib.Path(iokernel.__file__).parent.parent), "PATH": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


def test_prefork_pool(redis_server: RedisServer) -> None:
    """As Celery's: the parent uses the client meanwhile, and replaces workers that have done their share."""
    run(
        """
    client = sync.connect(url)
    mine = client.client_id()
    JOBS, SHARE = 120, 10

    def worker():
        for _ in range(SHARE):
            job = client.blpop(["jobs"], 0, timeout=50)[1]
            assert client.sadd("done", job) == 1
            client.hincrby("by", str(os.getpid()), 1)

    client.rpush("jobs", *[f"job {n}" for n in range(JOBS)])
    workers = {child_of(worker) for _ in range(4)}
    left = JOBS // SHARE - len(workers)
    while workers:
        pid, status = os.wait()
        assert status == 0
        workers.remove(pid)
        assert client.ping() == "PONG"
        if left > 0:
            left -= 1
            workers.add(child_of(worker))
    assert client.scard("done") == JOBS
    assert set(client.hgetall("by").values()) == {b"10"}
    assert client.client_id() == mine and client.stats()["connects"] == 1
    """,
        redis_server.url,
    )


APP = """
import os
from iokernel import sync

client = sync.connect({url!r})
PARENT = os.getpid()
MINE = client.client_id()

def app(environ, start_response):
    client.incr("requests")
    word = environ["QUERY_STRING"].encode()
    body = b"%d %d %s" % (os.getpid(), client.client_id(), client.echo(word))
    assert os.getpid() != PARENT and client.client_id() != MINE
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_gunicorn_with_preload(
    redis_server: RedisServer, tmp_path: pathlib.Path, threads: int
) -> None:
    (tmp_path / "app.py").write_text(APP.format(url=redis_server.url))
    address = f"127.0.0.1:{free_port()}"
    package = pathlib.Path(iokernel.__file__).parent.parent
    options = ["--preload", "--workers=3", f"--threads={threads}", "--no-control-socket"]
    with subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "--bind", address, "app:app"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{package}", "PATH": "", "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as master:
        seen: dict[str, set[str]] = {}
        try:
            until(lambda: get(address, "first").endswith(" first"), "an answer")
            n = 0
            while len(seen) < 3 or n < 100:
                n += 1
                assert n < 5000, f"only {len(seen)} of 3 workers answer"
                pid, number, word = get(address, f"word{n}").split()
                assert word == f"word{n}"
                seen.setdefault(pid, set()).add(number)
        finally:
            master.send_signal(signal.SIGTERM)
            out, _ = master.communicate(timeout=PATIENCE_S)
    assert master.returncode == 0, out
    assert "Traceback" not in out and "rror" not in out, out
    numbers = [number for of_worker in seen.values() for number in of_worker]
    assert len(numbers) == len(set(numbers)) == len(seen)  # one connection each
    until(lambda: not connections(redis_server), "the end of all connections")


def get(address: str, query: str) -> str:
    """The body of a request's answer; empty if nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.request("GET", f"/?{query}")
        response = connection.getresponse()
        body = response.read().decode()
        assert response.status == 200, body
        return body
    except ConnectionRefusedError:
        return ""
    finally:
        connection.close()


def test_subprocesses_inherit_nothing(redis_server: RedisServer) -> None:
    out = run(
        """
    client = sync.connect(url)
    async def main():
        loop_client = aio.connect(client)
        await loop_client.ping()
        listing = "import os; print(sorted(os.listdir('/proc/self/fd'), key=int))"
        seen = []
        for options in ({}, {"preexec_fn": os.getpid}, {"close_fds": False}, {"close_fds": False, "preexec_fn": os.getpid}):
            done = subprocess.run([sys.executable, "-c", listing], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, **options)
            seen.append(done.stdout)
            assert await loop_client.incr("n") == len(seen)
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", listing, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        seen.append((await process.communicate())[0].decode())
        assert os.system("true") == 0
        assert os.posix_spawn("/bin/true", ["true"], {}) == os.wait()[0]
        # 0, 1, 2 and the one that lists.
        print({len(eval(line)) for line in seen})
    asyncio.run(main())
    assert client.stats()["connects"] == 1 and client.stats()["disconnects"] == 0
    """,
        redis_server.url,
    )
    assert out == "{4}\n"


def test_connections_come_and_go_with_their_processes(redis_server: RedisServer) -> None:
    source = """
    client = sync.connect(url)
    client.ping()
    if (child := os.fork()) == 0:
        client.ping()
        print("child", flush=True)
        sys.stdin.read() if len(sys.argv) > 2 else signal.pause()
    print("parent", flush=True)
    signal.pause()
    """
    with start_program(HEAD + source, redis_server.url) as program:
        assert program.stdout is not None
        assert {program.stdout.readline(), program.stdout.readline()} == {"parent\n", "child\n"}
        both = connections(redis_server)
        assert len(both) == 2
        children = pathlib.Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text()
        program.kill()
        # The child holds no copy of the parent's socket: the server sees its end at once.
        until(lambda: len(connections(redis_server)) == 1, "the end of the parent's connection")
        assert connections(redis_server) < both
        os.kill(int(children), signal.SIGKILL)
        until(lambda: not connections(redis_server), "the end of the child's connection")


def test_closing_in_the_parent_is_seen_while_a_child_lives(redis_server: RedisServer) -> None:
    with sync.connect(redis_server.url) as client:
        client.ping()
        before = connections(redis_server)
        assert len(before) == 1
        child = fork_and_pause()
    try:
        until(lambda: not connections(redis_server) & before, "the end of the connection")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def fork_and_pause() -> int:
    pid = os.fork()
    if pid == 0:
        try:
            time.sleep(60)
        finally:
            os._exit(0)
    return pid


def test_statistics_go_on(redis_server: RedisServer) -> None:
    run(
        """
    client = sync.connect(url)
    for _ in range(10):
        client.ping()

    def work():
        assert client.stats()["connections"] <= 1 and client.stats()["calls"] == 10
        client.ping()
        stats = client.stats()
        assert stats["calls"] == 11 and stats["connects"] == 2 and stats["connections"] == 1
        assert stats["disconnects"] == 0
        assert iokernel.stats()["objects"] == 1
        while client.stats()["inflight"] or client.stats()["queued"]: time.sleep(0.005) # a round old at most
        client.close()
        while iokernel.stats()["objects"]: time.sleep(0.005)
        fresh = sync.connect(url)
        assert fresh.ping() == "PONG"

    check(child_of(work))
    assert client.stats()["calls"] == 10
    """,
        redis_server.url,
    )


def test_storm(redis_server: RedisServer) -> None:
    """10,000 forks in `make soak`."""
    forks = 10_000 if "IOK_SOAK" in os.environ else 200
    program = pathlib.Path(__file__).parent / "fork_storm.py"
    done = subprocess.run(
        [sys.executable, program, str(forks), "--url", redis_server.url],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110 if forks == 200 else 3000,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^{forks} forks: {forks} children well, 0 failed, 0 hung", done.stdout)
