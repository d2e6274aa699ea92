"""`kubectl distkv` against a real API server, as kubectl itself starts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed.harness import Cluster, Space

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "crds" / "distkvclusters.distkv.io.yaml"
PATIENCE = 60


@pytest.fixture(scope="module")
def space(cluster: Cluster) -> Iterator[Space]:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD.stem}", "--timeout=30s")
    with cluster.space() as found:
        yield found


@pytest.fixture
def store(space: Space) -> Iterator[str]:
    """A resource that no operator touches, for it is paused, with a status as one writes it."""
    name = "store"
    metadata = {"name": name}
    resource = {"apiVersion": "distkv.io/v1alpha1", "kind": "DistKVCluster", "metadata": metadata}
    space.apply({**resource, "spec": {"dataShards": 1, "parityShards": 0, "paused": True}})
    status = {
        "nodesSummary": "0/1",
        "layout": {"epoch": 1, "members": [{"ordinal": 0, "incarnation": "4611686018427387905"}]},
        "members": [{"ordinal": 0, "pod": "store-0", "state": "catching up"}],
        "shards": {"held": 5, "missing": 2},
    }
    patch = json.dumps({"status": status})
    space.kubectl("patch", "dkv", name, "--subresource=status", "--type=merge", "-p", patch)
    yield name
    space.kubectl("delete", "dkv", name)


def plugin(space: Space, *arguments: str) -> subprocess.CompletedProcess[str]:
    """kubectl finds the plugin beside this Python."""
    provider = space.cluster.provider
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "KUBECONFIG": str(space.cluster.kubeconfig),
        "KUBECTL": str(provider.kubectl()[0]),
    }
    command = [str(provider.kubectl()[0]), "distkv", *arguments, "--namespace", space.name]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def annotations(space: Space, name: str) -> Any:
    return space.get("dkv", name)["metadata"].get("annotations", {})


def test_a_cluster_is_shown(space: Space, store: str) -> None:
    done = plugin(space, "status", store)
    assert done.returncode == 0, done.stderr
    assert f"{space.name}/{store}" in done.stdout
    assert "2 missing" in done.stdout
    assert "paused: the operator changes nothing" in done.stdout
    assert json.loads(plugin(space, "status", "--json").stdout)["name"] == store
    assert store in plugin(space, "status", "-A").stdout


def test_nodes_that_cannot_be_asked_are_shown_as_last_seen(space: Space, store: str) -> None:
    done = plugin(space, "members", store)
    assert done.returncode == 0, done.stderr
    assert "catching up" in done.stdout
    assert "store-0 could not be asked" in done.stderr


def test_pause_and_resume(space: Space, store: str) -> None:
    assert plugin(space, "pause", store).returncode == 0
    assert annotations(space, store)["distkv.io/paused"] == "true"
    assert plugin(space, "pause", store).returncode == 0
    assert plugin(space, "resume", store).returncode == 0
    assert "distkv.io/paused" not in annotations(space, store)
    assert space.get("dkv", store)["spec"]["paused"] is False
    space.kubectl("patch", "dkv", store, "--type=merge", "-p", '{"spec": {"paused": true}}')


def test_a_volume_is_given_up(space: Space, store: str) -> None:
    done = plugin(space, "repair", store, "0", "--yes", "--no-wait")
    assert done.returncode == 0, done.stderr
    assert annotations(space, store)["distkv.io/replace"] == "0=4611686018427387905"


def test_errors_are_one_message(space: Space, store: str) -> None:
    done = plugin(space, "repair", store, "5", "--yes")
    assert done.returncode == 1
    assert "has no node 5" in done.stderr
    done = plugin(space, "status", "nobody")
    assert done.returncode == 1
    assert '"nobody" not found' in done.stderr
    assert "Traceback" not in done.stderr
