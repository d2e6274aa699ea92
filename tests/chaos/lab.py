"""The cluster under test: made, watched and taken away through kubectl and the test bed."""

from __future__ import annotations

import base64
import gzip
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.errors import LabError
from testbed.harness import Cluster, Space
from testbed.run import run

HERE = Path(__file__).resolve().parent
NAME, CLIENTS = "store", "clients"
HTTP_PORT, RESP_PORT = 8080, 6379
SETTLE_SECONDS = 300.0
FOLDER = "/tmp/run"
PACE_SECONDS = 0.15
"""Mean pause of a client between two operations. With five nodes, Kubernetes and all clients on
two processors, clients that never pause leave nothing idle, and every time-out only tells that."""

Manifest = dict[str, Any]


class Lab:
    """One DistKVCluster with its clients, in a namespace of its own."""

    def __init__(self, space: Space, data_shards: int, parity_shards: int, image: str) -> None:
        self.space, self.image = space, image
        self.data_shards, self.parity_shards = data_shards, parity_shards
        self.size = data_shards + parity_shards
        self.failures = min(parity_shards, (self.size - 1) // 2)
        self.ordinals = tuple(range(self.size))
        self._ends: dict[str, tuple[str, int]] = {}
        self._lost: list[str] = []

    @property
    def cluster(self) -> Cluster:
        return self.space.cluster

    # -- making it

    def manifest(self) -> Manifest:
        """No network policies of the operator's: policies only ever add permissions, so where one
        allows the nodes to talk, no other can cut them off."""
        return {
            "apiVersion": "distkv.io/v1alpha1",
            "kind": "DistKVCluster",
            "metadata": {"name": NAME},
            "spec": {
                "dataShards": self.data_shards,
                "parityShards": self.parity_shards,
                "image": self.image,
                "storage": {"size": "600Mi"},
                "networkPolicy": {"enabled": False},
                "topology": {"hosts": "Required"},
                "volumeLossPolicy": {"delay": "15s"},
                "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
                "gateway": {"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
            },
        }

    def create(self, seconds: float = 300.0) -> None:
        self.space.apply(self.manifest())
        self.cluster.wait("the cluster to be whole", lambda: not self.unsettled(False), seconds)

    def start_clients(self, seed: int, seconds_max: float, rounds: int = 1) -> None:
        """The workload, on a Kubernetes node that holds no member, and so is left alone."""
        config = {
            "seed": seed,
            "doors": [
                [name, f"{host}:{RESP_PORT}", f"{host}:{HTTP_PORT}"]
                for name, host in self.doors().items()
            ],
            "history": f"{FOLDER}/history",
            "stop": f"{FOLDER}/stop",
            "done": f"{FOLDER}/done",
            "seconds_max": seconds_max,
            "key_seconds": 20,
            "pace_seconds": PACE_SECONDS,
            "rounds": rounds,
            "more_of_gateway": 2,
        }
        data = {name: (HERE / name).read_text() for name in ("workload.py", "look.py")}
        data["config.json"] = json.dumps(config)
        meta = {"name": CLIENTS}
        self.space.apply(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data},
            clients_pod(self.image, self.quiet_node()),
        )
        self.space.ready("pod", CLIENTS)

    def stop_clients(self) -> None:
        self.space.run(CLIENTS, "touch", f"{FOLDER}/stop")
        done = ("test", "-e", f"{FOLDER}/done")
        self.cluster.wait("the clients to end", lambda: self.space.attempt(CLIENTS, *done), 60)

    def read_all(self) -> None:
        """Every key at every door, added to the history."""
        command = ("python", "/chaos/workload.py", "final", "/chaos/config.json")
        self.space.kubectl("exec", CLIENTS, "--", *command, timeout=600)

    def fetch_history(self, target: Path) -> None:
        """Compressed on the way, and written so here."""
        command = [*self.cluster.provider.kubectl(), "-n", self.space.name, "exec", CLIENTS, "--"]
        program = (
            "import base64,gzip,pathlib;"
            f"print(base64.b64encode(gzip.compress(pathlib.Path('{FOLDER}/history').read_bytes(),3))"
            ".decode())"
        )
        text = run([*command, "python", "-c", program], timeout=300).stdout
        content = base64.b64decode(text)
        gzip.decompress(content)
        target.write_bytes(content)

    def doors(self) -> dict[str, str]:
        """Name -> host; the gateway first, whose name is g."""
        return {"g": f"{NAME}-gateway"} | {str(o): self.host(o) for o in self.ordinals}

    # -- looking at it

    def host(self, ordinal: int) -> str:
        return f"{NAME}-{ordinal}.{NAME}-peers.{self.space.name}.svc.cluster.local"

    def pod(self, ordinal: int) -> str:
        return f"{NAME}-{ordinal}"

    def claim(self, ordinal: int) -> str:
        return f"data-{NAME}-{ordinal}"

    def node_of(self, pod: str) -> str:
        return str(self.space.get("pod", pod)["spec"]["nodeName"])

    def address(self, ordinal: int) -> str:
        return self.space.address(self.pod(ordinal))

    def quiet_node(self) -> str:
        taken = {self.node_of(self.pod(ordinal)) for ordinal in self.ordinals}
        nodes = {n["metadata"]["name"] for n in self.cluster.items("nodes")}
        free = sorted(
            name
            for name in nodes - taken
            if "node-role.kubernetes.io/control-plane"
            not in self.cluster.get("node", name)["metadata"]["labels"]
        )
        if not free:
            raise LabError("every Kubernetes node holds a member", "give the test bed one more")
        return free[0]

    def look(self, pod: str, what: str, targets: Sequence[str]) -> dict[str, Any]:
        """See look.py. From a member's pod, whose image has it not, the text goes along."""
        program = (HERE / "look.py").read_text()
        said = self.space.kubectl(
            "exec", pod, "--", "python", "-c", program, what, *targets, timeout=40
        )
        found: dict[str, Any] = json.loads(said)
        return found

    def statuses(self, addresses: dict[int, str] | None = None) -> dict[int, Any]:
        """Ordinal -> what the node says of itself; None if it does not answer the clients' pod."""
        where = addresses or {o: self.host(o) for o in self.ordinals}
        targets = {o: f"{address}:{HTTP_PORT}" for o, address in where.items()}
        found = self.look(CLIENTS, "status", list(targets.values()))
        return {ordinal: found[target] for ordinal, target in targets.items()}

    def leader(self) -> int:
        """The ordinal that most nodes follow. LabError: there is none."""
        said = [s["leader"] for s in self.statuses().values() if s and s.get("leader") is not None]
        if not said:
            raise LabError("no node knows a leader")
        return int(max(sorted(set(said)), key=said.count))

    def resource(self) -> Manifest:
        return self.space.get("distkvcluster", NAME)

    def unsettled(self, with_nodes: bool = True, calm: bool = False) -> str:
        """What is not yet as it should be after faults; empty if all is well.

        `calm`: no client writes any more, so a shard that no record names is garbage; under load
        there are always some whose record is on its way.
        """
        try:
            status = self.resource().get("status", {})
            conditions = {c["type"]: c for c in status.get("conditions", [])}
            for wanted in ("Ready", "ShardsHealthy", "QuorumHealthy"):
                condition = conditions.get(wanted, {"status": "absent", "message": ""})
                if condition["status"] != "True":
                    return f"{wanted} is {condition['status']}: {condition.get('message', '')}"
            missing = status.get("shards", {}).get("missing")
            if missing:
                return f"{missing} shards are missing"
            return self._unsettled_nodes(calm) if with_nodes else ""
        except (LabError, KeyError, ValueError) as error:
            return str(error)

    def _unsettled_nodes(self, calm: bool) -> str:
        statuses = self.statuses()
        for ordinal, status in statuses.items():
            if status is None:
                return f"node {ordinal} does not answer"
            for field in ("shards_missing", *(("shards_pending",) if calm else ())):
                if status.get(field):
                    return f"node {ordinal}: {field} {status[field]}"
            if not status.get("serving"):
                return f"node {ordinal} does not serve: {status.get('state')}"
        return ""

    def settle(self, seconds: float = SETTLE_SECONDS, calm: bool = False) -> str:
        """Waits until all is well; what was not, if it never was."""
        limit = time.monotonic() + seconds
        while (why := self.unsettled(calm=calm)) and time.monotonic() < limit:
            self.note_ends()
            time.sleep(1)
        return why

    def note_ends(self) -> None:
        """Sees which pods of the store were replaced or restarted since it last looked."""
        try:
            items = self.space.items("pods", "-l", f"app.kubernetes.io/instance={NAME}")
        except LabError:
            return
        for item in items:
            name = item["metadata"]["name"]
            if not name.rpartition("-")[2].isdigit():
                continue  # gateways are replaced under other names
            uid = item["metadata"]["uid"]
            count = sum(s["restartCount"] for s in item["status"].get("containerStatuses", []))
            before = self._ends.get(name)
            if before is not None:
                more = count - before[1] if before[0] == uid else 1 + count
                self._lost += [name] * more
            self._ends[name] = (uid, count)

    @property
    def ends(self) -> list[str]:
        """Pods of members that ended, once for each time that was seen."""
        return list(self._lost)


def clients_pod(image: str, node: str) -> Manifest:
    """Idle but for the workload; it writes to a volume of its own."""
    container = {
        "name": "clients",
        "image": image,
        "command": ["python", "/chaos/workload.py", "run", "/chaos/config.json"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "programs", "mountPath": "/chaos"},
            {"name": "run", "mountPath": FOLDER},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 10001,
        "runAsGroup": 10001,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CLIENTS, "labels": {"app": CLIENTS}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": {"kubernetes.io/hostname": node},
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "securityContext": security,
            "containers": [container],
            "volumes": [
                {"name": "programs", "configMap": {"name": CLIENTS}},
                {"name": "run", "emptyDir": {}},
                {"name": "tmp", "emptyDir": {}},
            ],
        },
    }
