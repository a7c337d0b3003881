"""Programs under faults on purpose (IOK_CHAOS): what works, works however bytes are cut up; what fails, fails truthfully."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest
from kit.help import run_program
from kit.servers import RedisServer

CALLS = pathlib.Path(__file__).parent / "test_redis_calls.py"


@pytest.mark.parametrize(
    "chaos",
    [
        "seed=1,pieces=1",
        "seed=2,partial=0.5,refuse=0.3,pieces=7,delay=1ms",
        "seed=3,connect_fail=0.5,connect_delay=5ms,partial=0.9,stall=0",
    ],
)
def test_ordinary_calls(chaos: str) -> None:
    """The whole of that file, but for the values that are large, not odd."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", CALLS, "-k", "not big_values"],
        env={**os.environ, "IOK_CHAOS": chaos},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_wrong_options(monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import iokernel
        from iokernel import sync
        try:
            sync.connect("redis://localhost")
        except iokernel.URLError as error:
            print(error.code, error)
    """
    monkeypatch.setenv("IOK_CHAOS", "seed=1,partail=0.5")
    said = run_program(source)
    assert said.startswith("IOK_EOPTION chaos: unknown option 'partail': did you mean 'partial'?")
    monkeypatch.setenv("IOK_CHAOS", "")  # is none
    assert run_program(source) == ""


def test_resets_in_the_middle(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        import asyncio, collections, sys
        import iokernel
        from iokernel.asyncio import connect

        async def main():
            ended = collections.Counter()
            async with connect(sys.argv[1]) as client:
                async def work():
                    for _ in range(40):
                        try:
                            await client.incr("n", timeout=60)
                            ended["done"] += 1
                        except iokernel.Error as error:
                            assert "chaos: reset" in str(error), error
                            ended[error.outcome] += 1
                await asyncio.gather(*[work() for _ in range(50)])
                assert client.stats()["disconnects"] > 5
            print(ended["done"], ended["maybe-executed"], sum(ended.values()))

        asyncio.run(main())
    """
    shared_redis.cli("FLUSHALL")
    monkeypatch.setenv("IOK_CHAOS", "seed=5,reset_after=6000,partial=0.3,pieces=50,stall=100us")
    done, maybe, calls = map(int, run_program(source, shared_redis.url).split())
    assert (calls, done > 0, maybe > 0) == (2000, True, True)
    assert done <= int(shared_redis.cli("GET", "n")) <= done + maybe


def test_names_that_resolve_seldom(
    shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
        import sys
        from iokernel import sync
        with sync.connect(f"redis://localhost:{sys.argv[1]}") as client:
            print(client.ping(timeout=60), client.stats()["last_failure"])
    """
    monkeypatch.setenv("IOK_CHAOS", "seed=5,resolve_fail=0.6,resolve_delay=1ms")
    said = run_program(source, str(shared_redis.port))
    assert said == "PONG localhost: chaos: name does not resolve\n"


def test_fork(shared_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child leaves the parent's chaos behind, and has its own."""
    source = """
        import os, sys
        from iokernel import sync
        client = sync.connect(sys.argv[1])
        client.set("who", "parent")
        if (child := os.fork()) == 0:
            with sync.connect(sys.argv[1]) as fresh:
                fresh.set("who", "child")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(client.get("who").decode(), client.stats()["connects"])
    """
    monkeypatch.setenv("IOK_CHAOS", "seed=1,pieces=2,delay=1ms,partial=0.5")
    assert run_program(source, shared_redis.url) == "child 1\n"
