"""HTTP for plain threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from iokernel.http import Head, Headers, Pairs, Response, request_arguments
from iokernel.sync.bodies import Exchange
from iokernel.sync.client import Client


class StreamResponse(Head):
    """An answer whose body is taken as it comes: an iterator of bytes; ``with`` sends the
    request, with all of its body, and waits for the answer's head.

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

    def __enter__(self) -> StreamResponse:
        if self._exchange is not None:
            raise RuntimeError("the request was sent already")
        self._exchange = Exchange(
            self._client, self._args, self._body, parts=True, timeout=self._timeout
        )
        try:
            self._parts = self._exchange.next()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._exchange is None:
            raise RuntimeError("it is used in a block: with web.stream(...) as response")
        part: bytes | None = self._exchange.next()
        if part is None:
            raise StopIteration
        return part

    def read(self) -> bytes:
        """Give all of the body that is left."""
        return b"".join(self)

    @property
    def trailers(self) -> Headers:
        """The fields behind the body; there are none before its end."""
        return Headers((self._exchange and self._exchange.result) or [])

    def close(self) -> None:
        """End it, wherever it is; again is harmless."""
        if self._exchange is not None:
            self._exchange.close()


class Http(Client):
    """A web service, for plain threads; ``connect("http://host")`` makes it.

    A request goes over one of at most ``connections=`` (64) connections, which are made as they are
    needed and kept while they are. Methods that are idempotent (GET, HEAD, PUT, DELETE, OPTIONS,
    TRACE) are sent again when their connection was lost; ``repeatable=`` says otherwise.
    """

    __slots__ = ()

    def request(
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
            return Response(self.call(*args, timeout=timeout, repeatable=repeatable))
        exchange = Exchange(self, args, body, parts=False, timeout=timeout)
        try:
            exchange.next()
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

    def get(self, target: str, **options: Any) -> Response:
        """Send a GET request; the options are those of request()."""
        return self.request("GET", target, **options)

    def head(self, target: str, **options: Any) -> Response:
        """Send a HEAD request; the options are those of request()."""
        return self.request("HEAD", target, **options)

    def post(self, target: str, **options: Any) -> Response:
        """Send a POST request; the options are those of request()."""
        return self.request("POST", target, **options)

    def put(self, target: str, **options: Any) -> Response:
        """Send a PUT request; the options are those of request()."""
        return self.request("PUT", target, **options)

    def patch(self, target: str, **options: Any) -> Response:
        """Send a PATCH request; the options are those of request()."""
        return self.request("PATCH", target, **options)

    def delete(self, target: str, **options: Any) -> Response:
        """Send a DELETE request; the options are those of request()."""
        return self.request("DELETE", target, **options)

    def options(self, target: str, **options: Any) -> Response:
        """Send a OPTIONS request; the options are those of request()."""
        return self.request("OPTIONS", target, **options)
