"""Who asked, and how, as proxies tell it: X-Forwarded-For and -Proto, or Forwarded (RFC 7239).

They are believed only from the proxies that --forwarded-allow-ips names. Of a list of addresses the
last that is no such proxy is the client: those before it are whatever the client liked to send.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

KEPT = 4096  # answers that are kept: a service has few proxies

Client = tuple[str, int]


class Trust:
    """Called with what a request says; gives (client or None, scheme or None)."""

    def __init__(self, text: str) -> None:
        """Take addresses, networks (10.0.0.0/8), "unix:" for unix sockets, or * for all."""
        self._all = False
        self._unix = False
        self._networks: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
        for part in filter(None, map(str.strip, text.split(","))):
            if part == "*":
                self._all = True
            elif part == "unix:":
                self._unix = True
            else:
                self._networks.append(ipaddress.ip_network(part))
        self.trusts = lru_cache(KEPT)(self._trusts)

    def _trusts(self, host: str) -> bool:
        if self._all:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self._networks)

    def __call__(
        self, peer: str | None, forwarded_for: str, proto: str, forwarded: str
    ) -> tuple[Client | None, str | None]:
        """Give what is to be believed; peer is None for a unix socket, "unknown" if nobody says."""
        if not (self._all or (self._unix if peer is None else self.trusts(peer))):
            return None, None
        if not (forwarded_for or proto):
            hops = _read_forwarded(forwarded)
            client = self._client([hop.get("for", "") for hop in hops])
            scheme = hops[-1].get("proto", "") if hops else ""
        else:
            client = self._client(forwarded_for.split(","))
            scheme = proto.rpartition(",")[2]
        scheme = scheme.strip().lower()
        return client, scheme if scheme in ("http", "https") else None

    def _client(self, hops: list[str]) -> Client | None:
        found = None
        for hop in reversed(hops):
            address = _read_address(hop.strip())
            if address is None:
                break
            found = address
            if not self.trusts(address[0]):
                break
        return found


def _read_address(text: str) -> Client | None:
    """Read an address with or without a port; None for "unknown" and the like."""
    host, port = text, ""
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return None
    return host, int(port) if port.isascii() and port.isdigit() and int(port) < 65536 else 0


def _read_forwarded(text: str) -> list[dict[str, str]]:
    """Read the hops; what is quoted has no comma or semicolon in it that matters here."""
    return [
        {
            name.strip().lower(): value.strip().strip('"')
            for name, _, value in (pair.partition("=") for pair in hop.split(";"))
        }
        for hop in filter(None, map(str.strip, text.split(",")))
    ]
