"""Both charts on a real cluster: installed, tested, upgraded, rolled back, uninstalled."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testbed.harness import Cluster, Space
from testbed.paths import CHECKOUT
from testbed.run import run

CHARTS = CHECKOUT / "charts"
IMAGE = ("--set", "image.tag=dev")
SYSTEM = "distkv-charts"
OPERATOR = "operator"
STORE = "store"
SMALL = {
    "image": "distkv:dev",
    "dataShards": 2,
    "parityShards": 1,
    "storage": {"size": "400Mi"},
    "gateway": {"replicas": 1, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}},
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    "test": {"seconds": 180},
}


class Helm:
    """helm on the cluster of the tests."""

    def __init__(self, cluster: Cluster) -> None:
        self._program = cluster.provider.helm()
        self._environment = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}

    def attempt(
        self, *words: str | Path, values: dict[str, Any] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        more: list[str | Path] = ["-f", "-"] if values is not None else []
        return run(
            [self._program, *words, *more],
            stdin=None if values is None else json.dumps(values),
            check=False,
            timeout=timeout,
            env=self._environment,
        )

    def __call__(
        self, *words: str | Path, values: dict[str, Any] | None = None, timeout: float = 300
    ) -> str:
        done = self.attempt(*words, values=values, timeout=timeout)
        assert done.returncode == 0, f"helm {words}: {done.stdout[-1500:]}{done.stderr[-3000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def helm(cluster: Cluster) -> Helm:
    return Helm(cluster)


def install_operator(helm: Helm) -> str:
    chart = CHARTS / "distkv-operator"
    where = ("-n", SYSTEM, "--create-namespace", "--wait", "--timeout", "180s", "--take-ownership")
    return helm("upgrade", "--install", OPERATOR, chart, *where, *IMAGE)


@pytest.fixture(scope="module")
def operator(cluster: Cluster, helm: Helm) -> Iterator[None]:
    """The operator from its chart, taken away at the end with the definition that it keeps."""
    others = cluster.items("deployments", "-A", "-l", "app.kubernetes.io/name=distkv-operator")
    if others:
        pytest.fail(f"an operator is there already: {others[0]['metadata']['namespace']}")
    install_operator(helm)
    yield
    helm.attempt("uninstall", OPERATOR, "-n", SYSTEM, "--wait")
    cluster.call("delete", "namespace", SYSTEM, "--wait=false")


@pytest.fixture
def shop(cluster: Cluster, operator: None) -> Iterator[Space]:
    with cluster.space("restricted", "shop") as space:
        yield space


def install_store(helm: Helm, space: Space, *more: str) -> str:
    where = ("-n", space.name)
    return helm("install", STORE, CHARTS / "distkv-cluster", *where, *more, values=SMALL)


def whole(space: Space) -> bool:
    status = space.get("dkv", STORE).get("status", {})
    conditions = {c["type"]: c["status"] for c in status.get("conditions", [])}
    return conditions.get("Ready") == "True"


def await_whole(space: Space, seconds: float = 180) -> None:
    space.cluster.wait("the cluster to be ready", lambda: whole(space), seconds)


def distkv(space: Space, *words: str) -> str:
    """At a node's own door: its network policy lets it reach its peers only."""
    server = ("--server", "http://127.0.0.1:8080")
    verb, *rest = words
    return space.run(f"{STORE}-0", "distkv", "kv", verb, *server, *rest)


def claims(space: Space) -> dict[str, str]:
    return {c["metadata"]["name"]: c["metadata"]["uid"] for c in space.items("pvc")}


def test_two_operators_run_and_one_holds_the_lease(cluster: Cluster, operator: None) -> None:
    pods = cluster.items("pods", "-n", SYSTEM, "-l", "app.kubernetes.io/name=distkv-operator")
    assert len(pods) == 2

    def holder_now() -> str:
        lease = cluster.get("-n", SYSTEM, "lease", "distkv-operator")
        return str(lease["spec"].get("holderIdentity") or "")

    cluster.wait("one to hold the lease", lambda: bool(holder_now()))
    holder = holder_now()
    first = next(p for p in pods if holder.startswith(p["metadata"]["name"]))
    cluster.kubectl("-n", SYSTEM, "delete", "pod", first["metadata"]["name"], "--wait=false")

    cluster.wait("the other operator to take over", lambda: holder_now() not in ("", holder), 60)


def test_a_cluster_from_nothing_is_tested_upgraded_and_rolled_back(helm: Helm, shop: Space) -> None:
    notes = install_store(helm, shop)
    assert "2 data and 1 parity shards on 3 nodes" in notes
    said = helm("test", STORE, "-n", shop.name, "--logs", "--timeout", "240s")
    assert "Phase:          Succeeded" in said
    assert "read:  revision 1" in said
    await_whole(shop)
    distkv(shop, "set", "price", "12")

    upgraded = {**SMALL, "gateway": {**SMALL["gateway"], "replicas": 2}}
    helm("upgrade", STORE, CHARTS / "distkv-cluster", "-n", shop.name, values=upgraded)
    gateway = ("deployment", f"{STORE}-gateway")
    shop.cluster.wait(
        "two gateways", lambda: shop.get(*gateway)["status"]["readyReplicas"] == 2, 120
    )

    helm("rollback", STORE, "1", "-n", shop.name)
    shop.cluster.wait("one gateway", lambda: shop.get(*gateway)["spec"]["replicas"] == 1, 120)
    await_whole(shop)
    assert distkv(shop, "get", "price") == "12"

    smaller = {**SMALL, "storage": {"size": "300Mi"}}
    refused = helm.attempt(
        "upgrade", STORE, CHARTS / "distkv-cluster", "-n", shop.name, values=smaller
    )
    assert refused.returncode != 0
    assert "size may only grow" in refused.stderr
    helm("rollback", STORE, "3", "-n", shop.name)
    assert shop.get("dkv", STORE)["spec"]["storage"]["size"] == "400Mi"
    assert whole(shop)


def test_volumes_outlive_the_release_and_are_taken_over(helm: Helm, shop: Space) -> None:
    install_store(helm, shop)
    await_whole(shop)
    distkv(shop, "set", "kept", "yes")
    before = claims(shop)
    assert len(before) == 3
    helm("uninstall", STORE, "-n", shop.name, "--wait", "--timeout", "120s")
    shop.cluster.wait("the pods to be gone", lambda: not shop.items("pods"), 120)
    assert claims(shop) == before
    install_store(helm, shop)
    await_whole(shop)
    assert distkv(shop, "get", "kept") == "yes"
    assert claims(shop) == before


def test_the_wrong_order_of_uninstalling_neither_hangs_nor_loses_a_claim(
    helm: Helm, shop: Space
) -> None:
    """The operator first: the store goes on; then the store: nothing waits for the operator."""
    cluster = shop.cluster
    install_store(helm, shop)
    await_whole(shop)
    distkv(shop, "set", "kept", "yes")
    before = claims(shop)
    helm("uninstall", OPERATOR, "-n", SYSTEM, "--wait", "--timeout", "120s")
    try:
        assert cluster.get("crd", "distkvclusters.distkv.io")
        assert distkv(shop, "get", "kept") == "yes"
        helm("uninstall", STORE, "-n", shop.name, "--wait", "--timeout", "120s")
        cluster.wait("the pods to be gone", lambda: not shop.items("pods"), 120)
        assert claims(shop) == before
    finally:
        install_operator(helm)
    install_store(helm, shop)
    await_whole(shop)
    assert distkv(shop, "get", "kept") == "yes"


def test_an_upgrade_brings_the_definition_up_to_date(
    helm: Helm, cluster: Cluster, operator: None, tmp_path: Path
) -> None:
    """From a release whose definition had no columns yet."""
    older = tmp_path / "distkv-operator"
    shutil.copytree(CHARTS / "distkv-operator", older)
    [path] = (older / "files" / "crds").iterdir()
    definition = yaml.safe_load(path.read_text())
    del definition["spec"]["versions"][0]["additionalPrinterColumns"]
    path.write_text(yaml.safe_dump(definition))

    def columns() -> set[str]:
        version = cluster.get("crd", definition["metadata"]["name"])["spec"]["versions"][0]
        return {column["name"] for column in version.get("additionalPrinterColumns", [])}

    helm("upgrade", OPERATOR, older, "-n", SYSTEM, *IMAGE)
    assert "Missing" not in columns()
    helm("upgrade", OPERATOR, CHARTS / "distkv-operator", "-n", SYSTEM, *IMAGE)
    assert "Missing" in columns()
