"""GET /v1/kv: keys in order, page by page."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from distkv.api.http import message
from distkv.api.http.exchange import Exchange
from distkv.api.options import Limits
from distkv.errors import BadRequest
from distkv.operations import Meta, Page, Scan, Store

_PARAMETERS = ("prefix", "start", "end", "limit", "cursor")
_LIMIT = 1000


def list_keys(exchange: Exchange, store: Store, limits: Limits, deadline: float) -> None:
    """Answer with {keys, next_start, cursor}; the last two are null after the last page.

    A key that is not UTF-8 is given in base64 and marked. `cursor` goes on exactly there;
    `next_start` is the same place as text.
    """
    parameters = exchange.request.parameters(_PARAMETERS)
    if "cursor" in parameters and "start" in parameters:
        raise BadRequest("give start or cursor, not both")
    limit = _LIMIT
    if "limit" in parameters:
        limit = message.number(parameters["limit"], "limit", 1, limits.scan_count_max)
    start = parameters.get("start", b"")
    if "cursor" in parameters:
        start = _decode_cursor(parameters["cursor"])
    scan = Scan(
        start=start,
        end=parameters.get("end"),
        prefix=parameters.get("prefix", b""),
        limit=min(limit, limits.scan_count_max),
    )
    future = store.execute(scan, deadline)
    exchange.when(future, lambda page: exchange.answer_json(200, _page(page)))


def _page(page: Page) -> dict[str, Any]:
    following = page.next_start
    return {
        "keys": [_entry(key, meta) for key, meta in page.keys],
        "next_start": None if following is None else following.decode("utf-8", "surrogateescape"),
        "cursor": None if following is None else base64.urlsafe_b64encode(following).decode(),
    }


def _entry(key: bytes, meta: Meta) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    try:
        entry["key"] = key.decode("utf-8")
    except UnicodeDecodeError:
        entry["key"] = base64.b64encode(key).decode()
        entry["encoding"] = "base64"
    entry["version"] = meta.version
    entry["length"] = meta.length
    if meta.expires_ms is not None:
        entry["expires_ms"] = meta.expires_ms
    return entry


def _decode_cursor(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("cursor is not one that a listing gave") from error
