"""The demonstrations: small here, and in full size by `make soak` (IOK_SOAK=1)."""

from __future__ import annotations

import json
import os
import pathlib
import re
import subprocess
import sys

from kit.servers import RedisServer

HERE = pathlib.Path(__file__).parent
SOAK = "IOK_SOAK" in os.environ


def run(program: str, *args: str) -> str:
    """What it printed; it must end well."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", HERE / program, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_million_calls() -> None:
    calls = 1_000_000 if SOAK else 20_000
    summary = run("million.py", "--calls", str(calls))
    print(summary)
    assert summary.startswith(f"{calls} calls")
    assert "; 0 replies misdelivered, 1 connection" in summary


def test_interpreter_lock_held(redis_server: RedisServer, shared_redis: RedisServer) -> None:
    """Replies are taken in, deadlines fire, pings go out and the connection lives, all by the kernel thread."""
    seconds = 60 if SOAK else 3
    redis_server.pause()
    seen = json.loads(
        run("lock_holder.py", str(shared_redis.port), str(redis_server.port), str(seconds))
    )
    begin, end = seen["begin"], seen["end"]
    lateness = []
    for stamps in seen["calls"]:  # complete during the hold, or just before
        assert 0 < stamps["complete"] < end <= stamps["picked_up"]
    for stamps in seen["late"]:
        assert begin < stamps["complete"] < end <= stamps["picked_up"]
        lateness.append((stamps["complete"] - stamps["submitted"]) / 1e9 - 1.0)
        assert lateness[-1] >= 0
    assert (seen["same"], seen["disconnects"]) == (True, 0)
    # One after half a second to five eighths of one; on a busy machine some come later.
    assert seen["pings"] > seconds // 2
    counted = re.search(r"cmdstat_ping:calls=(\d+)", shared_redis.cli("INFO", "commandstats"))
    assert counted is not None and int(counted[1]) >= seen["pings"]
    print(
        f"lock held for {(end - begin) / 1e9:.1f} s: {seen['pings']} pings, {len(seen['calls'])} replies, "
        f"{len(lateness)} deadlines of 1 s fired {min(lateness) * 1e3:.2f} to {max(lateness) * 1e3:.2f} ms late"
    )
