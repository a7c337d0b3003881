#!/usr/bin/env python3
"""Plays many seeds of the simulation on all CPUs: soak_sim.py PROGRAM SEEDS [FIRST].

Says how far it is every few seconds, and at its end how many seeds it played in a second. Stops at
the first seed that violates something, whose transcript the program has printed; exits with 1 then.
"""

from __future__ import annotations

import concurrent.futures
import os
import subprocess
import sys
import time

BLOCK = 5000  # seeds of one run of the program: a second or two
SAY_EVERY_S = 10.0


def play(program: str, first: int, count: int) -> subprocess.CompletedProcess[str]:
    """One block of seeds."""
    return subprocess.run(
        [program, "play", str(first), str(count)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )


def main() -> int:
    program, seeds = sys.argv[1], int(sys.argv[2])
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    cpus = len(os.sched_getaffinity(0))
    end = first + seeds
    blocks = [(at, min(BLOCK, end - at)) for at in range(first, end, BLOCK)]
    start = said = time.monotonic()
    done = 0
    with concurrent.futures.ThreadPoolExecutor(cpus) as pool:
        running = {pool.submit(play, program, at, n): n for at, n in blocks}
        for future in concurrent.futures.as_completed(running):
            result = future.result()
            if result.returncode != 0:
                pool.shutdown(wait=False, cancel_futures=True)
                print(result.stdout)
                return 1
            done += running[future]
            now = time.monotonic()
            if now - said >= SAY_EVERY_S:
                said = now
                print(f"{done} of {seeds} seeds, {done / (now - start):.0f} a second", flush=True)
    seconds = time.monotonic() - start
    print(
        f"{seeds} seeds ({first} to {end - 1}), nothing violated: {seconds:.0f} s, "
        f"{seeds / seconds:.0f} seeds a second on {cpus} CPUs"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
