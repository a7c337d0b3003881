"""A program whose interpreter lock is held for long by C code that never lets go of it; the kernel thread goes on.

    lock_holder.py SERVER_PORT STOPPED_PORT SECONDS

STOPPED_PORT is of a server that is suspended. Calls are made before the lock is taken; what the kernel did meanwhile is
in their time stamps. Prints JSON: when the lock was held (monotonic ns), the stamps, and what the server said.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import sys
import time
from typing import Any

import iokernel
from iokernel import sync
from iokernel.asyncio import connect

PING_S = 0.5
TIMEOUT_S = 1.0
CALLS = 100


def hold(seconds: int) -> tuple[int, int]:
    """PyDLL calls a function as if it were part of the interpreter: no other thread runs Python until it returns."""
    begin = time.monotonic_ns()
    end = begin + seconds * 1_000_000_000
    left = seconds
    while left > 0:  # a signal would end the sleep early
        left = ctypes.PyDLL(None).sleep(left)
    assert time.monotonic_ns() >= end - 1_000_000
    return begin, time.monotonic_ns()


async def main(port: int, stopped_port: int, seconds: int) -> dict[str, Any]:
    """The demonstration."""
    plain = sync.connect(f"redis://127.0.0.1:{port}")
    async with (
        connect(f"redis://127.0.0.1:{port}?ping={int(PING_S * 1000)}ms") as client,
        connect(f"redis://127.0.0.1:{stopped_port}") as stopped,
    ):
        number = await client.client_id()
        pings = client.stats()["pings"]
        plain.set("k", "v")  # a waiting thread that may just have run the kernel's loop itself
        calls = [client.echo(str(i)) for i in range(CALLS)]
        late = [stopped.call("INCR", "n", timeout=TIMEOUT_S) for _ in range(CALLS)]
        blocked = client.call("BLPOP", "none", 0, timeout=TIMEOUT_S)
        begin, end = hold(seconds)
        assert await asyncio.gather(*calls) == [b"%d" % i for i in range(CALLS)]
        ends = await asyncio.gather(*late, blocked, return_exceptions=True)
        assert all(isinstance(one, iokernel.Timeout) for one in ends), ends
        plain.close()
        return {
            "begin": begin,
            "end": end,
            "calls": [reply.stamps for reply in calls],
            "late": [reply.stamps for reply in [*late, blocked]],
            "pings": client.stats()["pings"] - pings,
            "same": await client.client_id() == number,
            "disconnects": client.stats()["disconnects"],
        }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(*map(int, sys.argv[1:])))))
