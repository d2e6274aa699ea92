"""One HTTP request as handlers see it, and the bytes of a response."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from distkv.errors import BadRequest, DistKVError

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"
OCTETS = b"application/octet-stream"

_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}
RETRY_AFTER_SECONDS = 1


class HttpError(Exception):
    """A refusal that is not the store's: own status and code; `headers` are whole lines."""

    def __init__(
        self, status: int, code: str, message: str, retry: bool = False, headers: bytes = b""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry = retry
        self.headers = headers


def not_allowed(what: str, methods: str) -> HttpError:
    """405, with the methods that `what` takes (RFC 9110, section 15.5.6)."""
    return HttpError(
        405, "bad_request", f"{what} takes {methods}", headers=b"Allow: %b\r\n" % methods.encode()
    )


class Request:
    """Start line and headers (RFC 9112). Header names are lower case; a repeated one is joined."""

    __slots__ = ("headers", "keep_alive", "length", "method", "path", "query", "raw_path")

    def __init__(
        self, method: str, target: bytes, headers: dict[bytes, bytes], keep_alive: bool
    ) -> None:
        """Raises HttpError if the body's length makes no sense."""
        self.method = method
        self.headers = headers
        self.keep_alive = keep_alive
        self.raw_path, _, self.query = target.partition(b"?")
        self.path = self.raw_path.decode("latin-1")
        self.length: int | None = 0
        """Bytes of the body; None: chunked, not known yet."""
        if b"transfer-encoding" in headers:
            self.length = None
        elif b"content-length" in headers:
            text = headers[b"content-length"]
            if not text.isdigit() or len(text) > 18:
                raise HttpError(400, "bad_request", "Content-Length is not a number")
            self.length = int(text)

    def parameters(self, allowed: tuple[str, ...]) -> dict[str, bytes]:
        """The query, percent-decoded. Raises BadRequest for a name that is not `allowed`."""
        found: dict[str, bytes] = {}
        for part in self.query.split(b"&"):
            if not part:
                continue
            name, _, value = part.partition(b"=")
            text = unquote_to_bytes(name.replace(b"+", b" ")).decode("utf-8", "replace")
            if text not in allowed:
                known = ", ".join(allowed) or "none"
                raise BadRequest(
                    f"query parameter '{text[:64]}' is not known here (known: {known})"
                )
            found[text] = unquote_to_bytes(value.replace(b"+", b" "))
        return found

    def header(self, name: bytes) -> str | None:
        """A header's value as text."""
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1").strip()


def number(text: bytes | str, name: str, low: int, high: int) -> int:
    """A decimal integer from a query or header. Raises BadRequest naming it."""
    digits = text.decode("latin-1") if isinstance(text, bytes) else text
    sign = digits[1:] if digits[:1] == "-" else digits
    if not (sign.isascii() and sign.isdigit() and len(sign) <= 19):
        raise BadRequest(f"{name} must be a whole number")
    value = int(digits)
    if not low <= value <= high:
        raise BadRequest(f"{name} must be from {low} to {high}")
    return value


def head(
    status: int, content_type: bytes, length: int, keep_alive: bool, extra: bytes = b""
) -> bytes:
    """Status line and headers; `extra` holds whole lines."""
    return b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b%b\r\n" % (
        status,
        _REASONS.get(status, b"Status"),
        content_type,
        length,
        extra,
        b"" if keep_alive else b"Connection: close\r\n",
    )


def bare_head(status: int, keep_alive: bool, extra: bytes = b"") -> bytes:
    """For statuses that have no body (204, 304)."""
    closing = b"" if keep_alive else b"Connection: close\r\n"
    return b"HTTP/1.1 %d %b\r\n%b%b\r\n" % (status, _REASONS[status], extra, closing)


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray):
        return bytes(value).hex()
    return str(value)


def dump(value: Any) -> bytes:
    """JSON; bytes within become hexadecimal text."""
    return json.dumps(value, default=_plain, separators=(",", ":")).encode() + b"\n"


def error_body(code: str, message: str, applied: str, retry: bool) -> bytes:
    """The JSON of every refusal."""
    return dump(
        {"code": code, "error": code, "message": message, "applied": applied, "retry": retry}
    )


def refusal(failure: BaseException) -> tuple[int, bytes, bytes]:
    """(status, extra header lines, JSON body) of an error; an unknown one is internal."""
    extra = b""
    if isinstance(failure, DistKVError):
        status, retry = failure.http, failure.retry
        body = error_body(failure.code, str(failure), failure.applied, retry)
    elif isinstance(failure, HttpError):
        status, retry, extra = failure.status, failure.retry, failure.headers
        body = error_body(failure.code, str(failure), "no", retry)
    else:
        status, retry = 500, False
        body = error_body("error", "internal error, see the log of this node", "maybe", False)
    if retry:
        extra += b"Retry-After: %d\r\n" % RETRY_AFTER_SECONDS
    return status, extra, body
