"""Ten plain threads on one connection, and what each failure means: `threads.py [url]`."""

import sys
from concurrent.futures import ThreadPoolExecutor

import iokernel
from iokernel.sync import Redis, connect


def work(cache: Redis, number: int) -> str:
    try:
        return f"{number}: {cache.incr('jobs', timeout=0.5)}"
    except iokernel.Timeout as error:
        return f"{number}: too late, {error.outcome}"  # the outcome says whether it had been sent
    except iokernel.MaybeExecuted:
        return f"{number}: look before repeating it: the server may have run it"
    except iokernel.NeverSent as error:
        return f"{number}: repeating it is safe: {error}"
    except iokernel.ReplyError as error:
        return f"{number}: the server says: {error}"


def main(url: str) -> None:
    # One client for all threads: they share its connection, and each waits for its own reply only.
    with connect(url) as cache, ThreadPoolExecutor(max_workers=10) as pool:
        for line in pool.map(lambda number: work(cache, number), range(10)):
            print(line)
        print(f"{cache.stats()['connections']} connection(s)")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost")
