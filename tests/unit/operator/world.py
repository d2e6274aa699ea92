"""A small Kubernetes with small nodes in memory, behind the same transport as the real one.

It has what the operator relies on: server-side apply (merged), preconditions, claims that stay
until their pod is gone, a StatefulSet and a Deployment that act, hosts that can be lost; and
nodes that are founded, formed, replaced and refilled as the members' rules have it. Deliberately
strict: what the real ones would refuse, it refuses.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from unit.operator.refusals import Refused
from unit.operator.small_nodes import Nodes

from distkv_operator.kube.kinds import Manifest
from distkv_operator.kube.transport import Request, Response
from distkv_operator.names import FINGERPRINT_ANNOTATION

NAMESPACE = "test"
BAD_IMAGE = "bad"
USELESS_IMAGE = "useless"
"""It starts and never serves."""
PATH = re.compile(
    r"^/(?:api|apis)/(?P<version>v1|[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/?]+)(?:/(?P<name>[^/?]+))?(?:/(?P<sub>[^/?]+))?$"
)
Key = tuple[str, str]


class Objects(dict[Key, Manifest]):
    """What the API server has, by plural and name; whole copies of it are made quickly."""

    def __deepcopy__(self, memo: Any) -> Objects:
        return Objects({key: clone(item) for key, item in self.items()})


class Calls(list[tuple[str, str]]):
    """Method and URL of each request; nothing in it changes."""

    def __deepcopy__(self, memo: Any) -> Calls:
        return Calls(self)


class World:
    """`calls` counts requests; `before` and `after` may raise at any of them."""

    def __init__(self) -> None:
        self.objects: Objects = Objects()
        self.intents: Objects = Objects()
        self.numbers = itertools.count(1)
        self.hosts: dict[str, bool] = {f"host-{number}": True for number in range(1, 8)}
        self.calls = Calls()
        self.before: Callable[[int, Request], None] = lambda *_: None
        self.after: Callable[[int, Request], None] = lambda *_: None
        self.nodes = Nodes(self)
        self.log: list[str] = []
        for host in self.hosts:
            self.put("nodes", {"kind": "Node", "metadata": {"name": host}, "spec": {}})

    # -- the transport

    async def send(self, request: Request) -> Response:
        """As a transport: one request, one answer."""
        number = len(self.calls)
        self.calls.append((request.method, request.url))
        self.before(number, request)
        try:
            answer: Any = self._route(request)
            response = Response(200, {}, json.dumps(answer).encode())
        except Refused as refused:
            body = {"reason": refused.reason, "message": refused.reason}
            response = Response(refused.status, {}, json.dumps(body).encode())
        self.after(number, request)
        return response

    async def close(self) -> None:
        """As a transport."""

    def _route(self, request: Request) -> Any:
        url = urlsplit(request.url)
        if url.scheme:
            return self.nodes.serve(url.hostname or "", request.method, url.path, request.body)
        body = json.loads(request.body) if request.body else None
        if url.path.count("/") <= 3 and not url.path.startswith("/api/v1/"):
            raise Refused(404, "NotFound")  # discovery: no ServiceMonitor here
        match = PATH.match(url.path)
        assert match is not None, f"no such path: {url.path}"
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        plural, name = match["plural"], match["name"]
        if request.method == "GET":
            return self._get(plural, name) if name else self._list(plural, query)
        if request.method == "POST":
            return self._create(plural, body)
        if request.method == "PUT":
            return self._replace(plural, name, body)
        if request.method == "DELETE":
            return self._delete(plural, name, body)
        return self._patch(plural, name, match["sub"], request.headers, body)

    # -- the API server

    def _get(self, plural: str, name: str) -> Manifest:
        if (plural, name) not in self.objects:
            raise Refused(404, "NotFound")
        return self.objects[plural, name]

    def _list(self, plural: str, query: dict[str, str]) -> Manifest:
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)

        def fits(item: Manifest) -> bool:
            labels = item["metadata"].get("labels", {})
            return all(labels.get(key) == value for key, value in wanted.items())

        items = [o for (kind, _), o in sorted(self.objects.items()) if kind == plural and fits(o)]
        return {"items": items}

    def _create(self, plural: str, body: Manifest) -> Manifest:
        if (plural, body["metadata"]["name"]) in self.objects:
            raise Refused(409, "AlreadyExists")
        return self.put(plural, body)

    def _replace(self, plural: str, name: str, body: Manifest) -> Manifest:
        live = self._get(plural, name)
        if body["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict")
        body["metadata"] = live["metadata"] | body["metadata"]
        return self.put(plural, body)

    def _delete(self, plural: str, name: str, body: Manifest) -> Manifest:
        live = self._get(plural, name)
        uid = body["preconditions"]["uid"]
        if uid != live["metadata"]["uid"]:
            raise Refused(409, "Conflict")
        self.log.append(f"delete {plural}/{name}")
        if plural in ("pods", "persistentvolumeclaims"):
            self.nodes.check_loss(plural, name)
        if plural == "persistentvolumeclaims" and self._pod_of(name) is not None:
            self.objects[plural, name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return {}
        is_placed = plural == "pods" and live["spec"].get("nodeName")
        if is_placed and not self._host_is_up(live) and body.get("gracePeriodSeconds") != 0:
            self.objects[plural, name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return {}
        if plural == "statefulsets":
            assert body["propagationPolicy"] == "Orphan", "its pods would go too"
        self.remove(plural, name)
        return {}

    def _patch(
        self, plural: str, name: str, sub: str | None, headers: Any, body: Manifest
    ) -> Manifest:
        live = self.objects.get((plural, name))
        applies = "apply-patch" in headers["Content-Type"]
        if live is None:
            if not applies or sub:
                raise Refused(404, "NotFound")
            self.intents[plural, name] = clone(body)
            return self.put(plural, body)
        meta = body.get("metadata", {})
        if "uid" in meta and meta["uid"] != live["metadata"]["uid"]:
            raise Refused(409, "Conflict")
        if plural == "statefulsets" and body["spec"]["volumeClaimTemplates"] != live["spec"].get(
            "volumeClaimTemplates"
        ):
            raise Refused(422, "Invalid")
        if sub == "status":
            changed = live | {"status": body["status"]}
        elif applies:
            left = without(clone(live), self.intents.get((plural, name), {}), body)
            self.intents[plural, name] = clone(body)
            changed = merge(left, body)
        else:
            changed = merge(live, body)
        if changed == live:
            return live
        return self.put(plural, changed)

    def put(self, plural: str, body: Manifest) -> Manifest:
        """Store it, with a new version."""
        stored = clone(body)
        meta = stored["metadata"]
        meta.setdefault("uid", f"uid-{next(self.numbers)}")
        meta["resourceVersion"] = str(next(self.numbers))
        self.objects[plural, meta["name"]] = stored
        return stored

    def remove(self, plural: str, name: str) -> None:
        """It is gone; a claim that was on its way out goes with its pod."""
        self.objects.pop((plural, name), None)
        self.intents.pop((plural, name), None)
        if plural == "pods":
            claim = self.objects.get(("persistentvolumeclaims", f"data-{name}"))
            if claim is not None and "deletionTimestamp" in claim["metadata"]:
                self.objects.pop(("persistentvolumeclaims", f"data-{name}"))

    def _pod_of(self, claim: str) -> Manifest | None:
        return self.objects.get(("pods", claim.removeprefix("data-")))

    def _host_is_up(self, pod: Manifest) -> bool:
        return self.hosts.get(pod["spec"].get("nodeName", ""), False)

    # -- controllers, scheduler and kubelets: one step of each

    def settle(self) -> None:
        """What the rest of Kubernetes and the nodes do between two reconciles."""
        for host, is_up in self.hosts.items():
            node = self.objects["nodes", host]
            node["metadata"]["labels"] = {"topology.kubernetes.io/zone": f"zone-{host[-1]}"}
            ready = {"type": "Ready", "status": "True" if is_up else "Unknown"}
            node["status"] = {
                "conditions": [ready | {"lastTransitionTime": "2026-01-01T00:00:00Z"}]
            }
        for (plural, name), item in sorted(self.objects.items()):
            is_going = "deletionTimestamp" in item["metadata"]
            if plural == "pods" and is_going and self._host_is_up(item):
                self.remove("pods", name)
        for (plural, _), item in sorted(self.objects.items()):
            if plural == "statefulsets":
                self._run_stateful_set(item)
            if plural == "deployments":
                replicas = item["spec"]["replicas"]
                item["status"] = {"replicas": replicas, "readyReplicas": replicas}
                item["status"]["conditions"] = [{"type": "Available", "status": "True"}]
        self.nodes.step()

    def _run_stateful_set(self, item: Manifest) -> None:
        name, template = item["metadata"]["name"], item["spec"]["template"]
        claim_template = item["spec"]["volumeClaimTemplates"][0]
        for ordinal in range(item["spec"]["replicas"], 12):
            if ("pods", f"{name}-{ordinal}") in self.objects:
                assert ordinal not in self.nodes.leaving, "its shards are still needed"
                self.remove("pods", f"{name}-{ordinal}")
        for ordinal in range(item["spec"]["replicas"]):
            pod_name, claim_name = f"{name}-{ordinal}", f"data-{name}-{ordinal}"
            claim = self.objects.get(("persistentvolumeclaims", claim_name))
            if claim is None:
                claim = clone(claim_template)
                claim["metadata"]["name"] = claim_name
                claim["status"] = {"phase": "Pending"}
                self.put("persistentvolumeclaims", claim)
                claim = self.objects["persistentvolumeclaims", claim_name]
            size = claim["spec"]["resources"]["requests"]["storage"]
            claim["status"]["capacity"] = {"storage": size}
            if ("pods", pod_name) not in self.objects:
                pod = {"metadata": clone(template["metadata"]), "spec": template["spec"]}
                pod["metadata"] |= {"name": pod_name}
                self.put("pods", clone(pod) | {"status": {"phase": "Pending"}})
                continue  # placed and started with the next step
            self._run_pod(self.objects["pods", pod_name], claim)

    def _run_pod(self, pod: Manifest, claim: Manifest) -> None:
        bound = claim["metadata"].setdefault("annotations", {}).get("host")
        if not pod["spec"].get("nodeName") and "deletionTimestamp" not in claim["metadata"]:
            used = {
                o["spec"].get("nodeName") for (kind, _), o in self.objects.items() if kind == "pods"
            }
            free = [h for h, is_up in self.hosts.items() if is_up and h not in used]
            host = bound or (free[0] if free else None)
            if host is not None and self.hosts[host]:
                pod["spec"]["nodeName"] = host
                claim["metadata"]["annotations"]["host"] = host
                claim["status"]["phase"] = "Bound"
                claim["spec"]["volumeName"] = f"volume-{claim['metadata']['uid']}"
                self.put("persistentvolumes", volume(claim["spec"]["volumeName"], host))
        image = pod["spec"]["containers"][0]["image"]
        if pod["spec"].get("nodeName") and self._host_is_up(pod):
            number = int(pod["metadata"]["name"].rpartition("-")[2]) + 1
            works = image != BAD_IMAGE
            status: Manifest = {"phase": "Running", "podIP": f"10.0.0.{number}"}
            ready = works and image != USELESS_IMAGE
            status["conditions"] = [{"type": "Ready", "status": "True" if ready else "False"}]
            if not works:
                waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
                status = {
                    "phase": "Pending",
                    "containerStatuses": [{"state": {"waiting": waiting}}],
                }
            pod["status"] = status
        elif pod["spec"].get("nodeName"):
            pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]


def volume(name: str, host: str) -> Manifest:
    """A local volume: one host alone reaches it."""
    rule = {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}
    affinity = {"required": {"nodeSelectorTerms": [{"matchExpressions": [rule]}]}}
    return {"metadata": {"name": name}, "spec": {"nodeAffinity": affinity}}


def merge(live: Any, wanted: Any) -> Any:
    """Dictionaries are merged, everything else is replaced."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        found = dict(live)
        for key, value in wanted.items():
            if value is None:
                found.pop(key, None)
            else:
                found[key] = merge(live.get(key), value)
        return found
    return clone(wanted)


def without(live: Any, before: Any, now: Any) -> Any:
    """Server-side apply takes out what the last intent had and this one has not."""
    for key in set(before) - {"apiVersion", "kind"}:
        if key not in now:
            live.pop(key, None)
        elif all(isinstance(each.get(key), dict) for each in (live, before, now)):
            without(live[key], before[key], now[key])
    return live


def clone(value: Any) -> Any:
    """A copy of plain data, many times as fast as copy.deepcopy."""
    if isinstance(value, dict):
        return {key: clone(item) for key, item in value.items()}
    if isinstance(value, list):
        return [clone(item) for item in value]
    return value


def fingerprints(world: World) -> set[str]:
    """What the nodes' pods were started with."""
    return {
        item["metadata"]["annotations"][FINGERPRINT_ANNOTATION]
        for (plural, _), item in world.objects.items()
        if plural == "pods"
    }
