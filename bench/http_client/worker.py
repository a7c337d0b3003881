"""One measurement in a process of its own: a peer, a way to run, a number of callers.

Every peer runs in the same closed loop: a caller asks again when it has its answer. The loop adds a
counter and a check of the body's length per request, and every 16th request of a caller is timed.
Prints one JSON object.

    worker.py PEER asyncio|uvloop|sync CALLERS --port N --server-pid N --warmup S --seconds S
"""

import argparse
import importlib
import itertools
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from server import BODY
from shared.load import (
    SAMPLE_MASK,
    State,
    argument_parser,
    measure_tasks,
    measure_threads,
    run,
)

SIZE = len(BODY)


# The two loops run until the process ends: even to look whether to stop would be a part of what is
# measured. get() gives the size of the body.
async def call_in_loop(get: Callable[[], Awaitable[int]], state: State, me: int) -> None:
    turns, now, sampled = state.turns, time.perf_counter, state.samples.append
    for turn in itertools.count(me + 1):
        if turn & SAMPLE_MASK:
            size = await get()
        else:
            start = now()
            size = await get()
            sampled(now() - start)
        if size != SIZE:
            raise RuntimeError(f"{size} bytes instead of {SIZE}")
        turns[me] = turn


def call_in_thread(get: Callable[[], int], state: State, me: int) -> None:
    turns, now, sampled = state.turns, time.perf_counter, state.samples.append
    for turn in itertools.count(me + 1):
        if turn & SAMPLE_MASK:
            size = get()
        else:
            start = now()
            size = get()
            sampled(now() - start)
        if size != SIZE:
            raise RuntimeError(f"{size} bytes instead of {SIZE}")
        turns[me] = turn


async def run_tasks(peer: Any, options: argparse.Namespace) -> None:
    async with peer.asyncio_client(options.port, options.callers) as get:
        await measure_tasks(peer, options, lambda state, me: call_in_loop(get, state, me))


def run_threads(peer: Any, options: argparse.Namespace) -> None:
    with peer.sync_client(options.port, options.callers) as get:
        measure_threads(peer, options, lambda state, me: call_in_thread(get, state, me))


def run_alone(peer: Any, options: argparse.Namespace) -> None:
    """Let one thread play all callers: there are no tasks for it."""

    def call(state: State, me: int) -> None:
        if me == 0:
            peer.call_all(options.port, state, SIZE)
        threading.Event().wait()

    measure_threads(peer, options, call)


def main() -> None:
    options = argument_parser().parse_args()
    peer = importlib.import_module(f"peers.{options.peer}")
    if options.runner != "sync" and not hasattr(peer, "asyncio_client"):
        run_alone(peer, options)
    run(options.runner, lambda: run_tasks(peer, options), lambda: run_threads(peer, options))


if __name__ == "__main__":
    main()
