"""The peers that run inside a Python worker, one module each.

A peer module has:

    asyncio_client(port, callers)   asynchronous context manager: an object whose `get(key)` can be awaited
    sync_client(port, callers)      context manager: an object whose `get(key)` blocks
    key(text)                       the key in the form that costs the peer least
    version()                       what was measured
    stats()                         optional: counters of the peer's own, shown per request

Each is set up as its own documentation advises for that many callers. One of the two clients may be absent.
"""
