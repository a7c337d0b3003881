"""One measurement in a process of its own: one peer, one way to run, one number of callers.

Every peer runs in the same closed loop: a caller sends its next GET when it has the reply to its
last. The loop adds a counter and a length check per request, and every 16th request of a caller is
timed. Prints one JSON object.

    worker.py PEER asyncio|uvloop|sync CALLERS --port N --server-pid N --warmup S --seconds S
"""

import argparse
import asyncio
import gc
import importlib
import itertools
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from meter import Snapshot, between

KEY = "bench:get:64"
VALUE_SIZE = 64
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


# The two loops run until the process ends: even to look whether to stop would be a part of what is
# measured.
async def call_in_loop(
    get: Callable[[Any], Awaitable[Any]], key: Any, state: State, me: int
) -> None:
    turns, now, sampled = state.turns, time.perf_counter, state.samples.append
    for turn in itertools.count(me + 1):
        if turn & SAMPLE_MASK:
            value = await get(key)
        else:
            start = now()
            value = await get(key)
            sampled(now() - start)
        if len(value) != VALUE_SIZE:
            raise RuntimeError(f"a reply of {len(value)} bytes instead of {VALUE_SIZE}")
        turns[me] = turn


def call_in_thread(get: Callable[[Any], Any], key: Any, state: State, me: int) -> None:
    turns, now, sampled = state.turns, time.perf_counter, state.samples.append
    for turn in itertools.count(me + 1):
        if turn & SAMPLE_MASK:
            value = get(key)
        else:
            start = now()
            value = get(key)
            sampled(now() - start)
        if len(value) != VALUE_SIZE:
            raise RuntimeError(f"a reply of {len(value)} bytes instead of {VALUE_SIZE}")
        turns[me] = turn


def finish(figures: dict[str, Any], peer: Any) -> None:
    """Print the figures and end the process, while its callers still call."""
    figures["version"] = peer.version()
    print(json.dumps(figures), flush=True)
    os._exit(0)


async def run_tasks(peer: Any, options: argparse.Namespace) -> None:
    state = State(options.callers)
    thread = [threading.get_native_id()]
    async with peer.asyncio_client(options.port, options.callers) as client:
        key = peer.key(KEY)
        tasks = [
            asyncio.ensure_future(call_in_loop(client.get, key, state, me))
            for me in range(options.callers)
        ]
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


def run_threads(peer: Any, options: argparse.Namespace) -> None:
    state = State(options.callers)
    failures: list[BaseException] = []

    def guarded(get: Callable[[Any], Any], key: Any, me: int) -> None:
        try:
            call_in_thread(get, key, state, me)
        except BaseException as error:
            failures.append(error)

    with peer.sync_client(options.port, options.callers) as client:
        key = peer.key(KEY)
        threads = [
            threading.Thread(target=guarded, args=(client.get, key, me), daemon=True)
            for me in range(options.callers)
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


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("peer")
    parser.add_argument("runner", choices=["asyncio", "uvloop", "sync"])
    parser.add_argument("callers", type=int)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--warmup", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    return parser.parse_args()


def main() -> None:
    options = parse()
    peer = importlib.import_module(f"peers.{options.peer}")
    gc.collect()
    gc.freeze()  # What the imports left is the same for the whole run: no need to look at it again.
    if options.runner == "sync":
        run_threads(peer, options)
    elif options.runner == "uvloop":
        import uvloop

        uvloop.run(run_tasks(peer, options))
    else:
        asyncio.run(run_tasks(peer, options))


if __name__ == "__main__":
    main()
