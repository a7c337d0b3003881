"""HTTP for asyncio."""

from __future__ import annotations

from typing import Any

from iokernel.asyncio.client import Client
from iokernel.http import Pairs, Response, request_arguments


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
        body: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
        repeatable: bool | None = None,
    ) -> Response:
        """Send a request and give its whole answer, whatever its status.

        ``target`` is the path with its query, escaped; ``params`` are added to the query.
        """
        args = request_arguments(method, target, params, headers, body, json)
        return Response(await self.call(*args, timeout=timeout, repeatable=repeatable))

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
