"""What a server listens on: bound once, by the parent, and inherited by every worker.

Of a TCP address each worker slot has a socket of its own (SO_REUSEPORT), and the system spreads
connections over them; the parent keeps them open, so that connections outlive the change of a
worker. Unix sockets and inherited descriptors are shared by all workers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from dataclasses import dataclass, field
from urllib.parse import quote, urlencode

from iokernel.serve.options import DEFAULT_BIND, Options

BACKLOG = 4096  # as net.core.somaxconn of Linux since 5.4
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # the machine does not have this address
FIRST_PASSED_FD = 3  # of systemd's protocol: see sd_listen_fds(3)


class BindError(Exception):
    """An address cannot be served; the text is for people."""

    def __init__(self, text: str, number: int | None = None) -> None:
        super().__init__(text)
        self.number = number  # of errno


@dataclass
class Address:
    """One --bind: where it is, and its sockets by slot; [0] serves all if it is shared.

    In a worker only its own are left: a socket that somebody holds, and does not accept on, takes
    its part of the connections all the same.
    """

    text: str
    settings: str  # what stands behind its ?
    shared: bool
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    backlog: int = BACKLOG
    path: str | None = None  # of a unix socket that we made

    def of_slot(self, slot: int) -> socket.socket:
        """Give the socket of a worker."""
        return self.sockets[0 if self.shared else slot]

    def open_slot(self, slot: int) -> None:
        """Bind once more, for a further worker."""
        if not self.shared and slot not in self.sockets:
            first = self.sockets[0]
            self.sockets[slot] = _bind_tcp(
                first.family, first.getsockname(), self.text, self.backlog
            )

    def close_slot(self, slot: int) -> None:
        """Let it go, and the connections that wait in it."""
        if not self.shared and slot in self.sockets:
            self.sockets.pop(slot).close()

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

    def open_slot(self, slot: int) -> None:
        """Have a socket of each address for it; BindError, and then of none."""
        try:
            for address in self.addresses:
                address.open_slot(slot)
        except BindError:
            self.close_slot(slot)
            raise

    def keep_slot(self, slot: int) -> None:
        """Let all others go: in the process that is a worker."""
        for address in self.addresses:
            for other in set(address.sockets) - {slot}:
                address.close_slot(other)

    def of_slot(self, slot: int) -> list[str]:
        """Give the listener's URLs for one worker; secret, as the password of keys is in them."""
        password = _password(self.options)
        return [
            listener_url(a.of_slot(slot).fileno(), a.settings, self.options, password)
            for a in self.addresses
        ]

    def close_slot(self, slot: int) -> None:
        """Let a slot go, and the connections that wait in it, unless it is shared."""
        for address in self.addresses:
            address.close_slot(slot)

    def shown(self) -> str:
        """Give all addresses as URLs for people."""
        scheme = "https" if self.options.ssl_certfile else "http"
        return ", ".join(
            a.shown() if a.shown().startswith("unix:") else f"{scheme}://{a.shown()}"
            for a in self.addresses
        )

    def close(self) -> None:
        """Close them, and remove the unix sockets that we made."""
        self.remove()
        _close(self.addresses)

    def remove(self) -> None:
        """Remove only: a listener has taken the descriptors over, and closed them."""
        for address in self.addresses:
            if address.path is not None:
                with contextlib.suppress(OSError):
                    os.unlink(address.path)


def _close(addresses: list[Address]) -> None:
    for address in addresses:
        for s in address.sockets.values():
            s.close()


def _networks(options: Options) -> str:
    """Give the proxies as the listener takes them; over unix sockets it believes everybody."""
    parts = [part.strip() for part in options.forwarded_allow_ips.split(",")]
    if "*" in parts:
        return "0.0.0.0/0,::/0"
    return ",".join(part for part in parts if part and part != "unix:")


def _password(options: Options) -> str | None:
    """Give that of the TLS keys, as its file is now: a new worker finds the new one."""
    path = options.ssl_keyfile_password_file
    if path is None:
        return options.ssl_keyfile_password
    try:
        with open(path, encoding="utf-8") as file:
            password = file.read().removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise BindError(f"--ssl-keyfile-password-file {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise BindError(f"--ssl-keyfile-password-file {path}: is not UTF-8") from None
    if not password or "\n" in password:
        raise BindError(f"--ssl-keyfile-password-file {path}: must have one line")
    return password


def listener_url(fd: int, settings: str, options: Options, password: str | None = None) -> str:
    """Give the URL of a listener on an inherited descriptor."""
    scheme = "https" if options.ssl_certfile else "http"
    given = {
        "fd": str(fd),
        "tls_cert": ",".join(options.ssl_certfile),
        "tls_key": ",".join(options.ssl_keyfile),
        "tls_key_password": password,
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
    return BindError(f"cannot bind {text}: {error.strerror or error}", error.errno)


def _bind_tcp(family: int, where: object, text: str, backlog: int) -> socket.socket:
    try:
        s = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _say(text, error) from None
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind(where)  # type: ignore[arg-type]
        s.listen(backlog)
    except OSError as error:
        s.close()
        raise _say(text, error) from None
    s.setblocking(False)
    return s


def _refuse_taken(family: int, where: object, text: str) -> None:
    """With SO_REUSEPORT alone another server of the same user would share the port unnoticed."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            s.bind(where)  # type: ignore[arg-type]
    except OSError as error:
        raise _say(text, error) from None


def _open_tcp(text: str, given: _Given) -> list[Address]:
    host, colon, port = text.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise BindError(
            f"cannot bind {text}: must be HOST:PORT, PORT, :PORT, unix:PATH or fd://N, "
            "and a port is a number up to 65535"
        )
    if given.mode is not None:
        raise BindError(f"cannot bind {text}: mode= is for unix sockets")
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
    addresses: list[Address] = []
    lacking: BindError | None = None
    for family, _, _, _, where in found:
        if host == "" and family == socket.AF_INET6 and not _has_ipv6():
            continue
        try:
            _refuse_taken(family, where, text)
            first = _bind_tcp(family, where, text, given.backlog)
        except BindError as error:
            if error.number not in NOT_HERE:
                _close(addresses)
                raise
            lacking = error  # a name may have several, and not each is an address of this machine
            continue
        addresses.append(Address(text, given.rest, False, {0: first}, given.backlog))
    if not addresses and lacking is not None:
        raise lacking
    return addresses


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as s:
            s.bind(("::", 0))
    except OSError:
        return False
    return True


def _open_unix(path: str, text: str, given: _Given) -> socket.socket:
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
        if given.mode is not None:
            os.chmod(path, given.mode)  # before anybody can connect
        s.listen(given.backlog)
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


def _adopt(fd: int, text: str, given: _Given) -> socket.socket:
    if given.mode is not None:
        raise BindError(f"cannot serve {text}: mode= is for unix sockets that are made here")
    try:
        s = socket.socket(fileno=os.dup(fd))
    except OSError as error:
        raise _say(text, error) from None
    if s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 0:
        s.close()
        raise BindError(f"cannot serve {text}: descriptor {fd} is no listening socket")
    if given.has_backlog:
        s.listen(given.backlog)
    s.setblocking(False)
    return s


@dataclass
class _Given:
    """What stands behind an address's ?: for us, as we bind, and the rest for the listener."""

    backlog: int = BACKLOG
    has_backlog: bool = False
    mode: int | None = None
    rest: str = ""


def _read_settings(where: str, settings: str) -> _Given:
    given = _Given()
    rest = []
    for setting in settings.split("&") if settings else []:
        name, _, value = setting.partition("=")
        if name in ("fd", "reuse_port"):
            raise BindError(
                f"cannot bind {where}: {name}= has no meaning here, where each is bound"
            )
        if name == "backlog":
            if not value.isascii() or not value.isdigit() or not 1 <= int(value) <= 65535:
                raise BindError(f"cannot bind {where}: backlog= must be from 1 to 65535")
            given.backlog, given.has_backlog = int(value), True
        elif name == "mode":
            if not 1 <= len(value) <= 4 or not set(value) <= set("01234567"):
                raise BindError(f"cannot bind {where}: mode= must be octal, such as 0660")
            given.mode = int(value, 8)
        else:
            rest.append(setting)
    given.rest = "&".join(rest)
    return given


def _open(text: str) -> list[Address]:
    where, _, settings = text.partition("?")
    given = _read_settings(where, settings)
    if where.startswith("unix:"):
        first = _open_unix(where[5:], where, given)
        return [Address(where, given.rest, True, {0: first}, path=os.path.abspath(where[5:]))]
    if where.startswith("fd://"):
        if not where[5:].isdecimal():
            raise BindError(f"cannot serve {where}: a number must stand behind fd://")
        return [Address(where, given.rest, True, {0: _adopt(int(where[5:]), where, given)})]
    return _open_tcp(where, given)


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
            bound.open_slot(slot)
    except BindError:
        bound.close()
        raise
    return bound
