"""The peers that run inside a Python worker, one module each.

A peer is named by its module and a number of connections, such as asyncpg4.

A peer module has:

    asyncio_client(port, connections)  async context manager: an object with the awaitables
                                       fetch(sql, key), execute(sql, key, note), transact(key)
    sync_client(port, connections)     context manager: the same, blocking
    version()                          what was measured
    stats()                            optional: counters of the peer's own, shown per request

Each is set up as its own documentation advises for that many connections. One of the two clients
may be absent.
"""
