"""Which of the things that requests say of their clients are believed."""

from __future__ import annotations

import pytest
from iokernel.serve.forwarded import Client, Trust

PROXIES = Trust("127.0.0.1, 10.0.0.0/8,::1")


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "proto", "client", "scheme"),
    [
        ("127.0.0.1", "1.2.3.4", "https", ("1.2.3.4", 0), "https"),
        ("10.9.9.9", "6.6.6.6, 1.2.3.4", "", ("1.2.3.4", 0), None),  # the first is the client's own
        ("10.9.9.9", "1.2.3.4, 10.1.1.1,127.0.0.1", "HTTP", ("1.2.3.4", 0), "http"),
        ("::1", "10.0.0.2, 10.0.0.1", "https, http", ("10.0.0.2", 0), "http"),
        ("127.0.0.1", "1.2.3.4:5678", "ftp", ("1.2.3.4", 5678), None),
        ("127.0.0.1", "[2001:db8::1]:80", "", ("2001:db8::1", 80), None),
        ("127.0.0.1", "2001:db8::1", "", ("2001:db8::1", 0), None),
        ("127.0.0.1", "6.6.6.6, unknown", "", None, None),
        ("127.0.0.1", "6.6.6.6, unknown, 10.0.0.1", "", ("10.0.0.1", 0), None),
        ("127.0.0.1", "", "", None, None),
        ("11.0.0.1", "1.2.3.4", "https", None, None),
        (None, "1.2.3.4", "https", None, None),
    ],
)
def test_x_forwarded(
    peer: str | None, forwarded_for: str, proto: str, client: Client | None, scheme: str | None
) -> None:
    assert PROXIES(peer, forwarded_for, proto, "") == (client, scheme)


@pytest.mark.parametrize(
    ("text", "client", "scheme"),
    [
        ("for=1.2.3.4;proto=https;by=10.0.0.1", ("1.2.3.4", 0), "https"),
        ('For="[2001:db8::1]:4711"', ("2001:db8::1", 4711), None),
        ("for=6.6.6.6, for=1.2.3.4; proto=http, for=10.0.0.1;proto=https", ("1.2.3.4", 0), "https"),
        ("for=_hidden", None, None),
        (";;=,", None, None),
    ],
)
def test_forwarded(text: str, client: Client | None, scheme: str | None) -> None:
    assert PROXIES("127.0.0.1", "", "", text) == (client, scheme)


def test_x_forwarded_goes_before_forwarded() -> None:
    assert PROXIES("::1", "1.2.3.4", "", "for=6.6.6.6;proto=https") == (("1.2.3.4", 0), None)


def test_all_and_none() -> None:
    assert Trust("*")(None, "1.2.3.4, 5.6.7.8", "https", "") == (("1.2.3.4", 0), "https")
    assert Trust("unix:")(None, "1.2.3.4", "", "") == (("1.2.3.4", 0), None)
    assert Trust("")("127.0.0.1", "1.2.3.4", "https", "") == (None, None)
    with pytest.raises(ValueError, match="10.0.0.1/8 has host bits set"):
        Trust("10.0.0.1/8")
