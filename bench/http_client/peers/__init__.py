"""The peers that run inside a Python worker, one module each.

A peer module has:

    asyncio_client(port, callers)  async context manager: an awaitable get() that gives the size of
                                   the answer's body
    sync_client(port, callers)     context manager: the same, blocking
    call_all(port, state, size)    instead of the first: all callers' requests, in one thread
    version()                      what was measured
    stats()                        optional: counters of the peer's own, shown per request

Each is set up as its own documentation advises for that many callers.
"""
