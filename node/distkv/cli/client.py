"""One request at a time to a node or gateway, for the small commands."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from distkv.cli.exits import (
    EXIT_CONDITION,
    EXIT_FAILED,
    EXIT_NOT_FOUND,
    EXIT_UNKNOWN,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    Failure,
)

DEFAULT_SERVER = "http://127.0.0.1:7001"
TIMEOUT_SECONDS = 60.0
READ_BYTES = 256 * 1024
PAGE_KEYS = 1000

_EXITS = {404: EXIT_NOT_FOUND, 412: EXIT_CONDITION}


class Page(NamedTuple):
    """Part of a listing; `cursor` None: that was all."""

    keys: list[dict[str, Any]]
    cursor: str | None


def key_path(key: str) -> str:
    """URL path of a key; every byte but the harmless ones is escaped, slashes too."""
    return f"/v1/kv/{quote(key.encode('utf-8', 'surrogateescape'), safe='')}"


def list_path(
    prefix: str, limit: int, start: str | None = None, end: str | None = None, cursor: str = ""
) -> str:
    """URL path of one page of a listing; `cursor` goes on where a page ended."""
    query = {"prefix": prefix, "limit": str(limit), "start": start, "end": end}
    if cursor:
        query |= {"cursor": cursor, "start": None}
    given = {name: value for name, value in query.items() if value is not None}
    return f"/v1/kv?{urlencode(given, errors='surrogateescape')}"


def parse_page(raw: bytes) -> Page:
    """A page as the HTTP door gives it."""
    content = json.loads(raw)
    return Page(content["keys"], content["cursor"])


def key_of(entry: dict[str, Any]) -> str:
    """The key of an entry; bytes that are not UTF-8 as Python names files with such names."""
    key = str(entry["key"])
    if entry.get("encoding") == "base64":
        return base64.b64decode(key).decode("utf-8", "surrogateescape")
    return key


def reason_of(status: int, raw: bytes) -> tuple[str, str]:
    """(code, message) of a refusal, whatever the other side sent."""
    try:
        content = json.loads(raw)
        return str(content["error"]), str(content.get("message", content["error"]))
    except (ValueError, KeyError, TypeError):
        text = raw.decode(errors="replace").strip()
        return "", text or http.client.responses.get(status, f"status {status}")


def pieces(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """The body of an answer. Raises Failure if it ends before its length says so.

    `http.client` takes the end of the connection for the end of a body that is read in pieces.
    """
    length = int(response.getheader("Content-Length") or 0)
    had, reason = 0, ""
    while True:
        try:
            piece = response.read(READ_BYTES)
        except (OSError, http.client.HTTPException) as error:
            piece, reason = b"", str(error) or type(error).__name__
        if not piece:
            break
        had += len(piece)
        yield piece
    if reason or had < length:
        reason = reason or "the connection ended"
        raise Failure(f"the answer broke off after {had} of {length} bytes ({reason}): ask again")


def _unanswered(address: str, error: Exception) -> Failure:
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, OSError):
        text = (
            f"{address} answers, but not in HTTP: {str(error).strip()[:60]!r}. Is that the port of "
            "RESP? That of HTTP is the next one in laptop mode"
        )
    else:
        reason = str(error) or type(error).__name__
        text = f"no answer from {address}: {reason}. Is a node or gateway there?"
    return Failure(f"{text} (--server, DISTKV_SERVER)", EXIT_UNREACHABLE)


def server_of(address: str) -> tuple[str, int]:
    """(host, port) of what --server may be. Raises Failure."""
    try:
        parts = urlsplit(address if "//" in address else f"http://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or parts.scheme != "http" or parts.path.strip("/") or parts.query:
        raise Failure(f"--server {address}: give http://host:port", EXIT_USAGE)
    return host, 80 if port is None else port


class Client:
    """Connection to one server; `address` is an http URL."""

    def __init__(self, address: str) -> None:
        host, port = server_of(address)
        self.address = f"{host}:{port}"
        self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """A successful answer; anything else is a Failure with the right exit code."""
        try:
            self._connection.request(method, path, body, dict(headers or {}))
            response = self._connection.getresponse()
            if response.status < 300:
                return response
            raw = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise _unanswered(self.address, error) from None
        code, message = reason_of(response.status, raw)
        exit_code = _EXITS.get(response.status, EXIT_FAILED)
        if code == "outcome_unknown":
            exit_code = EXIT_UNKNOWN
        raise Failure(f"{code}: {message}" if code else message, exit_code)

    def scan(
        self, prefix: str, start: str | None, end: str | None, limit: int | None
    ) -> Iterator[dict[str, Any]]:
        """Keys in order, page by page."""
        left, cursor = limit, ""
        while left is None or left > 0:
            wanted = PAGE_KEYS if left is None else min(left, PAGE_KEYS)
            path = list_path(prefix, wanted, start, end, cursor)
            page = parse_page(b"".join(pieces(self.request("GET", path))))
            yield from page.keys
            if page.cursor is None:
                return
            cursor = page.cursor
            if left is not None:
                left -= len(page.keys)
