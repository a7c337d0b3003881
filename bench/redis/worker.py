"""One measurement in a process of its own: one peer, one way to run, one number of callers.

Every peer runs in the same closed loop: a caller sends its next GET when it has the reply to its
last. The loop adds a counter and a length check per request, and every 16th request of a caller is
timed. Prints one JSON object.

    worker.py PEER asyncio|uvloop|sync CALLERS --port N --server-pid N --warmup S --seconds S
"""

import argparse
import importlib
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

from shared.load import SAMPLE_MASK, State, argument_parser, measure_tasks, measure_threads, run

KEY = "bench:get:64"
VALUE_SIZE = 64


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


async def run_tasks(peer: Any, options: argparse.Namespace) -> None:
    async with peer.asyncio_client(options.port, options.callers) as client:
        get, key = client.get, peer.key(KEY)
        await measure_tasks(peer, options, lambda state, me: call_in_loop(get, key, state, me))


def run_threads(peer: Any, options: argparse.Namespace) -> None:
    with peer.sync_client(options.port, options.callers) as client:
        get, key = client.get, peer.key(KEY)
        measure_threads(peer, options, lambda state, me: call_in_thread(get, key, state, me))


def main() -> None:
    options = argument_parser().parse_args()
    peer = importlib.import_module(f"peers.{options.peer}")
    run(options.runner, lambda: run_tasks(peer, options), lambda: run_threads(peer, options))


if __name__ == "__main__":
    main()
