"""HTTP for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any

from iokernel import _core
from iokernel.asyncio.bodies import Exchange
from iokernel.asyncio.client import Client, Lease, finish
from iokernel.asyncio.websocket import WebSocket
from iokernel.http import Head, Headers, Response
from iokernel.http_coding import Decoding, decoding_of
from iokernel.http_forms import Pairs
from iokernel.http_places import Others
from iokernel.http_steps import HttpSteps, Request, RequestOptions
from iokernel.websocket import chosen_protocol, opening_fields

if TYPE_CHECKING:
    from typing_extensions import Unpack


class StreamResponse(Head):
    """An answer whose body is taken as it comes: an iterator of bytes; ``async with`` sends the
    request and waits for the answer's head.

    What is not taken is not read from the server either, beyond ``max_stream_bytes=``. Left before
    its end, the connection is closed.
    """

    __slots__ = ("_at", "_client", "_decoding", "_exchange", "_request", "_rest")

    def __init__(self, client: Http, request: Request) -> None:
        super().__init__([])
        self._client = client
        self._request = request
        self._exchange: Exchange | None = None
        self._at: Http | None = None  # whose connection it has
        self._decoding: Decoding | None = None
        self._rest = b""  # of a part that read(size) took a piece of

    async def __aenter__(self) -> StreamResponse:
        if self._exchange is not None:
            raise RuntimeError("the request was sent already")
        request = self._request
        try:
            head = await finish(self._client._follow(request, self._open))
            if request.compression:
                limit = self._client.max_reply
                self._decoding = decoding_of(head.headers, head.status, limit)
        except BaseException:
            self.close()
            raise
        self._parts, self.history, self.url = head._parts, head.history, head.url
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    async def _open(self, client: Http, args: list[Any], body: Any) -> Head:
        self.close()
        exchange = Exchange(client, args, body, parts=True, timeout=self._request.timeout)
        self._exchange, self._at = exchange, client
        self._client._others.hold(client)
        return Head(await exchange.next())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._exchange is None:
            raise RuntimeError("it is used in a block: async with web.stream(...) as response")
        if self._rest:
            rest, self._rest = self._rest, b""
            return rest
        while True:
            part: bytes | None = await self._exchange.next()
            if part is None:
                if self._decoding is not None:
                    self._decoding.end()
                raise StopAsyncIteration
            if self._decoding is not None:
                part = self._decoding.feed(part)
            if part:
                return part

    async def read(self, size: int = -1) -> bytes:
        """Give all of the body that is left; or at most size bytes of it, and none at its end."""
        if size < 0:
            return b"".join([part async for part in self])
        part = self._rest or await anext(self, b"")
        self._rest = part[size:]
        return part[:size]

    @property
    def trailers(self) -> Headers:
        """The fields behind the body; there are none before its end."""
        return Headers((self._exchange and self._exchange.result) or [])

    def close(self) -> None:
        """End it, wherever it is; again is harmless."""
        if self._exchange is not None:
            self._exchange.close()
        if self._at is not None:
            self._client._others.give_back(self._at)
            self._at = None


class Upgraded:
    """What a connection has become by ``upgrade()``: bytes in both directions, each with its end.

    One task reads at a time, and others may write meanwhile. A write that is broken off closes the
    connection. It takes up one of ``leases=`` until close(), or the end of its block.
    """

    __slots__ = ("_ended", "_lease", "_stream", "head")

    def __init__(self, lease: Lease, stream: _core.Stream, head: Head) -> None:
        self._lease = lease
        self._stream = stream
        self._ended = False
        self.head = head
        """What the server answered: ``head.headers``."""

    async def read(self) -> bytes:
        """Give what comes next, as it comes; nothing at its end."""
        if self._ended:
            return b""
        part: bytes | None = await self._stream.next()
        self._ended = not part
        return part or b""

    async def write(self, data: str | bytes | bytearray | memoryview) -> None:
        """Send; done when the system has taken it, and it stays untouched until then."""
        await self._stream.send(data)

    async def write_eof(self) -> None:
        """Send no more, and say so; what the other side sends comes all the same."""
        await self._stream.send(b"", end=True)

    def close(self) -> None:
        """Close the connection; again is harmless."""
        self._stream.close()
        self._lease.close()

    async def __aenter__(self) -> Upgraded:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()


class Http(HttpSteps, Client):
    """A web service, for asyncio; ``connect("http://host")`` makes it.

    A request goes over one of at most ``connections=`` (64) connections, which are made as they are
    needed and kept while they are. Methods that are idempotent (GET, HEAD, PUT, DELETE, OPTIONS,
    TRACE) are sent again when their connection was lost; ``repeatable=`` says otherwise.

    Attributes, and options of each request: ``redirects`` says how many redirects are followed
    (0), ``downgrades`` whether one may lead from https to http (False), ``cookies`` is a CookieJar
    of http.cookiejar or None, and ``compression`` says whether answers may be compressed (True).
    """

    __slots__ = ("_others", "compression", "cookies", "downgrades", "redirects")

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what the client is made of; the options of requests are set afterwards."""
        self.cookies: CookieJar | None = None
        self.redirects = 0
        self.downgrades = False
        self.compression = True
        self._others = Others()

    async def request(
        self, method: str, target: str, **options: Unpack[RequestOptions]
    ) -> Response:
        """Send a request and give its whole answer, whatever its status.

        ``target`` is the path with its query, escaped. Options: ``params`` are added to the query;
        ``headers``; and one of ``body`` (bytes or text; or a file or an iterator of them, which go
        out part by part), ``json``, and ``data`` with ``files`` (a form). With ``expect`` the
        server is asked first whether it wants the body. ``redirects``, ``downgrades``, ``cookies``
        and ``compression`` in place of the client's; ``timeout`` and ``repeatable`` as of call().
        """
        request = Request(self, method, target, **options)

        async def send(client: Http, args: list[Any], body: Any) -> Response:
            return await client._send(request, args, body)

        if request.jar is None and not request.redirects:
            return await self._send(request, *request.arguments())
        response: Response = await finish(self._follow(request, send))
        return response

    async def _send(self, request: Request, args: list[Any], body: Any) -> Response:
        limit = self.max_reply if request.compression else 0
        if body is None:
            reply = await self.call(*args, timeout=request.left(), repeatable=request.repeatable)
            return Response(reply, limit)
        exchange = Exchange(self, args, body, parts=False, timeout=request.timeout)
        try:
            await exchange.next()
        finally:
            exchange.close()
        return Response(exchange.result, limit)

    def stream(self, method: str, target: str, **options: Unpack[RequestOptions]) -> StreamResponse:
        """Make a request whose answer is taken part by part; the options are those of request().

        ``timeout`` is for the answer's head, and then for each part of it.
        """
        return StreamResponse(self, Request(self, method, target, **options))

    async def upgrade(
        self,
        target: str,
        protocol: str,
        *,
        method: str = "GET",
        params: Pairs | None = None,
        headers: Pairs | None = None,
        timeout: float | None = None,
    ) -> Upgraded:
        """Ask for another protocol on a connection of one's own; UpgradeError if it is not given.

        ``timeout`` is for the answer, and later for each write.
        """
        options: RequestOptions = {"params": params, "headers": headers, "compression": False}
        request = Request(self, method, target, **options)
        args = self._upgrade(request, protocol)
        lease = self.lease()
        try:
            stream = _core.Stream(lease, *args, parts=True, body=True, timeout=timeout)
            try:
                head = await finish(self._upgraded(stream, request, protocol))
            except BaseException:
                stream.close()
                raise
        except BaseException:
            lease.close()
            raise
        return Upgraded(lease, stream, head)

    async def websocket(
        self,
        target: str,
        *,
        protocols: Sequence[str] = (),
        params: Pairs | None = None,
        headers: Pairs | None = None,
        compression: bool = True,
        timeout: float | None = None,
    ) -> WebSocket:
        """Open a WebSocket on a connection of its own; UpgradeError if the server does not want to.

        ``protocols`` are subprotocols by preference. With ``compression`` the server is offered
        permessage-deflate. ``timeout`` is for the answer, and later for each message that is sent.
        """
        fields = opening_fields(headers, protocols, compression)
        up = await self.upgrade(target, "websocket", params=params, headers=fields, timeout=timeout)
        try:
            protocol = chosen_protocol(up.head.headers, protocols)
        except BaseException:
            up.close()
            raise
        return WebSocket(up._lease, up._stream, up.head.headers, protocol)

    def _make(self, url: str) -> Http:
        return type(self)(url, mode="asyncio")

    def close(self) -> None:
        """End its calls, close its connections. Any thread; again is harmless."""
        self._others.close()
        super().close()

    async def get(self, target: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a GET request; the options are those of request()."""
        usual = None if options else self._usual()
        if usual is None:
            return await self.request("GET", target, **options)
        reply = await self.call("GET", target, *usual)
        return Response(reply, self.max_reply if self.compression else 0)

    async def head(self, target: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a HEAD request; the options are those of request()."""
        return await self.request("HEAD", target, **options)

    async def post(self, target: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a POST request; the options are those of request()."""
        return await self.request("POST", target, **options)

    async def put(self, target: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a PUT request; the options are those of request()."""
        return await self.request("PUT", target, **options)

    async def patch(self, target: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a PATCH request; the options are those of request()."""
        return await self.request("PATCH", target, **options)

    async def delete(self, target: str, **options: Unpack[RequestOptions]) -> Response:
        """Send a DELETE request; the options are those of request()."""
        return await self.request("DELETE", target, **options)

    async def options(self, target: str, **options: Unpack[RequestOptions]) -> Response:
        """Send an OPTIONS request; the options are those of request()."""
        return await self.request("OPTIONS", target, **options)
