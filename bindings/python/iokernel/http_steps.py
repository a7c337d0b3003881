"""Requests of HTTP, step by step, for plain threads and asyncio alike: what they are made of, and
where their answers lead.

A step yields what a request gave and gets its answer: on threads that is the answer itself, on
asyncio an awaitable.
"""

from __future__ import annotations

import json as json_module
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from email.message import Message
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, TypeVar
from urllib.parse import quote, urlencode, urljoin, urlsplit
from urllib.request import Request as JarRequest

from iokernel import _core
from iokernel.bodies import is_whole, length, position, rewind
from iokernel.http import Head, RedirectError, Response, UpgradeError
from iokernel.http_coding import ACCEPTED
from iokernel.http_forms import Pairs, form, pairs

T = TypeVar("T", bound=Head)
Steps: TypeAlias = Generator[Any, Any, T]

USER_AGENT = f"iokernel/{_core.version}"
USUAL = (None, "user-agent", USER_AGENT, "accept-encoding", ACCEPTED)
OTHERS_MAX = 16
"""Services that redirects led to, and that a client keeps connections to."""
PORTS = {"http": 80, "https": 443}

# RFC 9110, 15.4. What follows a 303, and by long custom a POST's 301 and 302, is a GET.
REDIRECTS = (301, 302, 303, 307, 308)
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
    compression: bool | None
    timeout: float | None
    repeatable: bool | None


class Request:
    """What goes out; a redirect makes another of it."""

    __slots__ = (
        "body",
        "compression",
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
        self.compression = client.compression if compression is None else compression
        self.jar = client.cookies if cookies is None else None
        self.fields: list[tuple[str, Any]] = list(pairs(headers or ()))
        if params is not None:
            query = urlencode(list(pairs(params)), doseq=True)
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

    def drop(self, *beginnings: str) -> None:
        """Drop the fields whose names begin so."""
        self.fields = [f for f in self.fields if not f[0].lower().startswith(beginnings)]

    def redirect(self, head: Head, url: str, moves: bool) -> None:
        """Become what follows after this answer; moves: at another host."""
        parts = urlsplit(url)
        self.target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
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


def refuse(head: Head, why: str) -> RedirectError:
    """Make the error for a redirect that is not followed."""
    error = RedirectError(f"{why} (the answer is {head.status})", outcome="done")
    error.response = head
    return error


# ---- cookies ------------------------------------------------------------------------------------


class _Cookies:
    """What http.cookiejar asks of a response."""

    def __init__(self, head: Head) -> None:
        self._message = Message()
        for value in head.headers.get_all("set-cookie"):
            self._message["Set-Cookie"] = value

    def info(self) -> Message:
        return self._message


def cookies_for(jar: CookieJar, request: Request, url: str) -> str:
    """Give the cookies that belong into a request."""
    if "cookie" in request._names():
        return ""
    asked = JarRequest(url)
    jar.add_cookie_header(asked)
    return asked.get_header("Cookie") or ""


def keep_cookies(jar: CookieJar, head: Head, url: str) -> None:
    """Put the cookies of an answer into the jar."""
    if "set-cookie" in head.headers:
        jar.extract_cookies(_Cookies(head), JarRequest(url))  # type: ignore[arg-type]


# ---- where answers lead -------------------------------------------------------------------------


def _origin(url: str) -> tuple[str, str, int]:
    parts = urlsplit(url)
    scheme, _, via = parts.scheme.partition("+")
    host = "localhost" if via else parts.hostname or ""
    return scheme, host, (None if via else parts.port) or PORTS.get(scheme, 0)


def _base(origin: tuple[str, str, int]) -> str:
    scheme, host, port = origin
    place = f"[{host}]" if ":" in host else host
    return f"{scheme}://{place}" + ("" if port == PORTS[scheme] else f":{port}")


def location(head: Head, url: str) -> str:
    """Give the URL that an answer leads to; none if it does not."""
    to = head.headers.get("location") if head.status in REDIRECTS else None
    if to is None:
        return ""
    to = quote(to.strip().encode("latin-1"), safe="%/:=&?~#+!$,;'@()*[]")
    try:
        whole = urljoin(url, to).partition("#")[0]
        scheme, host, port = _origin(whole)
    except ValueError:
        scheme, host, port = "", "", 0
    if scheme not in PORTS or not host or not port:
        raise refuse(head, "its Location is no http or https URL")
    return whole


class HttpSteps:
    """What clients of both kinds have: options for all their requests, and redirects."""

    __slots__ = ()

    if TYPE_CHECKING:
        cookies: CookieJar | None
        redirects: int
        compression: bool
        url: str
        max_reply: int
        _others: OrderedDict[tuple[str, str, int], Any]

    def _usual(self) -> tuple[Any, ...] | None:
        """Give what follows a target without a body or options; None if it is not that simple."""
        if self.cookies is not None or self.redirects:
            return None
        return USUAL if self.compression else USUAL[:3]

    def _close_others(self) -> None:
        while self._others:
            self._others.popitem()[1].close()

    def _at(self, origin: tuple[str, str, int]) -> Any:
        """Give the client for another place; it has this one's options, and the same kernel."""
        if origin == _origin(self.url):
            return self
        other = self._others.pop(origin, None)
        if other is None:
            options = urlsplit(self.url).query.split("&")
            lasting = [option for option in options if option and not option.startswith(OF_HOSTS)]
            url = _base(origin) + ("?" + "&".join(lasting) if lasting else "")
            other = self._make(url)
        self._others[origin] = other
        while len(self._others) > OTHERS_MAX:
            self._others.popitem(last=False)[1].close()
        return other

    def _make(self, url: str) -> Any:
        raise NotImplementedError

    def _upgrade(self, request: Request, protocol: str) -> list[Any]:
        """Give the arguments of ``call()`` for a request that asks for another protocol."""
        jar = request.jar
        url = urljoin(_base(_origin(self.url)), request.target)
        request.fields.append(("upgrade", protocol))
        args, _ = request.arguments(cookies_for(jar, request, url) if jar is not None else "")
        return args

    def _upgraded(self, stream: _core.Stream, protocol: str) -> Steps[Any]:
        """Give the head of the answer that says yes, or raise another one."""
        parts: list[Any] = yield stream.next()
        head = Head(parts)
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
        origin = _origin(self.url)
        url = urljoin(_base(origin), request.target)
        history: tuple[Head, ...] = ()
        while True:
            jar = request.jar
            cookie = cookies_for(jar, request, url) if jar is not None else ""
            head: Head = yield send(client, *request.arguments(cookie))
            head.url, head.history = url, history
            if jar is not None:
                keep_cookies(jar, head, url)
            to = location(head, url) if request.redirects else ""
            if not to:
                return head
            if len(history) >= request.redirects:
                raise refuse(head, f"more than redirects={request.redirects} redirects")
            there = _origin(to)
            request.redirect(head, to, there != origin)
            history += (head,)
            client, origin, url = self._at(there), there, to
