"""The operator from its image, with its own permissions, on a real Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from testbed.harness import Cluster, Space, hack_kube
from testbed.paths import CHECKOUT
from testbed.run import run
from unit.operator.rolls import check_leader_last, decisions

from .operating import (
    Operator,
    Store,
    Writer,
    client_pod,
    installed,
    load_redis_image,
)

NEXT_IMAGE = "distkv:next"

pytestmark = pytest.mark.timeout(900)
"""Of a test with its fixtures: images are built and loaded on the way."""


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> Iterator[Operator]:
    run([CHECKOUT / "hack" / "image", "--load"], timeout=900)
    with installed(cluster) as found:
        yield found


@pytest.fixture(scope="module")
def home(cluster: Cluster, operator: Operator) -> Iterator[Space]:
    """A namespace whose pods must meet the restricted profile."""
    with cluster.space("restricted") as space:
        yield space


@pytest.fixture(scope="module")
def shared(home: Space) -> Store:
    """One cluster for the tests that leave it as it was."""
    store = Store(home)
    store.apply(repair={"rate": "256Ki"})
    store.wait_ready()
    client_pod(home)
    return store


@pytest.fixture
def store(shared: Store, operator: Operator) -> Store:
    operator.wait()
    shared.wait_ready()
    return shared


def test_the_minimal_example_becomes_ready_and_serves_redis_cli(
    cluster: Cluster, operator: Operator, tmp_path: Path
) -> None:
    image = load_redis_image(tmp_path)
    example = yaml.safe_load((CHECKOUT / "hack" / "examples" / "minimal.yaml").read_text())
    with cluster.space("restricted") as space:
        minimal = Store(space, example["metadata"]["name"])
        space.apply(example)
        minimal.wait_ready()
        client_pod(space, "redis", image)

        def redis(*words: str) -> str:
            return space.run("redis", "redis-cli", "-h", "minimal-gateway", *words).strip()

        assert redis("SET", "greeting", "hello") == "OK"
        assert redis("GET", "greeting") == "hello"
        status = minimal.status
        assert (status["nodesSummary"], status["layoutSummary"]) == ("5/5", "3+2")
        assert len({member["node"] for member in status["members"]}) == 5
        assert "finalizers" not in space.get("dkv", "minimal")["metadata"]


@pytest.mark.long
def test_a_cluster_is_founded_once_even_if_the_operator_dies(
    cluster: Cluster, operator: Operator
) -> None:
    with cluster.space("restricted") as space:
        store = Store(space)
        store.apply()
        store.wait("the first pods", lambda: len(_nodes(store)) == 5)
        before = {o: store.uid("pod", f"store-{o}") for o in range(5)}
        assert not store.status.get("formed"), "killed too late to be in the middle"
        operator.kill()
        store.wait_ready()
        status = store.status
        assert status["formed"]
        assert status["layout"]["epoch"] == 1
        assert {o: store.uid("pod", f"store-{o}") for o in range(5)} == before
        client_pod(space)
        Writer(store, "client", 2).finish()
        operator.kill()
        operator.wait()
        store.wait_ready()
        assert store.status["clusterId"] == status["clusterId"]


def test_children_deleted_or_edited_by_hand_come_back(store: Store) -> None:
    space = store.space
    service, budget = store.uid("service", "store"), store.uid("pdb", "store")
    wanted = space.get("configmap", "store-config")["data"]
    space.kubectl("delete", "service", "store")
    space.kubectl("delete", "pdb", "store")
    edit = json.dumps({"data": {"node.toml": "broken"}})
    space.kubectl("patch", "configmap", "store-config", "--type=merge", "-p", edit)
    store.wait("the Service", lambda: store.uid("service", "store") != service)
    store.wait("the budget", lambda: store.uid("pdb", "store") != budget)
    store.wait("the file", lambda: space.get("configmap", "store-config")["data"] == wanted)


def test_a_pod_and_its_claim_deleted_are_refilled_even_if_the_operator_dies(
    store: Store, operator: Operator
) -> None:
    Writer(store, "client", 8, 64_000).finish()
    space, claim = store.space, store.uid("pvc", "data-store-2")
    before = store.status["members"][2]["incarnation"]
    space.kubectl("delete", "pvc", "data-store-2", "--wait=false")
    space.kubectl("delete", "pod", "store-2", "--wait=false")
    store.wait("a fresh claim", lambda: store.uid("pvc", "data-store-2") != claim)
    operator.kill()
    store.wait("missing shards to be shown", lambda: store.status["shards"]["missing"] > 0)
    assert store.condition("ShardsHealthy")["status"] == "False"
    store.wait_ready()
    assert store.status["shards"]["missing"] == 0
    assert store.status["members"][2]["incarnation"] != before


@pytest.mark.long
def test_a_node_lost_for_good_moves_its_member(store: Store, operator: Operator) -> None:
    Writer(store, "client", 4, 64_000).finish()
    leader = store.status["leader"]
    client = store.space.get("pod", "client")["spec"]["nodeName"]
    places = {o: store.pod(o)["spec"]["nodeName"] for o in range(5)}
    ordinal = next(o for o in range(5) if o != leader and places[o] != client)
    lost = places[ordinal]
    try:
        hack_kube("node", "stop", lost, "--wipe")
        store.wait(
            "the loss to be seen", lambda: "not ready" in store.condition("Ready")["message"]
        )
        operator.kill()

        def moved() -> bool:
            return bool(store.pod(ordinal)["spec"]["nodeName"] != lost)

        store.wait("the member to move", moved)
        store.wait_ready()
        assert store.status["members"][ordinal]["node"] != lost
    finally:
        hack_kube("node", "start", lost)
    store.wait("the node to be back", lambda: store.space.cluster.node_ready(lost))


@pytest.mark.long
def test_a_new_image_is_rolled_one_by_one_under_load(
    store: Store, operator: Operator, tmp_path: Path
) -> None:
    run([CHECKOUT / "hack" / "image", "--tag", NEXT_IMAGE, "--load"], timeout=900)
    before = {o: store.uid("pod", f"store-{o}") for o in range(5)}
    gone: list[int] = []

    def rolled() -> bool:
        pods = {p["metadata"]["name"]: p for p in store.space.items("pods")}
        away = 0
        for ordinal, uid in before.items():
            pod = pods.get(f"store-{ordinal}")
            ready = pod is not None and any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in pod["status"].get("conditions", [])
            )
            away += not ready
            replaced = pod is None or pod["metadata"]["uid"] != uid
            if replaced and ordinal not in gone:
                gone.append(ordinal)
                if len(gone) == 2:
                    operator.kill()
        assert away <= 1, f"{away} nodes are away at once"
        return len(gone) == 5

    with store.watched(tmp_path / "statuses.json") as statuses:
        writer = Writer(store, "client", 60)
        store.patch(image=NEXT_IMAGE)
        store.space.cluster.wait("all pods to be replaced", rolled, 240)
        store.wait_ready()
        decided = decisions(statuses())
    writer.finish()
    # Leadership moves while pods are replaced: whoever leads by then goes last.
    check_leader_last(decided)
    # The operator that was killed may have died between a deletion and its status.
    unseen = set(gone) - {decision.ordinal for decision in decided}
    assert len(unseen) <= 1, f"nobody saw why {unseen} went: {decided}"
    assert {member["image"] for member in store.status["members"]} == {NEXT_IMAGE}


def test_a_bad_image_stops_after_one_pod_and_is_taken_back(store: Store) -> None:
    good = store.status["image"]
    before = {o: store.uid("pod", f"store-{o}") for o in range(5)}
    store.patch(image="distkv:there-is-none")

    def stopped() -> bool:
        return store.condition("Progressing")["reason"] == "RollStuck"

    store.wait("the roll to stop", stopped)
    assert store.condition("Available")["status"] == "True"
    changed = [o for o, uid in before.items() if store.uid("pod", f"store-{o}") != uid]
    assert len(changed) == 1
    store.patch(image=good)
    store.wait_ready()
    assert all(store.uid("pod", f"store-{o}") == before[o] for o in before if o not in changed)


@pytest.mark.long
def test_k_and_m_change_in_use(store: Store, operator: Operator) -> None:
    Writer(store, "client", 4, 64_000).finish()
    store.patch(dataShards=2, parityShards=1)
    store.wait("the new layout", lambda: store.status["layoutSummary"] == "2+1")
    operator.kill()
    store.wait("three nodes", lambda: _nodes(store) == {"store-0", "store-1", "store-2"})
    store.wait_ready()
    store.patch(dataShards=3, parityShards=2)
    store.wait("the old layout again", lambda: store.status["layoutSummary"] == "3+2")
    store.wait_ready()
    assert len(_nodes(store)) == 5
    Writer(store, "client", 2, 64_000).finish()


def _nodes(store: Store) -> set[str]:
    pods = store.space.items("pods", "-l", "app.kubernetes.io/component=node")
    return {pod["metadata"]["name"] for pod in pods}


def test_volumes_grow_in_use(store: Store) -> None:
    before = {o: store.uid("pod", f"store-{o}") for o in range(5)}
    store.patch(storage={"size": "500Mi"})

    def grown() -> bool:
        claims = store.space.items("pvc")
        sizes = {claim["status"]["capacity"]["storage"] for claim in claims}
        live = store.space.get("statefulset", "store")["spec"]["volumeClaimTemplates"][0]
        return sizes == {"500Mi"} == {live["spec"]["resources"]["requests"]["storage"]}

    store.wait("all volumes to grow", grown)
    store.wait_ready()
    assert {o: store.uid("pod", f"store-{o}") for o in range(5)} == before


def test_without_its_operator_the_store_goes_on_and_can_be_deleted(
    cluster: Cluster, operator: Operator
) -> None:
    with cluster.space("restricted") as space:
        store = Store(space)
        store.apply(dataShards=1, parityShards=2, deletionPolicy="Delete")
        store.wait_ready()
        client_pod(space)
        try:
            operator.scale(0)
            cluster.wait("no operator", lambda: not operator.pods())
            Writer(store, "client", 3).finish()
            space.kubectl("delete", "dkv", "store", timeout=60)
            cluster.wait("the pods to go", lambda: _names(space, "pods") == {"client"}, 150)
            cluster.wait("the claims to go", lambda: not space.items("pvc"))
            kinds = "statefulsets,deployments,services,pdb,networkpolicies"
            cluster.wait("all else to go", lambda: not _names(space, kinds))
        finally:
            operator.scale(1)
            operator.wait()


def _names(space: Space, kinds: str) -> set[str]:
    return {item["metadata"]["name"] for item in space.items(kinds)}
