"""Requests of HTTP, step by step, for plain threads and asyncio alike: what they are made of, and
where their answers lead.

A step yields what a request gave and gets its answer: on threads that is the answer itself, on
asyncio an awaitable.
"""

from __future__ import annotations

import json as json_module
import time
from collections.abc import Callable, Generator, Mapping
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar
from urllib.parse import urlsplit

from iokernel import _core
from iokernel.bodies import is_whole, length, position, rewind
from iokernel.errors import Timeout, URLError
from iokernel.http import Head, Response, UpgradeError
from iokernel.http_coding import ACCEPTED
from iokernel.http_cookies import cookies_for, keep_cookies
from iokernel.http_forms import Pairs, encode, form, pairs
from iokernel.http_places import Origin, Others, base_of, location, origin_of, place_of, refuse

T = TypeVar("T", bound=Head)
Steps: TypeAlias = Generator[Any, Any, T]

USER_AGENT = f"iokernel/{_core.version}"
USUAL = (None, "user-agent", USER_AGENT, "accept-encoding", ACCEPTED)
OF_BODIES = ("content-", "expect", "transfer-encoding")
SECRETS = ("authorization", "cookie", "proxy-authorization", "host")
OF_HOSTS = "tls_"
"""Options of a URL that begin so are for its own host, and not for others."""


class RequestOptions(TypedDict, total=False):
    """What a request may say by keyword."""

    params: Pairs | None
    headers: Pairs | None
    body: Any
    json: Any
    data: Pairs | None
    files: Pairs | None
    expect: bool
    cookies: CookieJar | Mapping[str, str] | None
    redirects: int | None
    downgrades: bool | None
    compression: bool | None
    timeout: float | None
    repeatable: bool | None


class Request:
    """What goes out; a redirect makes another of it."""

    __slots__ = (
        "body",
        "compression",
        "deadline",
        "downgrades",
        "expect",
        "fields",
        "jar",
        "method",
        "redirects",
        "repeatable",
        "start",
        "target",
        "timeout",
    )

    def __init__(
        self,
        client: HttpSteps,
        method: str,
        target: str,
        *,
        params: Pairs | None = None,
        headers: Pairs | None = None,
        body: Any = None,
        json: Any = None,
        data: Pairs | None = None,
        files: Pairs | None = None,
        expect: bool = False,
        cookies: CookieJar | Mapping[str, str] | None = None,
        redirects: int | None = None,
        downgrades: bool | None = None,
        compression: bool | None = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.expect = expect
        self.timeout = timeout
        self.repeatable = repeatable
        self.redirects = client.redirects if redirects is None else redirects
        self.downgrades = client.downgrades if downgrades is None else downgrades
        self.deadline: float | None = None
        self.compression = client.compression if compression is None else compression
        self.jar = client.cookies if cookies is None else None
        self.fields: list[tuple[str, Any]] = list(pairs(headers or ()))
        if params is not None:
            query = encode(params)
            self.target += ("&" if "?" in target else "?") + query if query else ""
        if cookies is not None:
            self._take_cookies(cookies)
        self.body = self._take_body(body, json, data, files)
        if expect and self.body is None:
            raise TypeError("expect= is for a request that has a body")
        self.start = position(self.body) if self.redirects else None
        self._default("user-agent", USER_AGENT)
        if self.compression:
            self._default("accept-encoding", ACCEPTED)

    def _names(self) -> set[str]:
        return {name.lower() for name, _ in self.fields}

    def _default(self, name: str, value: str) -> None:
        if name not in self._names():
            self.fields.append((name, value))

    def _take_cookies(self, cookies: CookieJar | Mapping[str, str]) -> None:
        if isinstance(cookies, CookieJar):
            self.jar = cookies
            return
        if any(set(" ;,\r\n") & set(name + value) for name, value in cookies.items()):
            raise ValueError("a cookie with a blank, a comma, a semicolon or a line break")
        if cookies:
            text = "; ".join(f"{name}={value}" for name, value in cookies.items())
            self.fields.append(("cookie", text))

    def _take_body(self, body: Any, json: Any, data: Pairs | None, files: Pairs | None) -> Any:
        is_form = data is not None or files is not None
        if (body is not None) + (json is not None) + is_form > 1:
            raise TypeError("a request has one of body=, json=, and data= with files=, not both")
        if json is not None:
            body = json_module.dumps(json, separators=(",", ":"))
            self._default("content-type", "application/json")
        elif is_form:
            body, kind = form(data, files)
            self._default("content-type", kind)
        return body

    def arguments(self, cookie: str = "") -> tuple[list[Any], Any]:
        """Give the arguments of ``call()``; and the body, where it goes in parts."""
        fields = [part for field in self.fields for part in field]
        if cookie:
            fields += ("cookie", cookie)
        if not self.expect and is_whole(self.body):
            return [self.method, self.target, self.body, *fields], None
        size = length(self.body)
        if size is not None and "content-length" not in self._names():
            fields += ("content-length", size)
        if self.expect:
            fields += ("expect", "100-continue")
        return [self.method, self.target, None, *fields], self.body

    def cookie(self, url: str) -> str:
        """Give the cookies for it, at this place."""
        return "" if self.jar is None or "cookie" in self._names() else cookies_for(self.jar, url)

    def begin(self, usual: float) -> None:
        """Note that it is sent now, for the first time; usual: the timeout where it has none."""
        seconds = usual if self.timeout is None else self.timeout
        if seconds > 0:  # else the call says what is wrong
            self.deadline = time.monotonic() + seconds

    def left(self) -> float | None:
        """Give what is left of its timeout, for another answer; None: it has only begun."""
        if self.deadline is None:
            return self.timeout
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Timeout(
                "no answer in time, after redirects", code="IOK_ETIMEOUT", outcome="maybe-executed"
            )
        return left

    def drop(self, *beginnings: str) -> None:
        """Drop the fields whose names begin so."""
        self.fields = [f for f in self.fields if not f[0].lower().startswith(beginnings)]

    def redirect(self, head: Head, url: str, moves: bool) -> None:
        """Become what follows after this answer; moves: at another host."""
        parts = urlsplit(url)
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        # RFC 9110, 15.4: a GET follows a 303, and by long custom a POST's 301 and 302.
        by_custom = head.status in (301, 302) and self.method == "POST"
        if (head.status == 303 and self.method != "HEAD") or by_custom:
            self.method, self.body, self.expect, self.repeatable = "GET", None, False, None
            self.drop(*OF_BODIES)
        elif self.start is None:
            raise refuse(head, "a body that can be read only once cannot follow a redirect")
        else:
            rewind(self.body, self.start)
        if moves:
            self.drop(*SECRETS)


class HttpSteps:
    """What clients of both kinds have: options for all their requests, and redirects."""

    __slots__ = ()

    if TYPE_CHECKING:
        cookies: CookieJar | None
        redirects: int
        downgrades: bool
        compression: bool
        url: str
        timeout: float
        max_reply: int
        _others: Others

    def _usual(self) -> tuple[Any, ...] | None:
        """Give what follows a target without a body or options; None if it is not that simple."""
        if self.cookies is not None or self.redirects:
            return None
        return USUAL if self.compression else USUAL[:3]

    def _at(self, origin: Origin) -> Any:
        """Give the client for another place, with this one's options and kernel. It is to be given
        back to _others.
        """
        if origin == origin_of(self.url):
            return self

        def make() -> Any:
            options = urlsplit(self.url).query.split("&")
            lasting = [option for option in options if option and not option.startswith(OF_HOSTS)]
            return self._make(base_of(origin) + ("?" + "&".join(lasting) if lasting else ""))

        return self._others.take(origin, make)

    def _make(self, url: str) -> Any:
        raise NotImplementedError

    def _upgrade(self, request: Request, protocol: str) -> list[Any]:
        """Give the arguments of ``call()`` for a request that asks for another protocol."""
        request.fields.append(("upgrade", protocol))
        args, _ = request.arguments(request.cookie(place_of(origin_of(self.url), request.target)))
        return args

    def _upgraded(self, stream: _core.Stream, request: Request, protocol: str) -> Steps[Any]:
        """Give the head of the answer that says yes, or raise another one."""
        parts: list[Any] = yield stream.next()
        head = Head(parts)
        if request.jar is not None:
            keep_cookies(request.jar, head, place_of(origin_of(self.url), request.target))
        if head.status == 101 and head.headers.get("upgrade", "").lower() == protocol.lower():
            return head
        body: list[bytes] = []
        part = b"" if head.status != 101 else None
        while part is not None and sum(map(len, body)) <= self.max_reply:
            body.append(part)
            part = yield stream.next()
        error = UpgradeError(
            f"the server answers {head.status}, and not that it goes on with {protocol}",
            outcome="done",
        )
        error.response = Response([*parts, b"".join(body), stream.result or []], self.max_reply)
        raise error

    def _follow(self, request: Request, send: Callable[[Any, list[Any], Any], Any]) -> Steps[Any]:
        """Send a request by ``send(client, arguments, body)``, and follow where answers lead."""
        client: Any = self
        origin = origin_of(self.url)
        url = place_of(origin, request.target)
        history: tuple[Head, ...] = ()
        request.begin(self.timeout)
        while True:
            try:
                head: Head = yield send(client, *request.arguments(request.cookie(url)))
            finally:
                self._others.give_back(client)
            head.url, head.history = url, history
            if request.jar is not None:
                keep_cookies(request.jar, head, url)
            to = location(head, url) if request.redirects else ""
            if not to:
                return head
            if len(history) >= request.redirects:
                raise refuse(head, f"more than redirects={request.redirects} redirects")
            there = origin_of(to)
            if (origin[0], there[0]) == ("https", "http") and not request.downgrades:
                raise refuse(head, "it leads from https to http, and downgrades=True is not set")
            request.redirect(head, to, there != origin)
            history += (head,)
            try:
                client, origin, url = self._at(there), there, to
            except URLError as error:
                raise refuse(head, f"its Location cannot be used: {error}") from None
