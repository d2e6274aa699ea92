"""HTTP as the gate needs it: one request, one whole answer. Only here connections are opened."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import aiohttp
import kopf

ANSWER_BYTES_MAX = 64 * 1024 * 1024


class Request(NamedTuple):
    """`url`: a path of the API server, or a whole address (of a node's admin listener)."""

    method: str
    url: str
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    seconds: float = 10.0


class Response(NamedTuple):
    """`headers` with names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unreachable(Exception):
    """Nobody answered: refused, timed out, cut off."""


class Transport(Protocol):
    """Carries requests. A test's own fails or crashes at the call it likes."""

    async def send(self, request: Request) -> Response:
        """Raises Unreachable."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


class HttpTransport:
    """With the credentials kopf would use; they are asked for again when the server says 401."""

    def __init__(self, login: Callable[[], kopf.ConnectionInfo]) -> None:
        self._login = login
        self._info = login()
        self._ssl: ssl.SSLContext | None = None
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: Request) -> Response:
        """See Transport."""
        response = await self._send(request)
        if response.status == 401 and request.url.startswith("/"):
            self._info = self._login()
            self._ssl = None
            response = await self._send(request)
        return response

    async def _send(self, request: Request) -> Response:
        if self._session is None:
            # No cookies, no proxies by environment: requests go where their URL says.
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                connector=aiohttp.TCPConnector(limit=32, keepalive_timeout=60),
            )
        url, headers = request.url, dict(request.headers)
        context: ssl.SSLContext | bool = True
        if url.startswith("/"):
            url = self._info.server.rstrip("/") + url
            headers |= self._info.as_http_headers()
            if self._ssl is None:
                self._ssl = self._info.as_ssl_context()
            context = self._ssl
        try:
            async with self._session.request(
                request.method,
                url,
                data=request.body,
                headers=headers,
                ssl=context,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=request.seconds),
            ) as answer:
                body = await answer.content.read(ANSWER_BYTES_MAX)
                while not answer.content.at_eof() and len(body) < ANSWER_BYTES_MAX:
                    body += await answer.content.read(ANSWER_BYTES_MAX)
                names = {name.lower(): value for name, value in answer.headers.items()}
                return Response(answer.status, names, body)
        except (aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error

    async def close(self) -> None:
        """See Transport."""
        if self._session is not None:
            await self._session.close()
            self._session = None
