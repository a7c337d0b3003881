"""What a server listens on: bound once, by the parent, and inherited by every worker.

Of a TCP address each worker slot has a socket of its own (SO_REUSEPORT), and the system spreads
connections over them; the parent keeps them open, so that connections outlive the change of a
worker. Unix sockets and inherited descriptors are shared by all workers.
"""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from iokernel.serve.options import DEFAULT_BIND, Options

BACKLOG = 4096  # as net.core.somaxconn of Linux since 5.4
FIRST_PASSED_FD = 3  # of systemd's protocol: see sd_listen_fds(3)


class BindError(Exception):
    """An address cannot be served; the text is for people."""


@dataclass
class Address:
    """One --bind: where it is, and its sockets by slot; [0] serves all if it is shared."""

    text: str
    settings: str  # what stands behind its ?
    shared: bool
    sockets: list[socket.socket] = field(default_factory=list)

    def of_slot(self, slot: int) -> socket.socket:
        """Give the socket of a worker."""
        if self.shared:
            return self.sockets[0]
        while len(self.sockets) <= slot:  # a worker more than at the start
            first = self.sockets[0]
            self.sockets.append(_bind_tcp(first.family, first.getsockname(), self.text))
        return self.sockets[slot]

    def shown(self) -> str:
        """Give what a client would connect to."""
        first = self.sockets[0]
        if first.family == socket.AF_UNIX:
            return f"unix:{first.getsockname()}"
        host, port = first.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass
class Bound:
    """All addresses."""

    addresses: list[Address]
    options: Options

    def of_slot(self, slot: int) -> list[str]:
        """Give the listener's URLs for one worker."""
        return [
            listener_url(a.of_slot(slot).fileno(), a.settings, self.options) for a in self.addresses
        ]

    def close_slot(self, slot: int) -> None:
        """Let a slot go, and the connections that wait in it, unless it is shared."""
        for address in self.addresses:
            if not address.shared and slot == len(address.sockets) - 1 > 0:
                address.sockets.pop().close()

    def shown(self) -> str:
        """Give all addresses as URLs for people."""
        scheme = "https" if self.options.ssl_certfile else "http"
        return ", ".join(
            a.shown() if a.shown().startswith("unix:") else f"{scheme}://{a.shown()}"
            for a in self.addresses
        )

    def close(self) -> None:
        """Close them, and remove the unix sockets that we made."""
        for address in self.addresses:
            first = address.sockets[0]
            if address.text.startswith("unix:"):
                with contextlib.suppress(OSError):
                    os.unlink(first.getsockname())
            for s in address.sockets:
                s.close()


def _networks(options: Options) -> str:
    """Give the proxies as the listener takes them; over unix sockets it believes everybody."""
    parts = [part.strip() for part in options.forwarded_allow_ips.split(",")]
    if "*" in parts:
        return "0.0.0.0/0,::/0"
    return ",".join(part for part in parts if part and part != "unix:")


def listener_url(fd: int, settings: str, options: Options) -> str:
    """Give the URL of a listener on an inherited descriptor."""
    scheme = "https" if options.ssl_certfile else "http"
    given = {
        "fd": str(fd),
        "tls_cert": options.ssl_certfile,
        "tls_key": options.ssl_keyfile,
        "tls_ca": options.ssl_ca_certs,
        "health": options.health,
        "proxy": "yes" if options.proxy_protocol else None,
        "proxy_from": _networks(options) if options.proxy_protocol else None,
    }
    query = urlencode(
        {name: value for name, value in given.items() if value}, safe="/:*,", quote_via=quote
    )
    return f"{scheme}:?{query}" + (f"&{settings}" if settings else "")


def _say(text: str, error: OSError) -> BindError:
    return BindError(f"cannot bind {text}: {error.strerror or error}")


def _bind_tcp(family: int, where: object, text: str) -> socket.socket:
    s = socket.socket(family, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(where)  # type: ignore[arg-type]
        s.listen(BACKLOG)
    except OSError as error:
        s.close()
        raise _say(text, error) from None
    s.setblocking(False)
    return s


def _refuse_taken(family: int, where: object, text: str) -> None:
    """With SO_REUSEPORT alone another server of the same user would share the port unnoticed."""
    with socket.socket(family, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            s.bind(where)  # type: ignore[arg-type]
        except OSError as error:
            raise _say(text, error) from None


def _open_tcp(text: str, settings: str) -> list[Address]:
    host, colon, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BindError(
            f"cannot bind {text}: must be HOST:PORT, PORT, :PORT, unix:PATH or fd://N, "
            "and a port is a number up to 65535"
        )
    if not colon:
        host = "127.0.0.1"
    host = host.removeprefix("[").removesuffix("]")
    try:
        found = socket.getaddrinfo(
            host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise BindError(
            f"cannot bind {text}: {host!r} is no address here: {error.strerror}"
        ) from None
    addresses = []
    for family, _, _, _, where in found:
        if host == "" and family == socket.AF_INET6 and not _has_ipv6():
            continue
        _refuse_taken(family, where, text)
        addresses.append(Address(text, settings, False, [_bind_tcp(family, where, text)]))
    return addresses


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::", 0))
    except OSError:
        return False
    return True


def _open_unix(path: str, text: str) -> socket.socket:
    if not path:
        raise BindError(f"cannot bind {text}: a path must stand behind unix:")
    try:
        if stat.S_ISSOCK(os.stat(path).st_mode):
            _remove_dead(path, text)
    except FileNotFoundError:
        pass
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        s.bind(path)
        s.listen(BACKLOG)
    except OSError as error:
        s.close()
        raise _say(text, error) from None
    s.setblocking(False)
    return s


def _remove_dead(path: str, text: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as s:
        try:
            s.connect(path)
        except OSError:
            os.unlink(path)  # its server has gone
            return
    raise BindError(f"cannot bind {text}: another server listens there")


def _adopt(fd: int, text: str) -> socket.socket:
    try:
        s = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise _say(text, error) from None
    if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
        s.close()
        raise BindError(f"cannot serve {text}: descriptor {fd} is no listening socket")
    s.setblocking(False)
    return s


def _open(text: str) -> list[Address]:
    where, _, settings = text.partition("?")
    if where.startswith("unix:"):
        return [Address(where, settings, True, [_open_unix(where[5:], where)])]
    if where.startswith("fd://"):
        if not where[5:].isdecimal():
            raise BindError(f"cannot serve {where}: a number must stand behind fd://")
        return [Address(where, settings, True, [_adopt(int(where[5:]), where)])]
    return _open_tcp(where, settings)


def passed_by_systemd() -> list[str]:
    """Give the descriptors of socket activation, as addresses."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS") or 0)
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    return [f"fd://{FIRST_PASSED_FD + n}" for n in range(count)]


def bind_all(options: Options) -> Bound:
    """Bind what was asked for; BindError if one of it cannot be."""
    texts = options.bind or passed_by_systemd() or [DEFAULT_BIND]
    bound = Bound([], options)
    try:
        for text in texts:
            bound.addresses += _open(text)
        for slot in range(options.workers):
            bound.of_slot(slot)
    except BindError:
        bound.close()
        raise
    return bound
