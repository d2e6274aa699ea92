"""A small Kubernetes with small nodes in memory, behind the same transport as the real one.

It has what the operator relies on: server-side apply (merged), preconditions, claims that stay
until their pod is gone, a StatefulSet and a Deployment that act, hosts that can be lost; and
nodes that are founded, formed, replaced and refilled as the members' rules have it. Deliberately
strict: what the real ones would refuse, it refuses.
"""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from distkv_operator.kube.kinds import ALL, Kind, Manifest
from distkv_operator.kube.transport import Request, Response, Unreachable
from distkv_operator.names import FINGERPRINT_ANNOTATION

NAMESPACE = "test"
BAD_IMAGE = "bad"
PATH = re.compile(
    r"^/(?:api|apis)/(?P<version>v1|[^/]+/[^/]+)(?:/namespaces/(?P<namespace>[^/]+))?"
    r"/(?P<plural>[^/?]+)(?:/(?P<name>[^/?]+))?(?:/(?P<sub>[^/?]+))?$"
)
Key = tuple[str, str]


class Refused(Exception):
    """The API server's or a node's answer that is not 2xx."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class World:
    """`calls` counts requests; `before` and `after` may raise at any of them."""

    def __init__(self) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.numbers = itertools.count(1)
        self.hosts: dict[str, bool] = {f"host-{number}": True for number in range(1, 8)}
        self.calls: list[tuple[str, str]] = []
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
        return copy.deepcopy(self.objects[plural, name])

    def _list(self, plural: str, query: dict[str, str]) -> Manifest:
        wanted = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)

        def fits(item: Manifest) -> bool:
            labels = item["metadata"].get("labels", {})
            return all(labels.get(key) == value for key, value in wanted.items())

        items = [o for (kind, _), o in sorted(self.objects.items()) if kind == plural and fits(o)]
        return {"items": copy.deepcopy(items)}

    def _create(self, plural: str, body: Manifest) -> Manifest:
        if (plural, body["metadata"]["name"]) in self.objects:
            raise Refused(409, "AlreadyExists")
        return copy.deepcopy(self.put(plural, body))

    def _replace(self, plural: str, name: str, body: Manifest) -> Manifest:
        live = self._get(plural, name)
        if body["metadata"]["resourceVersion"] != live["metadata"]["resourceVersion"]:
            raise Refused(409, "Conflict")
        body["metadata"] = live["metadata"] | body["metadata"]
        return copy.deepcopy(self.put(plural, body))

    def _delete(self, plural: str, name: str, body: Manifest) -> Manifest:
        live = self._get(plural, name)
        uid = body["preconditions"]["uid"]
        if uid != live["metadata"]["uid"]:
            raise Refused(409, "Conflict")
        self.log.append(f"delete {plural}/{name}")
        if plural == "persistentvolumeclaims" and self._pod_of(name) is not None:
            self.objects[plural, name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return {}
        if plural == "pods" and not self._host_is_up(live) and body.get("gracePeriodSeconds") != 0:
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
            return copy.deepcopy(self.put(plural, body))
        meta = body.get("metadata", {})
        if "uid" in meta and meta["uid"] != live["metadata"]["uid"]:
            raise Refused(409, "Conflict")
        if plural == "statefulsets" and body["spec"]["volumeClaimTemplates"] != live["spec"].get(
            "volumeClaimTemplates"
        ):
            raise Refused(422, "Invalid")
        if sub == "status":
            changed = live | {"status": body["status"]}
        else:
            changed = merge(live, body)
        if changed == live:
            return copy.deepcopy(live)
        return copy.deepcopy(self.put(plural, changed))

    def put(self, plural: str, body: Manifest) -> Manifest:
        """Store it, with a new version."""
        stored = copy.deepcopy(body)
        meta = stored["metadata"]
        meta.setdefault("uid", f"uid-{next(self.numbers)}")
        meta["resourceVersion"] = str(next(self.numbers))
        self.objects[plural, meta["name"]] = stored
        return stored

    def remove(self, plural: str, name: str) -> None:
        """It is gone; a claim that was on its way out goes with its pod."""
        self.objects.pop((plural, name), None)
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
                claim = copy.deepcopy(claim_template)
                claim["metadata"]["name"] = claim_name
                claim["status"] = {"phase": "Pending"}
                self.put("persistentvolumeclaims", claim)
                claim = self.objects["persistentvolumeclaims", claim_name]
            size = claim["spec"]["resources"]["requests"]["storage"]
            claim["status"]["capacity"] = {"storage": size}
            if ("pods", pod_name) not in self.objects:
                pod = {"metadata": copy.deepcopy(template["metadata"]), "spec": template["spec"]}
                pod["metadata"] |= {"name": pod_name}
                self.put("pods", copy.deepcopy(pod) | {"status": {"phase": "Pending"}})
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
            status["conditions"] = [{"type": "Ready", "status": "True" if works else "False"}]
            if not works:
                waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
                status = {
                    "phase": "Pending",
                    "containerStatuses": [{"state": {"waiting": waiting}}],
                }
            pod["status"] = status
        elif pod["spec"].get("nodeName"):
            pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]


class Nodes:
    """The nodes together: one founding, one membership, one log, as the protocol has it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.members: dict[int, int] | None = None
        self.founded_with: list[dict[int, int]] = []
        self.formed = False
        self.owner = ""
        self.cluster = ""
        self.layout = (0, 0)
        self.missing: dict[int, int] = {}
        self.incarnations: dict[str, int] = {}
        self.epoch = 1
        self.restriping = 0
        self.leaving: dict[int, int] = {}
        self.worst = 0
        """Most members that were away, or had shards missing, at the same time once formed."""

    def step(self) -> None:
        """Repair brings one shard to each."""
        self.missing = {o: left - 1 for o, left in self.missing.items() if left > 1}
        self.restriping = max(0, self.restriping - 1)
        if not self.restriping:
            self.leaving = {}
        if self.formed and self.members:
            away = [o for o in self.members if self._state(o)[0] != "serving" or o in self.missing]
            self.worst = max(self.worst, len(away))

    def _claim(self, ordinal: int) -> Manifest | None:
        for (plural, name), item in self.world.objects.items():
            if plural == "persistentvolumeclaims" and name.endswith(f"-{ordinal}"):
                return item
        return None

    def _pod(self, ordinal: int) -> Manifest | None:
        for (plural, name), item in self.world.objects.items():
            if plural == "pods" and name.endswith(f"-{ordinal}"):
                return item
        return None

    def incarnation(self, ordinal: int) -> int:
        """Of the directory on the present claim."""
        claim = self._claim(ordinal)
        assert claim is not None, "a running pod has its claim"
        return self.incarnations.setdefault(claim["metadata"]["uid"], 1000 + len(self.incarnations))

    def _state(self, ordinal: int) -> tuple[str, str]:
        pod = self._pod(ordinal)
        if pod is None or pod["status"].get("phase") != "Running":
            return "down", ""
        if not self.world.hosts.get(pod["spec"]["nodeName"], False):
            return "down", ""
        if self.members is None:
            return "waiting to be founded", ""
        if self.members.get(ordinal) != self.incarnation(ordinal):
            return "waiting to be admitted", "new"
        return ("serving", "") if self.formed else ("forming", "")

    def leader(self) -> int | None:
        """The lowest that serves."""
        serving = [o for o in self.members or {} if self._state(o)[0] == "serving"]
        return min(serving) if self.formed and len(serving) * 2 > len(self.members or {}) else None

    def status(self, ordinal: int) -> Manifest:
        """/v1/admin/status."""
        state, detail = self._state(ordinal)
        own: Manifest = {"cluster": self.config_cluster(), "incarnation": self.incarnation(ordinal)}
        own |= {"state": state, "detail": detail, "formed": False, "serving": False, "role": "none"}
        if self.members is None:
            return own
        leader = self.leader()
        own |= {"formed": self.formed, "serving": state == "serving", "leader": leader}
        own |= {"role": "leader" if leader == ordinal else "follower", "applied": 7}
        own |= {"shards": 9, "shards_missing": self.missing.get(ordinal, 0)}
        members = [[o, i] for o, i in sorted(self.members.items())]
        own["layout"] = {"epoch": self.epoch, "data_shards": self.layout[0], "members": members}
        own["layout"]["parity_shards"] = self.layout[1]
        return own

    def config_cluster(self) -> str:
        """The id in the nodes' configuration file."""
        for (plural, _), item in self.world.objects.items():
            if plural == "configmaps":
                found = re.search(r'id = "([0-9a-f]{32})"', item["data"]["node.toml"])
                assert found is not None
                return found[1]
        return ""

    def serve(self, host: str, method: str, path: str, raw: bytes | None) -> Any:
        """A request to an admin listener."""
        ordinal = int(host.rpartition(".")[2]) - 1
        if self._state(ordinal)[0] == "down":
            raise Unreachable("connection refused")
        body = json.loads(raw) if raw else {}
        if path == "/v1/admin/status":
            return self.status(ordinal)
        if path == "/v1/admin/found":
            return self._found(ordinal, body)
        if self.members is None:
            raise Refused(503, "not_formed")
        if method == "GET":
            assert path == "/v1/admin/layout", path
            return self._progress(ordinal)
        if body["owner"] != self.owner:
            raise Refused(403, "foreign_owner")
        if path == "/v1/admin/formed":
            self.formed = True
            return {"formed": True}
        if path == "/v1/admin/layout":
            return self._change_layout(ordinal, body)
        assert path == "/v1/admin/replace", path
        return self._replace(ordinal, body)

    def _found(self, ordinal: int, body: Manifest) -> Manifest:
        assert ordinal == 0, "found goes to ordinal 0"
        members = dict(body["members"])
        self.founded_with.append(members)
        if self.members is not None and self.members != members:
            raise Refused(400, "founded with another list")
        assert members[0] == self.incarnation(0)
        self.members, self.owner = members, body["owner"]
        self.cluster = body["cluster_id"]
        self.layout = (body["layout"]["data_shards"], body["layout"]["parity_shards"])
        return {"accepted": True}

    def _progress(self, asked: int) -> Manifest:
        if asked != self.leader() or self.members is None:
            return {"leads": False}
        running = [o for o in range(12) if self._pod(o) and self._state(o)[0] != "down"]
        waiting = [o for o in running if o not in self.members and o not in self.leaving]
        return {
            "leads": True,
            "epoch": self.epoch,
            "data_shards": self.layout[0],
            "parity_shards": self.layout[1],
            "members": [[o, i] for o, i in sorted(self.members.items())],
            "changing": self.restriping > 0,
            "records_left": self.restriping,
            "bytes_left": self.restriping,
            "failures": min(self.layout[1], (sum(self.layout) - 1) // 2),
            "leaving": [[o, i] for o, i in self.leaving.items()],
            "waiting": [
                {"ordinal": o, "incarnation": self.incarnation(o), "caught_up": True}
                for o in waiting
            ],
        }

    def _change_layout(self, asked: int, body: Manifest) -> Manifest:
        assert self.members is not None
        if asked != self.leader():
            raise Refused(409, "not_leader")
        if self.restriping or self.missing:
            raise Refused(409, "not_yet")
        members = dict(body["members"])
        assert all(self.incarnation(o) == i for o, i in members.items()), "a stranger"
        assert sorted(members) == list(range(body["data_shards"] + body["parity_shards"]))
        self.leaving = {o: i for o, i in self.members.items() if o not in members}
        self.members, self.layout = members, (body["data_shards"], body["parity_shards"])
        self.epoch, self.restriping = self.epoch + 1, 3
        return {"epoch": self.epoch - 1, "done": False}

    def _replace(self, asked: int, body: Manifest) -> Manifest:
        assert self.members is not None
        ordinal = body["ordinal"]
        if self.members[ordinal] == body["new"]:
            return {"replaced": True}
        if asked != self.leader():
            raise Refused(409, "not_the_leader")
        if self.members[ordinal] != body["old"]:
            raise Refused(400, "old is another")
        if self.incarnation(ordinal) != body["new"]:
            raise Refused(409, "not connected")
        self.members[ordinal] = body["new"]
        self.missing[ordinal] = 3
        return {"replaced": False}


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
    return copy.deepcopy(wanted)


def kind_named(name: str) -> Kind:
    """By the name of the kind."""
    return next(kind for kind in ALL if kind.name == name)


def fingerprints(world: World) -> set[str]:
    """What the nodes' pods were started with."""
    return {
        item["metadata"]["annotations"][FINGERPRINT_ANNOTATION]
        for (plural, _), item in world.objects.items()
        if plural == "pods"
    }
