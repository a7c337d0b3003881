"""The peers that run inside a Python worker, one module each.

A peer module has:

    asyncio_client(port, callers)  async context manager: an object with an awaitable get(key)
    sync_client(port, callers)     context manager: an object with a blocking get(key)
    key(text)                      the key in the form that users give it
    version()                      what was measured
    stats()                        optional: counters of the peer's own, shown per request

Each is set up as its own documentation advises for that many callers. One of the two clients may
be absent.
"""
