"""Many asyncio tasks on one connection: `python examples/tasks.py [url]`."""

import asyncio
import sys
import time

import iokernel
from iokernel.asyncio import Redis, connect


async def visit(cache: Redis, number: int) -> int:
    await cache.set(f"visitor:{number}", number, ex=60)
    return await cache.incr("visits")


async def main(url: str) -> None:
    async with connect(url) as cache:
        try:
            await cache.ready(timeout=2)
        except iokernel.Error as error:
            sys.exit(f"not usable: {error}")

        began = time.perf_counter()
        # Nothing to configure: what many tasks ask for at once goes out together.
        visits = await asyncio.gather(*(visit(cache, number) for number in range(1000)))
        took = time.perf_counter() - began
        stats = cache.stats()
        print(f"2000 calls in {took * 1e3:.1f} ms over {stats['connections']} connection(s)")
        print(f"the counter stands at {max(visits)}")

        # Commands that must not mix with those of others get a connection of their own.
        async with cache.transaction() as transaction:
            transaction.get("visits")
            transaction.delete("visits")
        print("transaction:", transaction.results)

        try:
            await cache.call("INCRBY", "visitor:1", "many")
        except iokernel.ReplyError as error:
            print("the server says:", error)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "redis://localhost"))
