"""Pods of the builders' manifests: they start under the restricted profile, and a node takes over
a changed ConfigMap, peers of a growing cluster among it, without a restart."""

from __future__ import annotations

import base64
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed.harness import Cluster, Space
from testbed.manifests import pod

from distkv.manifest import Cluster as Resource
from distkv.manifest import parse
from distkv_operator import names
from distkv_operator.builders import Context, OperatorPlace, children, fingerprint

CRD = Path(__file__).resolve().parents[2] / "crds" / f"{names.CRD}.yaml"
IMAGE = os.environ.get("DISTKV_TEST_IMAGE", "distkv:dev")
NAME = "pods"
KUBELET_SECONDS = 180
"""A kubelet looks at ConfigMaps about once a minute."""


class Store:
    """One node and one gateway, without an operator: the resource is paused."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self.own = names.Names(NAME)
        self.id = secrets.token_hex(16)

    def resource(self, **spec: Any) -> Resource:
        wanted = {
            "dataShards": 1,
            "parityShards": 0,
            "paused": True,
            "storage": {"size": "200Mi"},
            "gateway": {"replicas": 1},
            **spec,
        }
        meta = {"name": NAME}
        raw = {
            "apiVersion": names.API_VERSION,
            "kind": names.KIND,
            "metadata": meta,
            "spec": wanted,
        }
        self.space.apply(raw)
        return parse(self.space.get("dkv", NAME), "API server")

    def apply(
        self, replicas: int = 1, operator: OperatorPlace | None = None, **spec: Any
    ) -> tuple[Resource, Context]:
        """All children as the builders give them."""
        wanted = self.resource(**spec)
        uid = self.space.get("dkv", NAME)["metadata"]["uid"]
        around = Context(self.space.name, uid, IMAGE, self.id, replicas, True, False, operator)
        for child in children(wanted, around):
            options = ["--server-side", "--field-manager", names.FIELD_MANAGER, "-f", "-"]
            self.space.cluster.kubectl("apply", *options, stdin=json.dumps(child))
        return wanted, around

    def secret(self, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
        meta = {"name": name}
        self.space.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded})

    def logs(self) -> str:
        return self.space.kubectl("logs", self.own.pod(0))

    def restarts(self) -> int:
        status = self.space.get("pod", self.own.pod(0))["status"]
        return int(status["containerStatuses"][0]["restartCount"])

    def status(self, pod: str) -> dict[str, Any]:
        path = f"/api/v1/namespaces/{self.space.name}/pods/{pod}:{names.HTTP_PORT}/proxy/v1/status"
        found: dict[str, Any] = json.loads(self.space.cluster.kubectl("get", "--raw", path))
        return found


@pytest.fixture(scope="module")
def store(cluster: Cluster) -> Iterator[Store]:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD.stem}", "--timeout=30s")
    with cluster.space("restricted") as space:
        found = Store(space)
        found.secret(found.own.cluster_key, key=secrets.token_hex(32))
        found.secret(found.own.admin_token, token="admin")
        found.secret(found.own.link_token, token="link")
        found.apply()
        cluster.wait("the node to say that it is up", lambda: "is up" in found.logs(), 120)
        yield found


def test_a_node_starts_with_its_ordinal_and_waits_to_be_founded(store: Store) -> None:
    status = store.status(store.own.pod(0))
    assert status["ordinal"] == 0
    assert status["cluster"] == store.id
    assert not status["serving"]
    assert f"{store.own.pod(0)} INFO" in store.logs(), "its name is the pod's"


def test_a_gateway_reaches_the_node_by_name_and_token(store: Store) -> None:
    gateway = store.space.items("pods", "-l", f"{names.COMPONENT_LABEL}={names.GATEWAY}")[0]
    name = gateway["metadata"]["name"]
    store.space.cluster.wait(
        "the gateway to be connected", lambda: store.status(name)["nodes_connected"] == 1, 60
    )


def test_a_pod_carries_the_fingerprint_of_what_it_was_started_with(store: Store) -> None:
    wanted, around = store.apply()
    found = store.space.get("pod", store.own.pod(0))["metadata"]
    assert found["annotations"][names.FINGERPRINT_ANNOTATION] == fingerprint(wanted, around)


@pytest.mark.long
def test_changes_that_need_no_restart_reach_a_running_node(store: Store) -> None:
    before = store.space.get("pod", store.own.pod(0))["metadata"]
    wanted, around = store.apply(
        replicas=1,
        repair={"rate": "1Mi"},
        config={"logging": {"level": "debug"}},
        parityShards=1,
    )
    assert fingerprint(wanted, around) == before["annotations"][names.FINGERPRINT_ANNOTATION]
    grown = store.apply(replicas=2, repair={"rate": "1Mi"}, config={"logging": {"level": "debug"}})
    assert fingerprint(*grown) == fingerprint(wanted, around)
    for field in ("repair.rate", "logging.level", "peers.addresses"):
        store.space.cluster.wait(
            f"{field} to be taken over",
            lambda field=field: f"{field} taken over" in store.logs(),  # type: ignore[misc]
            KUBELET_SECONDS,
        )
    assert store.restarts() == 0
    assert store.space.get("pod", store.own.pod(0))["metadata"]["uid"] == before["uid"]


def reaches(space: Space, address: str, port: int) -> bool:
    """Whether the pod `stranger` of that namespace can connect. Raises LabError: nobody tried."""
    program = (
        "import socket\n"
        f"try: socket.create_connection(({address!r}, {port}), 3)\n"
        "except OSError: print('closed')\n"
        "else: print('open')"
    )
    return {"open": True, "closed": False}[space.run("stranger", "python", "-c", program).strip()]


def test_a_stranger_reaches_the_doors_of_clients_only(store: Store) -> None:
    address = store.space.address(store.own.pod(0))
    with store.space.cluster.space() as outside:
        stranger = pod("stranger")
        (container,) = stranger["spec"]["containers"]
        container["image"] = IMAGE
        outside.apply(stranger)
        outside.ready("pod", "stranger")
        assert reaches(outside, address, names.LINK_PORT) is False
        assert reaches(outside, address, names.RESP_PORT)
        assert reaches(outside, address, names.HTTP_PORT)
        assert reaches(outside, address, names.ADMIN_PORT), "no operator inside: the token is all"

        store.apply(operator=OperatorPlace(outside.name, names.OPERATOR_LABELS))
        wait = store.space.cluster.wait
        wait("the admin port to close", lambda: not reaches(outside, address, names.ADMIN_PORT))
        label = [f"{key}={value}" for key, value in names.OPERATOR_LABELS.items()]
        outside.kubectl("label", "pod", "stranger", *label)
        wait("it to open for an operator", lambda: reaches(outside, address, names.ADMIN_PORT))

        store.apply(networkPolicy={"clientNamespaces": ["elsewhere"]})
        wait("clients to be shut out", lambda: not reaches(outside, address, names.RESP_PORT))
