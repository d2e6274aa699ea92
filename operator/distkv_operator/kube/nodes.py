"""The client of the nodes' admin listeners: by pod address, or through the API server."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from distkv_operator.kube.gate import Gate
from distkv_operator.kube.transport import Request, Unreachable

ADMIN_PORT = 8081
TOKEN_HEADER = "X-DistKV-Token"  # the API server's proxy strips Authorization
NODE_SECONDS = 2.0


class Place(NamedTuple):
    """Where a node is asked: its pod."""

    namespace: str
    pod: str
    address: str


class Answer(NamedTuple):
    """`status` 0: nobody answered; then `body` is the reason."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """2xx with a JSON object."""
        return 200 <= self.status < 300 and isinstance(self.body, dict)

    @property
    def reason(self) -> str:
        """For people."""
        if isinstance(self.body, dict):
            return str(self.body.get("message") or self.body.get("error") or self.body)
        return str(self.body)


class NodeClient:
    """`proxied`: ask through the API server, for an operator that runs outside the cluster."""

    def __init__(self, gate: Gate, proxied: bool) -> None:
        self._gate = gate
        self._proxied = proxied

    async def ask(
        self, place: Place, token: str, method: str, path: str, body: Any = None
    ) -> Answer:
        """One request; never raises for what the other side does."""
        headers = {TOKEN_HEADER: token, "Accept": "application/json"}
        raw = None
        if body is not None:
            raw = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        request = Request(method, path, raw, headers, NODE_SECONDS)
        try:
            if self._proxied:
                namespace, pod, _ = place
                response = await self._gate.proxy(namespace, pod, ADMIN_PORT, request)
            else:
                host = f"[{place.address}]" if ":" in place.address else place.address
                url = f"http://{host}:{ADMIN_PORT}{path}"
                response = await self._gate.direct(request._replace(url=url))
        except Unreachable as error:
            return Answer(0, str(error))
        try:
            return Answer(response.status, json.loads(response.body) if response.body else {})
        except ValueError:
            return Answer(response.status, response.body[:500].decode(errors="replace"))
