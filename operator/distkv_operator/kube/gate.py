"""The gate: every request to the API server goes through here, counted and retried.

Writes are server-side applies, creations and deletions with preconditions, so all of them can
be repeated; a request that nobody answered is therefore simply sent again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.kinds import CLUSTER, POD, Kind, Manifest, kind_of
from distkv_operator.kube.transport import Request, Response, Transport, Unreachable
from distkv_operator.names import FIELD_MANAGER

STATUS_MANAGER = "distkv-operator-status"
ATTEMPTS = 4
PAUSE_SECONDS = 0.2
PAUSE_SECONDS_MAX = 5.0
REQUEST_SECONDS = 10.0
LIST_CHUNK = 500

Count = Callable[[str, str, int], None]
"""Told (method, plural, status) of every answer; status 0: nobody answered."""


class Gate:
    """`count` feeds the metrics."""

    def __init__(self, transport: Transport, count: Count = lambda *_: None) -> None:
        self._transport = transport
        self._count = count

    # -- reading

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Manifest | None:
        """The object as it is now; None if there is none. Raises ApiError."""
        try:
            return await self._call("GET", kind, kind.path(namespace, name))
        except ApiError as error:
            if error.is_gone:
                return None
            raise

    async def list(self, kind: Kind, namespace: str | None, labels: str = "") -> list[Manifest]:
        """All objects that match the label selector, in the server's order. Raises ApiError."""
        found: list[Manifest] = []
        query = {"limit": str(LIST_CHUNK)} | ({"labelSelector": labels} if labels else {})
        while True:
            page = await self._call("GET", kind, f"{kind.path(namespace)}?{urlencode(query)}")
            for item in page.get("items") or []:
                found.append(item | {"apiVersion": kind.api_version, "kind": kind.name})
            token = page.get("metadata", {}).get("continue")
            if not token:
                return found
            query["continue"] = token

    async def knows(self, kind: Kind) -> bool:
        """Whether the API server has such a kind."""
        root = f"/apis/{kind.group}/{kind.version}" if kind.group else f"/api/{kind.version}"
        try:
            answer = await self._call("GET", kind, root)
        except ApiError as error:
            if error.status in (403, 404):
                return False
            raise
        return any(entry.get("name") == kind.plural for entry in answer.get("resources") or [])

    # -- writing

    async def apply(self, manifest: Manifest) -> Manifest:
        """Server-side apply of the whole intent; fields others took are taken back."""
        return await self._apply(manifest, "", FIELD_MANAGER)

    async def apply_status(self, namespace: str, name: str, status: Manifest) -> Manifest:
        """The status of a cluster, whole. Raises ApiError (404: the cluster is gone)."""
        manifest = {
            "apiVersion": CLUSTER.api_version,
            "kind": CLUSTER.name,
            "metadata": {"name": name, "namespace": namespace},
            "status": status,
        }
        return await self._apply(manifest, "status", STATUS_MANAGER)

    async def _apply(self, manifest: Manifest, subresource: str, manager: str) -> Manifest:
        kind, meta = kind_of(manifest), manifest["metadata"]
        query = urlencode({"fieldManager": manager, "force": "true"})
        path = kind.path(meta.get("namespace"), meta["name"], subresource)
        return await self._call("PATCH", kind, f"{path}?{query}", manifest, "apply-patch+yaml")

    async def create(self, manifest: Manifest) -> Manifest | None:
        """None: it was there already, and stays as it is."""
        kind, meta = kind_of(manifest), manifest["metadata"]
        path = f"{kind.path(meta.get('namespace'))}?{urlencode({'fieldManager': FIELD_MANAGER})}"
        try:
            return await self._call("POST", kind, path, manifest)
        except ApiError as error:
            if error.reason == "AlreadyExists":
                return None
            raise

    async def merge(
        self, kind: Kind, namespace: str | None, name: str, patch: Manifest
    ) -> Manifest:
        """Merge patch. With metadata.resourceVersion or uid in it, only if that still holds."""
        query = urlencode({"fieldManager": FIELD_MANAGER})
        path = f"{kind.path(namespace, name)}?{query}"
        return await self._call("PATCH", kind, path, patch, "merge-patch+json")

    async def replace(self, manifest: Manifest) -> Manifest:
        """Update of the whole object; its resourceVersion must still be the present one."""
        kind, meta = kind_of(manifest), manifest["metadata"]
        query = urlencode({"fieldManager": FIELD_MANAGER})
        path = f"{kind.path(meta.get('namespace'), meta['name'])}?{query}"
        return await self._call("PUT", kind, path, manifest)

    async def delete(
        self,
        kind: Kind,
        namespace: str | None,
        name: str,
        uid: str,
        *,
        grace: int | None = None,
        propagation: str = "Background",
    ) -> bool:
        """Delete that very object. False: it is gone already, or another has its name."""
        body: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
            "propagationPolicy": propagation,
        }
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        try:
            await self._call("DELETE", kind, kind.path(namespace, name), body)
        except ApiError as error:
            if error.is_gone or error.is_conflict:
                return False
            raise
        return True

    # -- nodes' admin listeners

    async def proxy(self, namespace: str, pod: str, port: int, request: Request) -> Response:
        """`request.url` (a path) of a pod's port, through the API server. Raises Unreachable."""
        path = POD.path(namespace, f"{quote(pod)}:{port}", "proxy") + request.url
        response = await self._transport.send(request._replace(url=path))
        self._count(request.method, "pods/proxy", response.status)
        return response

    async def direct(self, request: Request) -> Response:
        """A request to a whole address. Raises Unreachable."""
        return await self._transport.send(request)

    async def close(self) -> None:
        """Let go of all connections."""
        await self._transport.close()

    # -- one call

    async def _call(
        self, method: str, kind: Kind, path: str, body: Manifest | None = None, form: str = "json"
    ) -> Manifest:
        headers = {"Accept": "application/json"}
        raw = None
        if body is not None:
            headers["Content-Type"] = f"application/{form}"
            raw = json.dumps(body, separators=(",", ":")).encode()
        request = Request(method, path, raw, headers, REQUEST_SECONDS)
        pause = PAUSE_SECONDS
        for attempt in range(ATTEMPTS):
            try:
                response = await self._transport.send(request)
            except Unreachable as unreachable:
                self._count(method, kind.plural, 0)
                error = ApiError(0, "Unreachable", f"the API server: {unreachable}")
            else:
                self._count(method, kind.plural, response.status)
                if response.status < 300:
                    return _document(response)
                error = _refusal(response)
            if not error.may_repeat or attempt + 1 == ATTEMPTS:
                break
            await asyncio.sleep(max(pause, min(error.retry_after, PAUSE_SECONDS_MAX)))
            pause = min(pause * 3, PAUSE_SECONDS_MAX)
        raise error


def _document(response: Response) -> Manifest:
    document = json.loads(response.body) if response.body else {}
    return document if isinstance(document, dict) else {}


def _refusal(response: Response) -> ApiError:
    reason, message = "Unknown", response.body[:500].decode(errors="replace")
    try:
        status = json.loads(response.body)
    except ValueError:
        status = None
    if isinstance(status, Mapping):
        reason = str(status.get("reason") or reason)
        message = str(status.get("message") or message)
    try:
        retry_after = float(response.headers.get("retry-after", "0"))
    except ValueError:
        retry_after = 0.0
    return ApiError(response.status, reason, message, retry_after)
