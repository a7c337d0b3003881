"""Cookies, in a CookieJar of http.cookiejar, with bounds that it does not have itself."""

from __future__ import annotations

import threading
from email.message import Message
from http.cookiejar import Cookie, CookieJar
from urllib.request import Request as JarRequest
from weakref import WeakKeyDictionary

from iokernel.http import Head

# RFC 6265, 6.1: what clients should be able to keep at least, and hardly keep more.
COOKIE_BYTES_MAX = 4096
DOMAIN_COOKIES_MAX = 50
COOKIES_MAX = 3000
LOOK_EVERY = 50
"""Cookies after which a jar is looked through: so many more than its bounds it may have."""

_added: WeakKeyDictionary[CookieJar, int] = WeakKeyDictionary()
"""Since it was last looked through."""
_lock = threading.Lock()
"""A jar may belong to several clients, and be looked through while another one adds to it."""


class _Answer:
    """What http.cookiejar asks of a response."""

    def __init__(self, head: Head) -> None:
        self._message = Message()
        for value in head.headers.get_all("set-cookie"):
            self._message["Set-Cookie"] = value

    def info(self) -> Message:
        return self._message


def cookies_for(jar: CookieJar, url: str) -> str:
    """Give the cookies that belong into a request."""
    asked = JarRequest(url)
    with _lock:
        jar.add_cookie_header(asked)
    return asked.get_header("Cookie") or ""


def keep_cookies(jar: CookieJar, head: Head, url: str) -> None:
    """Put the cookies of an answer into the jar; the oldest go if they are too many."""
    if "set-cookie" not in head.headers:
        return
    asked = JarRequest(url)
    with _lock:
        added = _added.get(jar, 0)
        for cookie in jar.make_cookies(_Answer(head), asked):  # type: ignore[arg-type]
            if len(cookie.name) + len(cookie.value or "") <= COOKIE_BYTES_MAX:
                jar.set_cookie_if_ok(cookie, asked)
                added += 1
        _added[jar] = added % LOOK_EVERY
        if added >= LOOK_EVERY:
            _keep_bounds(jar)


def _keep_bounds(jar: CookieJar) -> None:
    jar.clear_expired_cookies()
    domains: dict[str, list[Cookie]] = {}
    for cookie in jar:  # oldest first
        domains.setdefault(cookie.domain, []).append(cookie)
    excess = [one for same in domains.values() for one in same[:-DOMAIN_COOKIES_MAX]]
    left = [one for same in domains.values() for one in same[-DOMAIN_COOKIES_MAX:]]
    for cookie in excess + left[: max(len(left) - COOKIES_MAX, 0)]:
        jar.clear(cookie.domain, cookie.path, cookie.name)
