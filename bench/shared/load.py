"""What a worker does: lets its callers call, and measures a window of it.

A worker is one measurement in a process of its own: one peer, one way to run, one number of
callers, in a closed loop. It ends by finish(), while its callers still call.
"""

import argparse
import asyncio
import gc
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from shared.meter import Snapshot, between

# A power of two minus one. Timing one request in 16 costs about 10 ns a request and still gives
# hundreds of samples a second; callers start at different phases, so slow peers are sampled too.
SAMPLE_MASK = 15
# For all callers' first replies; a thousand connections can take two seconds on a loaded machine.
READY_SECONDS = 20.0


class State:
    """What the callers and the timekeeper share. Each caller writes only its own turn."""

    def __init__(self, callers: int) -> None:
        # The turn that each caller has completed. They start apart, so that their samples do too.
        self.turns = list(range(callers))
        self.samples: list[float] = []

    def requests(self) -> int:
        """Return a count that grows by one with every reply."""
        return sum(self.turns)

    def is_warm(self) -> bool:
        """Tell whether every caller had a reply, so that no connection is made in the window."""
        return all(turn > me for me, turn in enumerate(self.turns))


def finish(figures: dict[str, Any], peer: Any) -> None:
    """Print the figures and end the process."""
    figures["version"] = peer.version()
    print(json.dumps(figures), flush=True)
    os._exit(0)


async def measure_tasks(
    peer: Any, options: argparse.Namespace, call: Callable[[State, int], Awaitable[None]]
) -> None:
    """Run call(state, me) as tasks on this loop, and print what they do in a window."""
    state = State(options.callers)
    thread = [threading.get_native_id()]
    tasks = [asyncio.ensure_future(call(state, me)) for me in range(options.callers)]
    deadline = time.monotonic() + READY_SECONDS
    while not state.is_warm() and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    await asyncio.sleep(options.warmup)
    state.samples.clear()
    before = peer_stats(peer)
    first = Snapshot.take(state.requests(), thread, options.server_pid)
    await asyncio.sleep(options.seconds)
    last = Snapshot.take(state.requests(), thread, options.server_pid)
    figures = between(first, last, state.samples)
    figures |= stats_per_request(before, peer_stats(peer), figures["requests"])
    for task in tasks:
        if task.done():
            task.result()  # Raises what it failed with.
    finish(figures, peer)


def measure_threads(
    peer: Any, options: argparse.Namespace, call: Callable[[State, int], None]
) -> None:
    """Run call(state, me) in threads, and print what they do in a window."""
    state = State(options.callers)
    failures: list[BaseException] = []

    def guarded(me: int) -> None:
        try:
            call(state, me)
        except BaseException as error:
            failures.append(error)

    threads = [
        threading.Thread(target=guarded, args=(me,), daemon=True) for me in range(options.callers)
    ]
    for thread in threads:
        thread.start()
    ids = [thread.native_id for thread in threads if thread.native_id is not None]
    deadline = time.monotonic() + READY_SECONDS
    while not state.is_warm() and not failures and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(options.warmup)
    state.samples.clear()
    before = peer_stats(peer)
    first = Snapshot.take(state.requests(), ids, options.server_pid)
    time.sleep(options.seconds)
    last = Snapshot.take(state.requests(), ids, options.server_pid)
    figures = between(first, last, state.samples)
    figures |= stats_per_request(before, peer_stats(peer), figures["requests"])
    if failures:
        raise failures[0]
    finish(figures, peer)


def peer_stats(peer: Any) -> dict[str, int]:
    """Return the peer's own counters, if it has any."""
    return peer.stats() if hasattr(peer, "stats") else {}


def stats_per_request(
    before: dict[str, int], after: dict[str, int], requests: int
) -> dict[str, Any]:
    """Return the growth of each counter per request."""
    return {name: (after[name] - before[name]) / max(requests, 1) for name in before}


def argument_parser() -> argparse.ArgumentParser:
    """Return what every worker is told."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("runner", choices=["asyncio", "uvloop", "sync"])
    parser.add_argument("callers", type=int)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--warmup", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    return parser


def run(runner: str, tasks: Callable[[], Any], threads: Callable[[], None]) -> None:
    """Run tasks(), a coroutine function, on a loop of that kind; or threads()."""
    gc.collect()
    gc.freeze()  # What the imports left is the same for the whole run: no need to look at it again.
    if runner == "sync":
        threads()
    elif runner == "uvloop":
        import uvloop

        uvloop.run(tasks())
    else:
        asyncio.run(tasks())
