"""Where requests of HTTP go, and where their answers lead: origins, targets, redirects, and the
clients for other origins.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import quote, unquote, urljoin, urlsplit

from iokernel.errors import Closed
from iokernel.http import Head, RedirectError

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port."""

OTHERS_MAX = 16
"""Services that redirects led to, and that a client keeps connections to while nobody uses them."""
PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
"""RFC 9110, 15.4."""


def origin_of(url: str) -> Origin:
    """Give the origin of a URL, that of a service too."""
    parts = urlsplit(url)
    scheme, _, via = parts.scheme.partition("+")
    host = "localhost" if via else parts.hostname or ""
    return scheme, host, (None if via else parts.port) or PORTS.get(scheme, 0)


def base_of(origin: Origin) -> str:
    """Give the URL of an origin, without a path."""
    scheme, host, port = origin
    place = f"[{host}]" if ":" in host else host
    return f"{scheme}://{place}" + ("" if port == PORTS[scheme] else f":{port}")


def place_of(origin: Origin, target: str) -> str:
    """Give the URL of a target there. It is no reference: ``//host`` is a path."""
    if target.startswith("/"):
        return base_of(origin) + target
    if "://" in target:
        if origin_of(target) != origin:
            raise ValueError("the target is of another place than the service")
        return target
    return base_of(origin)


def refuse(head: Head, why: str) -> RedirectError:
    """Make the error for a redirect that is not followed."""
    error = RedirectError(f"{why} (the answer is {head.status})", outcome="done")
    error.response = head
    return error


def _with_host(url: str) -> str:
    """Give a URL whose host is as the DNS has it."""
    parts = urlsplit(url)
    host = unquote(parts.hostname or "", errors="strict")
    if host == parts.hostname:
        return url
    if host.isascii():
        raise ValueError("an escaped host")
    host = host.encode("idna").decode()
    return parts._replace(netloc=f"{host}:{parts.port}" if parts.port else host).geturl()


def location(head: Head, url: str) -> str:
    """Give the URL that an answer leads to; none if it does not."""
    to = head.headers.get("location") if head.status in REDIRECTS else None
    if to is None:
        return ""
    to = quote(to.strip().encode("latin-1"), safe="%/:=&?~#+!$,;'@()*[]")
    try:
        whole = _with_host(urljoin(url, to).partition("#")[0])
        scheme, host, port = origin_of(whole)
    except ValueError:
        scheme, host, port = "", "", 0
    if scheme not in PORTS or not host or not port:
        raise refuse(head, "its Location is no http or https URL")
    return whole


class Others:
    """Clients for other origins, made when they are needed and kept; any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Origin, list[Any]] = OrderedDict()  # client, and how many use it
        self._closed = False

    def take(self, origin: Origin, make: Callable[[], Any]) -> Any:
        """Give the client for an origin; it is used until give_back()."""
        with self._lock:
            if self._closed:
                raise Closed("the client is closed", code="IOK_ECLOSED")
            entry = self._kept.pop(origin, None) or [make(), 0]
            self._kept[origin] = entry
            entry[1] += 1
        self._evict()
        return entry[0]

    def hold(self, client: Any) -> None:
        """Use it once more; nothing if it is none of these."""
        self._count(client, 1)

    def give_back(self, client: Any) -> None:
        """Use it no longer."""
        self._count(client, -1)
        self._evict()

    def close(self) -> None:
        """Close them all, and make no more."""
        with self._lock:
            self._closed = True
            kept = [client for client, _ in self._kept.values()]
            self._kept.clear()
        for client in kept:
            client.close()

    def _count(self, client: Any, more: int) -> None:
        with self._lock:
            for entry in self._kept.values():
                if entry[0] is client:
                    entry[1] += more

    def _evict(self) -> None:
        """Close what was used longest ago, but none that is in use."""
        with self._lock:
            idle = [origin for origin, (_, uses) in self._kept.items() if uses == 0]
            excess = max(len(self._kept) - OTHERS_MAX, 0)
            clients = [self._kept.pop(origin)[0] for origin in idle[:excess]]
        for client in clients:
            client.close()
