"""Memory runs out in the binding: each of the first allocations of a GET fails once.

The call ends in its value or in an error of Python's or ours, and the client works afterwards. In a
process of its own, as CPython's hook for failing allocations is for the whole process.
"""

from __future__ import annotations

import pytest
from kit.help import run_program
from kit.servers import RedisServer

pytest.importorskip("_testcapi", reason="this Python was built without its test modules")

SYNC = """
    import sys
    import _testcapi
    import iokernel
    from iokernel.sync import connect

    ended = {"value": 0, "error": 0}
    with connect(sys.argv[1]) as cache:
        cache.set("k", "v" * 1000)
        cache.get("k")
        for n in range(60):
            _testcapi.set_nomemory(n, n + 1)
            try:
                value = cache.get("k")
            except (MemoryError, iokernel.Error):
                value = None
            finally:
                _testcapi.remove_mem_hooks()
            assert value in (None, b"v" * 1000), value
            ended["error" if value is None else "value"] += 1
            assert cache.get("k") == b"v" * 1000
    assert ended["value"] > 0 and ended["error"] > 0, ended
"""

ASYNC = """
    import asyncio
    import sys
    import _testcapi
    import iokernel
    from iokernel.asyncio import connect

    ended = {"value": 0, "error": 0}

    async def main():
        async with connect(sys.argv[1]) as cache:
            await cache.set("k", "v" * 1000)
            await cache.get("k")
            for n in range(60):
                replies = []
                _testcapi.set_nomemory(n, n + 1)
                try:
                    for _ in range(20):  # more than the free lists hold
                        replies.append(cache.get("k"))
                except (MemoryError, iokernel.Error):
                    ended["error"] += 1
                finally:
                    _testcapi.remove_mem_hooks()
                ended["value"] += len(replies)
                for reply in replies:
                    assert await reply == b"v" * 1000
                assert await cache.get("k") == b"v" * 1000

    asyncio.run(main())
    assert ended["value"] > 0 and ended["error"] > 0, ended
"""


@pytest.mark.parametrize("program", [SYNC, ASYNC], ids=["sync", "asyncio"])
def test_each_allocation_fails(shared_redis: RedisServer, program: str) -> None:
    run_program(program, shared_redis.url)
