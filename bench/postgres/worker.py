"""One measurement in a process of its own: a peer, a load, a way to run, a number of callers.

Every peer runs in the same closed loop: a caller asks again when it has its result. The loop adds a
counter and a check of the number of rows per request, and every 16th request of a caller is timed.
Prints one JSON object.

    worker.py PEER asyncio|uvloop|sync CALLERS --load NAME
        --port N --server-pid N --warmup S --seconds S
"""

import argparse
import importlib
import itertools
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any

from loads import INSERT, LOADS, NOTE, SELECTS, key
from shared.load import (
    SAMPLE_MASK,
    State,
    argument_parser,
    measure_tasks,
    measure_threads,
    run,
)


def call_of(client: Any, load: str) -> tuple[Callable[[int], Any], int]:
    """Return what a caller calls with a key, and how many rows that gives; 0: do not look."""
    if load == "transaction":
        return client.transact, 0
    if load == "insert":
        execute = client.execute
        return lambda key: execute(INSERT, key, NOTE), 0
    fetch = client.fetch
    sql, argument, rows = SELECTS[load]
    return (lambda key: fetch(sql, key)) if argument == 0 else (
        lambda _: fetch(sql, argument)
    ), rows


# The two loops run until the process ends: even to look whether to stop would be a part of what is
# measured.
async def call_in_loop(
    call: Callable[[int], Awaitable[Any]], rows: int, state: State, me: int
) -> None:
    turns, now, sampled = state.turns, time.perf_counter, state.samples.append
    for turn in itertools.count(me + 1):
        if turn & SAMPLE_MASK:
            value = await call(key(me, turn))
        else:
            start = now()
            value = await call(key(me, turn))
            sampled(now() - start)
        if rows and len(value) != rows:
            raise RuntimeError(f"{len(value)} rows instead of {rows}")
        turns[me] = turn


def call_in_thread(call: Callable[[int], Any], rows: int, state: State, me: int) -> None:
    turns, now, sampled = state.turns, time.perf_counter, state.samples.append
    for turn in itertools.count(me + 1):
        if turn & SAMPLE_MASK:
            value = call(key(me, turn))
        else:
            start = now()
            value = call(key(me, turn))
            sampled(now() - start)
        if rows and len(value) != rows:
            raise RuntimeError(f"{len(value)} rows instead of {rows}")
        turns[me] = turn


async def run_tasks(peer: Any, connections: int, options: argparse.Namespace) -> None:
    async with peer.asyncio_client(options.port, connections) as client:
        call, rows = call_of(client, options.load)
        await measure_tasks(peer, options, lambda state, me: call_in_loop(call, rows, state, me))


def run_threads(peer: Any, connections: int, options: argparse.Namespace) -> None:
    with peer.sync_client(options.port, connections) as client:
        call, rows = call_of(client, options.load)
        measure_threads(peer, options, lambda state, me: call_in_thread(call, rows, state, me))


def main() -> None:
    parser = argument_parser()
    parser.add_argument("--load", choices=LOADS, required=True)
    options = parser.parse_args()
    name, connections = re.fullmatch(r"(\w+?)(\d+)", options.peer).groups()  # type: ignore[union-attr]
    peer = importlib.import_module(f"peers.{name}")
    run(
        options.runner,
        lambda: run_tasks(peer, int(connections), options),
        lambda: run_threads(peer, int(connections), options),
    )


if __name__ == "__main__":
    main()
