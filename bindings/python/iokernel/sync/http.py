"""HTTP for plain threads."""

from __future__ import annotations

from typing import Any

from iokernel.http import Pairs, Response, request_arguments
from iokernel.sync.client import Client


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
        body: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> Response:
        """Send a request and give its whole answer, whatever its status.

        ``target`` is the path with its query, escaped; ``params`` are added to the query.
        """
        args = request_arguments(method, target, params, headers, body, json)
        return Response(self.call(*args, timeout=timeout, repeatable=repeatable))

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
