"""An idle kernel: connections that nobody uses cost next to nothing."""

from __future__ import annotations

import time

from kit.help import run_program
from kit.servers import RedisServer

SECONDS = 3
SOURCE = """
    import sys, time
    import iokernel
    from iokernel import sync

    clients = [sync.connect(sys.argv[1]) for _ in range(10)]
    for client in clients:
        client.ready(20)
        client.ping()
    # What the calls started has settled when a tenth of a second passes without a turn.
    before = iokernel.stats()
    while True:
        time.sleep(0.1)
        now = iokernel.stats()
        if now["rounds"] == before["rounds"]:
            break
        before = now
    time.sleep(float(sys.argv[2]))
    after = iokernel.stats()
    print(after["rounds"] - before["rounds"], after["polls_blocking"] - before["polls_blocking"])
"""


def test_idle_services_cause_no_wakeups(shared_redis: RedisServer) -> None:
    started = time.monotonic()
    rounds, sleeps = map(int, run_program(SOURCE, shared_redis.url, str(SECONDS)).split())
    # A slow machine makes the time longer, not the turns of a second more.
    seconds = time.monotonic() - started
    assert rounds <= seconds + 1
    assert sleeps <= seconds + 1
