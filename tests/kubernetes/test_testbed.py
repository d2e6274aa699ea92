"""The test bed does what a real cluster does: network, names, volumes, lost nodes, Pod Security."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from testbed.errors import LabError
from testbed.harness import Cluster, Space, hack_kube
from testbed.image.layer import Layer
from testbed.image.oci import write_archive
from testbed.manifests import IDLE, PORT, RESTRICTED, headless, pod, server, stateful

pytestmark = pytest.mark.long
"""The test bed itself: what stands on it is tested each time."""


def test_six_nodes_are_ready_in_three_zones(cluster: Cluster) -> None:
    zone = "topology.kubernetes.io/zone"
    nodes = cluster.items("nodes", "-l", zone)
    zones = Counter(node["metadata"]["labels"][zone] for node in nodes)
    assert zones == {"zone-a": 2, "zone-b": 2, "zone-c": 2}
    assert all(cluster.node_ready(node["metadata"]["name"]) for node in nodes)


def test_up_on_a_running_cluster_changes_nothing(cluster: Cluster) -> None:
    before = {n["metadata"]["uid"] for n in cluster.items("nodes")}
    assert "up already" in hack_kube("up", "--nodes", "6")
    assert {n["metadata"]["uid"] for n in cluster.items("nodes")} == before


def test_pods_on_different_nodes_talk(space: Space) -> None:
    space.apply(server("near", "node1"), server("far", "node2"), pod("client", node="node1"))
    space.ready("pod")
    for name in ("near", "far"):
        target = f"{space.address(name)}:{PORT}"
        assert space.run("client", "probe", "connect", target).strip() == name


def test_names_of_a_stateful_set_resolve(space: Space) -> None:
    space.apply(headless("db"), stateful("db", 3))
    pods = ["db-0", "db-1", "db-2"]
    space.cluster.wait("three pods", lambda: len(space.items("pods")) == 3)
    space.ready("pod")
    addresses = {name: space.address(name) for name in pods}

    def resolved(name: str) -> set[str]:
        return set(space.run("db-0", "probe", "resolve", name).split())

    space.cluster.wait("the Service's name", lambda: resolved("db") == set(addresses.values()))
    for name in pods:
        full = f"{name}.db.{space.name}.svc.cluster.local"
        assert resolved(full) == {addresses[name]}
    assert not space.attempt("db-0", "probe", "resolve", f"db-9.db.{space.name}.svc.cluster.local")


def test_a_volume_survives_its_pod(space: Space) -> None:
    space.apply(stateful("db", 1, "400Mi"))
    space.cluster.wait("the pod", lambda: bool(space.address("db-0")))
    space.ready("pod")
    space.run("db-0", "sh", "-c", "echo kept > /data/file && sync")
    first = space.get("pod", "db-0")["metadata"]["uid"]
    space.kubectl("delete", "pod", "db-0")
    space.cluster.wait("a new pod", lambda: space.get("pod", "db-0")["metadata"]["uid"] != first)
    space.ready("pod", "db-0")
    assert space.run("db-0", "cat", "/data/file") == "kept\n"


def test_a_volume_has_its_size_and_grows_in_use(space: Space) -> None:
    space.apply(stateful("db", 1, "400Mi"))
    space.cluster.wait("the pod", lambda: bool(space.address("db-0")))
    space.ready("pod")
    fill = ("dd", "if=/dev/zero", "of=/data/big", "bs=1M", "count=600")
    full = space.call("exec", "db-0", "--", *fill)
    assert "No space left on device" in full.stderr
    before = _size(space)
    assert 300 * 2**20 < before <= 400 * 2**20

    space.kubectl("patch", "pvc", "data-db-0", "-p", _request("900Mi"))
    space.cluster.wait("the file system to grow", lambda: _size(space) > 800 * 2**20)
    assert space.get("pod", "db-0")["status"]["containerStatuses"][0]["restartCount"] == 0
    space.run("db-0", *fill)
    with pytest.raises(LabError, match="can not be less"):
        space.kubectl("patch", "pvc", "data-db-0", "-p", _request("500Mi"))


def _request(size: str) -> str:
    return json.dumps({"spec": {"resources": {"requests": {"storage": size}}}})


def _size(space: Space) -> int:
    return int(space.run("db-0", "df", "-P", "-k", "/data").splitlines()[-1].split()[1]) * 1024


def test_a_volume_dies_with_its_node(space: Space) -> None:
    cluster = space.cluster
    space.apply(stateful("db", 1, "400Mi", node="node3"))
    cluster.wait("the pod", lambda: bool(space.address("db-0")))
    space.ready("pod")
    space.run("db-0", "sh", "-c", "echo lost > /data/file && sync")
    try:
        hack_kube("node", "stop", "node3", "--wipe")
        cluster.wait("node3 to be lost", lambda: not cluster.node_ready("node3"))
    finally:
        hack_kube("node", "start", "node3")
    cluster.wait("node3 to be back", lambda: cluster.node_ready("node3"))

    # The claim still points at a volume that nobody has any more: only giving it up helps.
    space.kubectl("delete", "pvc", "data-db-0", "--wait=false")
    space.kubectl("delete", "pod", "db-0", "--force")
    cluster.wait("a pod with a new volume", lambda: space.attempt("db-0", "test", "-d", "/data"))
    assert not space.attempt("db-0", "test", "-e", "/data/file")


def test_pods_of_a_stopped_node_are_replaced(space: Space) -> None:
    cluster = space.cluster
    template = pod("web")
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 6,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]},
        },
    }
    spread: dict[str, Any] = {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname"}
    spread |= {"whenUnsatisfiable": "ScheduleAnyway"}
    spread |= {"labelSelector": {"matchLabels": {"app": "web"}}}
    template["spec"]["topologySpreadConstraints"] = [spread]
    space.apply(deployment)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s", timeout=90)
    try:
        hack_kube("node", "stop", "node5")
        cluster.wait("node5 to be NotReady", lambda: not cluster.node_ready("node5"), 20)

        def elsewhere() -> bool:
            up = [p for p in space.items("pods") if p["status"]["phase"] == "Running"]
            return len([p for p in up if p["spec"]["nodeName"] != "node5"]) == 6

        cluster.wait("six pods on the other nodes", elsewhere, 40)
    finally:
        hack_kube("node", "start", "node5")
    cluster.wait("node5 to be back", lambda: cluster.node_ready("node5"), 30)


@pytest.mark.parametrize("verb", ["freeze", "partition"])
def test_a_node_that_hangs_or_is_cut_off_comes_back_as_it_was(space: Space, verb: str) -> None:
    cluster = space.cluster
    never = [{"key": "", "operator": "Exists"}]  # stay, whatever becomes of the node
    stayer = pod("stayer", node="node6")
    stayer["spec"]["tolerations"] = never
    space.apply(stayer, server("other", "node1"))
    space.ready("pod")
    target = f"{space.address('other')}:{PORT}"
    assert space.attempt("stayer", "probe", "connect", target)
    try:
        hack_kube("node", verb, "node6")
        cluster.wait("node6 to be NotReady", lambda: not cluster.node_ready("node6"), 20)
    finally:
        hack_kube("node", "heal", "node6")
    cluster.wait("node6 to be back", lambda: cluster.node_ready("node6"), 20)
    cluster.wait("traffic", lambda: space.attempt("stayer", "probe", "connect", target), 20)
    assert space.get("pod", "stayer")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_pod_security_refuses_a_root_pod(cluster: Cluster) -> None:
    with cluster.space("restricted") as space:
        with pytest.raises(LabError, match="violates PodSecurity") as refusal:
            space.apply(pod("root"))
        assert "runAsNonRoot != true" in str(refusal.value)
        good = pod("good")
        good["spec"]["containers"][0]["securityContext"] = dict(RESTRICTED)
        space.apply(good)
        space.ready("pod")
        status = space.run("good", "cat", "/proc/self/status")
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() == ["10001"] * 4
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        assert int(fields["CapBnd"], 16) == 0
        assert not space.attempt("good", "touch", "/file")


def test_a_loaded_image_runs_on_every_node(space: Space, tmp_path: Path) -> None:
    layer = Layer()
    layer.file("bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
    layer.file("token", space.name.encode())
    write_archive(tmp_path / "image.tar", f"{space.name}:dev", [layer.to_bytes()], {})
    hack_kube("load-image", str(tmp_path / "image.tar"))
    names = [f"on-node{number}" for number in range(1, 7)]
    for number, name in enumerate(names, 1):
        manifest = pod(name, ("/bin/busybox", *IDLE), f"node{number}")
        manifest["spec"]["containers"][0]["image"] = f"{space.name}:dev"
        space.apply(manifest)
    space.ready("pod")
    for name in names:
        assert space.run(name, "/bin/busybox", "cat", "/token") == space.name
