"""The servers that are compared, one module each.

A peer module has:

    MODULES                           what must be importable for it
    asgi(app, port, threads) -> list  its command line for an ASGI application, or wsgi(...)
    version()                         what was measured

Each is set up with one worker process, and else as its own documentation advises for speed: the
fastest loop and parser that it knows, no access log. threads is for WSGI.
"""
