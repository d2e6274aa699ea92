"""The administration listener: JSON in and out, behind a token.

The runtime registers what its process can do:

    router = AdminRouter(token, metrics)
    router.add("POST", "/v1/admin/found", found)     # found(call) -> JSON-able or a future
    server = HttpServer(store, router, options.listen, options.limits, budget, metrics)
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from distkv.api.http.exchange import Exchange
from distkv.api.http.message import HttpError, not_allowed
from distkv.api.metrics import DoorMetrics
from distkv.errors import BadRequest
from distkv.kernel import Future

BODY_MAX = 1024 * 1024


class AdminCall(NamedTuple):
    """`body`: the JSON document sent, None if there was none. `query`: decoded parameters."""

    body: Any
    query: dict[str, str]


AdminHandler = Callable[[AdminCall], Any]
"""Returns what is sent as JSON (None: {}), or a kernel future of it.

Refuses with a DistKVError or `HttpError(status, code, message)`.
"""


class AdminRouter:
    """An `exchange.Application`; `token` None refuses everything."""

    def __init__(self, token: str | None, metrics: DoorMetrics) -> None:
        self._token = None if token is None else token.encode()
        self._metrics = metrics
        self._routes: dict[str, dict[str, tuple[AdminHandler, tuple[str, ...]]]] = {}

    def add(
        self, method: str, path: str, handler: AdminHandler, parameters: tuple[str, ...] = ()
    ) -> None:
        """Serve `method path`; `parameters`: names allowed in the query."""
        self._routes.setdefault(path, {})[method] = (handler, parameters)

    def route(self, exchange: Exchange) -> None:
        """See exchange.Application. Nothing is told before the token was right."""
        request = exchange.request
        shown = request.headers.get(b"x-distkv-token", b"").strip()
        if self._token is None:
            raise HttpError(401, "unauthorized", "admin.token_file is not set: nobody may do this")
        if not hmac.compare_digest(shown, self._token):
            raise HttpError(401, "unauthorized", "the header X-DistKV-Token is wrong or missing")
        methods = self._routes.get(request.path)
        if methods is None:
            raise HttpError(404, "not_found", f"there is nothing at {request.path[:256]}")
        if request.method not in methods:
            raise not_allowed(request.path, ", ".join(methods))
        handler, parameters = methods[request.method]
        exchange.body_max = BODY_MAX
        exchange.body_limit = "of an admin request"
        exchange.series = self._metrics.kind(f"{request.method} {request.path}")
        exchange.handler = lambda _: self._run(exchange, handler, parameters)

    def _run(self, exchange: Exchange, handler: AdminHandler, parameters: tuple[str, ...]) -> None:
        query = exchange.request.parameters(parameters)
        raw = exchange.body()
        body: Any = None
        if raw:
            try:
                body = json.loads(raw)
            except (ValueError, RecursionError) as error:
                raise BadRequest(f"the body is not JSON: {error}") from error
        call = AdminCall(body, {k: v.decode("utf-8", "replace") for k, v in query.items()})
        result = handler(call)
        if isinstance(result, Future):
            exchange.when(result, lambda value: exchange.answer_json(200, _document(value)))
        else:
            exchange.answer_json(200, _document(result))


def _document(value: Any) -> Any:
    return {} if value is None else value
