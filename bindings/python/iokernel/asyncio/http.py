"""HTTP for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from iokernel.asyncio.bodies import Exchange
from iokernel.asyncio.client import Client
from iokernel.http import Head, Headers, Pairs, Response, request_arguments


class StreamResponse(Head):
    """An answer whose body is taken as it comes: an iterator of bytes; ``async with`` sends the
    request and waits for the answer's head.

    What is not taken is not read from the server either, beyond ``max_stream_bytes=``. Left before
    its end, the connection is closed.
    """

    __slots__ = ("_args", "_body", "_client", "_exchange", "_timeout")

    def __init__(self, client: Http, args: list[Any], body: Any, timeout: float | None) -> None:
        super().__init__([])
        self._client = client
        self._args = args
        self._body = body
        self._timeout = timeout
        self._exchange: Exchange | None = None

    async def __aenter__(self) -> StreamResponse:
        if self._exchange is not None:
            raise RuntimeError("the request was sent already")
        self._exchange = Exchange(
            self._client, self._args, self._body, parts=True, timeout=self._timeout
        )
        try:
            self._parts = await self._exchange.next()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._exchange is None:
            raise RuntimeError(
                "a stream is used in a block: async with web.stream(...) as response"
            )
        part: bytes | None = await self._exchange.next()
        if part is None:
            raise StopAsyncIteration
        return part

    async def read(self) -> bytes:
        """Give all of the body that is left."""
        return b"".join([part async for part in self])

    @property
    def trailers(self) -> Headers:
        """The fields behind the body; there are none before its end."""
        return Headers((self._exchange and self._exchange.result) or [])

    def close(self) -> None:
        """End it, wherever it is; again is harmless."""
        if self._exchange is not None:
            self._exchange.close()


class Http(Client):
    """A web service, for asyncio; ``connect("http://host")`` makes it.

    A request goes over one of at most ``connections=`` (64) connections, which are made as they are
    needed and kept while they are. Methods that are idempotent (GET, HEAD, PUT, DELETE, OPTIONS,
    TRACE) are sent again when their connection was lost; ``repeatable=`` says otherwise.
    """

    __slots__ = ()

    async def request(
        self,
        method: str,
        target: str,
        *,
        params: Pairs | None = None,
        headers: Pairs | None = None,
        body: Any = None,
        json: Any = None,
        expect: bool = False,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> Response:
        """Send a request and give its whole answer, whatever its status.

        ``target`` is the path with its query, escaped; ``params`` are added to the query. ``body``
        is bytes or text; or a file or an iterator of them, which go out part by part. With
        ``expect`` the server is asked first whether it wants the body.
        """
        args, body = request_arguments(method, target, params, headers, body, json, expect)
        if body is None:
            return Response(await self.call(*args, timeout=timeout, repeatable=repeatable))
        exchange = Exchange(self, args, body, parts=False, timeout=timeout)
        try:
            await exchange.next()
        finally:
            exchange.close()
        return Response(exchange.result)

    def stream(
        self,
        method: str,
        target: str,
        *,
        params: Pairs | None = None,
        headers: Pairs | None = None,
        body: Any = None,
        json: Any = None,
        expect: bool = False,
        timeout: float | None = None,
    ) -> StreamResponse:
        """Make a request whose answer is taken part by part; the options are those of request().

        ``timeout`` is for the answer's head, and then for each part of it.
        """
        args, body = request_arguments(method, target, params, headers, body, json, expect)
        return StreamResponse(self, args, body, timeout)

    async def get(self, target: str, **options: Any) -> Response:
        """Send a GET request; the options are those of request()."""
        return await self.request("GET", target, **options)

    async def head(self, target: str, **options: Any) -> Response:
        """Send a HEAD request; the options are those of request()."""
        return await self.request("HEAD", target, **options)

    async def post(self, target: str, **options: Any) -> Response:
        """Send a POST request; the options are those of request()."""
        return await self.request("POST", target, **options)

    async def put(self, target: str, **options: Any) -> Response:
        """Send a PUT request; the options are those of request()."""
        return await self.request("PUT", target, **options)

    async def patch(self, target: str, **options: Any) -> Response:
        """Send a PATCH request; the options are those of request()."""
        return await self.request("PATCH", target, **options)

    async def delete(self, target: str, **options: Any) -> Response:
        """Send a DELETE request; the options are those of request()."""
        return await self.request("DELETE", target, **options)

    async def options(self, target: str, **options: Any) -> Response:
        """Send a OPTIONS request; the options are those of request()."""
        return await self.request("OPTIONS", target, **options)
