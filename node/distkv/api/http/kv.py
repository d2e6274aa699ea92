"""The HTTP door for clients: keys, listings, status, health and metrics.

| request                        | answer |
|--------------------------------|--------|
| GET, HEAD /v1/kv/{key}         | the value; ETag, X-DistKV-Expires-Ms; 304, 404, 412; Range |
| PUT /v1/kv/{key}?ttl=, ttl_ms= | 201 or 200 and {version, existed}; If-Match, If-None-Match |
| DELETE /v1/kv/{key}            | 204, or 404 |
| POST /v1/kv/{key}?increment=n  | {value} |
| GET /v1/kv?prefix=&start=&...  | {keys, next_start, cursor} |
| GET /v1/status /livez /readyz /metrics | |

A key is percent-decoded bytes; slashes need not be escaped. A write with an Idempotency-Key
takes effect once, however often and wherever it is sent. X-DistKV-Timeout-Ms: the deadline,
counted from the last byte of the request; of a large value, which is sent stripe by stripe,
so long for each.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import unquote_to_bytes

from prometheus_client import CollectorRegistry

from distkv.api.http import conditions, message
from distkv.api.http.exchange import Exchange
from distkv.api.http.listing import list_keys
from distkv.api.http.message import HttpError
from distkv.api.http.ranges import RangeDownload
from distkv.api.metrics import CONTENT_TYPE, DoorMetrics, exposition
from distkv.api.options import Limits
from distkv.errors import BadRequest, ConditionFailed, TooLarge
from distkv.operations import (
    NEVER,
    Delete,
    Expiry,
    Get,
    Increment,
    Meta,
    Mutation,
    Put,
    Stat,
    Store,
    Value,
    Write,
)

PREFIX = b"/v1/kv/"
ONCE_PREFIX = b"\0K"
"""Sessions that open with their only command: see `idempotency_session`."""
IDEMPOTENCY_KEY_MAX = 256
_TTL_MS_MAX = 2**53
_KV_METHODS = "GET, HEAD, PUT, DELETE, POST"


def idempotency_session(key: str) -> bytes:
    """The session (12 bytes) of an Idempotency-Key."""
    return ONCE_PREFIX + hashlib.sha256(key.encode("latin-1")).digest()[:10]


class KvApplication:
    """See the module; `registry` holds what /metrics shows."""

    def __init__(
        self,
        store: Store,
        limits: Limits,
        metrics: DoorMetrics,
        registry: CollectorRegistry | None = None,
    ) -> None:
        self.store = store
        self.limits = limits
        self._registry = registry
        self._series = {
            name: metrics.kind(name)
            for name in (
                *("get", "head", "put", "delete", "post"),
                *("list", "status", "livez", "readyz", "metrics"),
            )
        }
        self._methods = {
            "GET": self._get,
            "HEAD": self._head,
            "PUT": self._put,
            "DELETE": self._delete,
            "POST": self._post,
        }
        self._pages = {
            "/v1/kv": ("list", self._list),
            "/v1/status": ("status", self._status),
            "/livez": ("livez", self._livez),
            "/readyz": ("readyz", self._readyz),
            "/metrics": ("metrics", self._metrics),
        }

    def route(self, exchange: Exchange) -> None:
        """See exchange.Application."""
        request = exchange.request
        exchange.body_limit = f"of {request.method}, which takes no body"
        if request.raw_path.startswith(PREFIX):
            handler = self._methods.get(request.method)
            if handler is None:
                raise message.not_allowed("a key", _KV_METHODS)
            exchange.handler = handler
            exchange.series = self._series[request.method.lower()]
            exchange.streamed = request.method == "PUT"
            exchange.reads = request.method == "GET"
            self._key(exchange)
            return
        page = self._pages.get(request.path)
        if page is None:
            raise HttpError(
                404,
                "not_found",
                f"there is nothing at {request.path[:256]}: keys are at {PREFIX.decode()}{{key}}",
            )
        if request.method not in ("GET", "HEAD"):
            raise message.not_allowed(request.path, "GET, HEAD")
        exchange.series = self._series[page[0]]
        exchange.handler = page[1]

    # -- what requests say

    def _key(self, exchange: Exchange) -> bytes:
        key = unquote_to_bytes(exchange.request.raw_path[len(PREFIX) :])
        limit = self.limits.key_bytes_max
        if not key:
            raise BadRequest("the key is empty: give /v1/kv/{key}")
        if len(key) > limit:
            raise TooLarge(f"a key of {len(key)} bytes is over key_bytes_max ({limit} bytes)")
        return key

    def deadline(self, exchange: Exchange) -> float:
        """When to give up, on the store's clock. Raises BadRequest."""
        return self.store.now() + exchange.patience(self.limits)

    def _write(self, exchange: Exchange, mutation: Mutation) -> Write:
        key = exchange.request.header(b"idempotency-key")
        if key is None:
            return Write((mutation,))
        if not 1 <= len(key) <= IDEMPOTENCY_KEY_MAX:
            raise BadRequest(f"Idempotency-Key must have 1 to {IDEMPOTENCY_KEY_MAX} characters")
        return Write((mutation,), idempotency_session(key), 1)

    # -- keys

    def _get(self, exchange: Exchange) -> None:
        exchange.request.parameters(())
        future = self.store.execute(Get(self._key(exchange)), self.deadline(exchange))
        exchange.when(future, lambda value: self._answer_value(exchange, value))

    def _answer_value(self, exchange: Exchange, value: Value | None) -> None:
        try:
            status = self._read_status(exchange, value.meta if value is not None else None)
            if value is None or status != 200:
                _close(value)
                return
            self._answer_found(exchange, value)
        except Exception:
            _close(value)
            raise

    def _answer_found(self, exchange: Exchange, value: Value) -> None:
        meta, data = value
        extra = _meta_headers(meta)
        try:
            part = conditions.byte_range(exchange.request, meta.version, meta.length)
        except IndexError:
            raise HttpError(
                416,
                "bad_request",
                f"the Range lies outside the value, which has {meta.length} bytes",
                headers=b"Content-Range: bytes */%d\r\n" % meta.length,
            ) from None
        if part is None:
            exchange.answer_value(200, meta.length, data, extra)
            return
        start, stop = part
        extra += b"Content-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, meta.length)
        piece = data[start:stop] if isinstance(data, bytes) else RangeDownload(data, start, stop)
        exchange.answer_value(206, stop - start, piece, extra)

    def _read_status(self, exchange: Exchange, meta: Meta | None) -> int:
        """200, or what was already answered instead."""
        status = conditions.read_status(exchange.request, None if meta is None else meta.version)
        if status == 412:
            raise ConditionFailed("the key does not have the version that If-Match names")
        if meta is None:
            raise HttpError(404, "not_found", "there is no such key")
        if status == 304:
            exchange.answer(304, extra=conditions.etag(meta.version))
        return status

    def _head(self, exchange: Exchange) -> None:
        exchange.request.parameters(())
        future = self.store.execute(Stat((self._key(exchange),)), self.deadline(exchange))

        def answer(found: list[Meta | None]) -> None:
            meta = found[0]
            if self._read_status(exchange, meta) == 200 and meta is not None:
                exchange.answer_value(200, meta.length, None, _meta_headers(meta))

        exchange.when(future, answer)

    def _put(self, exchange: Exchange) -> None:
        request = exchange.request
        parameters = request.parameters(("ttl", "ttl_ms", "keep_ttl"))
        key, condition = self._key(exchange), conditions.write_condition(request)
        deadline, expiry = self.deadline(exchange), _expiry(parameters)
        write = self._write(exchange, Put(key, b"", expiry, condition))
        put = Put(key, exchange.value(), expiry, condition)
        future = self.store.execute(write._replace(mutations=(put,)), deadline)

        def answer(results: list[Any]) -> None:
            written = results[0]
            exchange.answer_json(
                200 if written.existed else 201,
                {"version": written.version, "existed": written.existed},
                conditions.etag(written.version),
            )

        exchange.when(future, answer)

    def _delete(self, exchange: Exchange) -> None:
        request = exchange.request
        request.parameters(())
        mutation = Delete(self._key(exchange), conditions.write_condition(request))
        future = self.store.execute(self._write(exchange, mutation), self.deadline(exchange))

        def answer(results: list[Any]) -> None:
            if not results[0].existed:
                raise HttpError(404, "not_found", "there is no such key")
            exchange.answer(204)

        exchange.when(future, answer)

    def _post(self, exchange: Exchange) -> None:
        parameters = exchange.request.parameters(("increment",))
        if "increment" not in parameters:
            raise BadRequest("POST on a key needs ?increment=n; PUT sets a value")
        delta = message.number(parameters["increment"], "increment", -(2**63), 2**63 - 1)
        mutation = Increment(self._key(exchange), delta)
        future = self.store.execute(self._write(exchange, mutation), self.deadline(exchange))
        exchange.when(future, lambda results: exchange.answer_json(200, {"value": results[0]}))

    # -- pages

    def _list(self, exchange: Exchange) -> None:
        list_keys(exchange, self.store, self.limits, self.deadline(exchange))

    def _status(self, exchange: Exchange) -> None:
        exchange.answer_json(200, self.store.status())

    def _livez(self, exchange: Exchange) -> None:
        exchange.answer(200, b"ok\n", message.TEXT)

    def _readyz(self, exchange: Exchange) -> None:
        status = self.store.health()
        if not status.get("serving"):
            state = status.get("state", "not serving")
            detail = status.get("detail")
            raise HttpError(503, "not_ready", f"{state}: {detail}" if detail else str(state), True)
        exchange.answer(200, b"ok\n", message.TEXT)

    def _metrics(self, exchange: Exchange) -> None:
        if self._registry is None:
            raise HttpError(404, "not_found", "this process has no metrics")
        exchange.answer(200, exposition(self._registry), CONTENT_TYPE.encode())


def _close(value: Value | None) -> None:
    if value is not None and not isinstance(value.data, bytes):
        value.data.close()


def _meta_headers(meta: Meta) -> bytes:
    lines = conditions.etag(meta.version) + b"Accept-Ranges: bytes\r\n"
    if meta.expires_ms is not None:
        lines += b"X-DistKV-Expires-Ms: %d\r\n" % meta.expires_ms
    return lines


def _expiry(parameters: dict[str, bytes]) -> Expiry:
    if len(parameters) > 1:
        raise BadRequest("give one of ttl, ttl_ms and keep_ttl")
    if "ttl" in parameters:
        seconds = message.number(parameters["ttl"], "ttl", 1, _TTL_MS_MAX // 1000)
        return Expiry(after_ms=seconds * 1000)
    if "ttl_ms" in parameters:
        return Expiry(after_ms=message.number(parameters["ttl_ms"], "ttl_ms", 1, _TTL_MS_MAX))
    if "keep_ttl" in parameters:
        return Expiry(keep=bool(message.number(parameters["keep_ttl"], "keep_ttl", 0, 1)))
    return NEVER
