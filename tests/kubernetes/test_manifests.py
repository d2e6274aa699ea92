"""The API server takes what the builders make, and the installation, without a warning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from testbed.harness import Cluster

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = sorted((ROOT / "tests" / "unit" / "operator" / "builders" / "golden").glob("*.yaml"))
INSTALLATIONS = sorted((ROOT / "hack").glob("install*.yaml"))
RBAC = "rbac.authorization.k8s.io"


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def dry_run(cluster: Cluster, wanted: list[dict[str, Any]], *options: str) -> str:
    """What the API server says; nothing is changed."""
    listing = {"apiVersion": "v1", "kind": "List", "items": wanted}
    flags = ["--server-side", "--force-conflicts", "--dry-run=server", "--field-manager=test"]
    done = cluster.call("apply", *flags, *options, "-f", "-", stdin=json.dumps(listing))
    assert done.returncode == 0, done.stderr
    assert "arning" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_children_are_taken_and_meet_the_restricted_profile(cluster: Cluster, path: Path) -> None:
    wanted = [d for d in documents(path) if d["kind"] != "ServiceMonitor"]
    with cluster.space("restricted") as space:
        for document in wanted:
            document["metadata"]["namespace"] = space.name
        taken = dry_run(cluster, wanted).splitlines()
    assert len(taken) == len(wanted)


@pytest.mark.parametrize("path", INSTALLATIONS, ids=lambda path: path.stem)
def test_the_installation_is_taken(cluster: Cluster, path: Path) -> None:
    wanted = documents(path)
    with cluster.space("restricted") as space:
        for document in wanted:
            if "namespace" in document["metadata"]:
                document["metadata"]["namespace"] = space.name
        taken = dry_run(cluster, wanted).splitlines()
    assert len(taken) == len(wanted)


@pytest.mark.parametrize("path", INSTALLATIONS, ids=lambda path: path.stem)
def test_nothing_is_granted_that_lets_the_operator_grow(path: Path) -> None:
    rules = [rule for document in documents(path) for rule in document.get("rules", [])]
    assert rules
    for rule in rules:
        assert "*" not in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])
        assert RBAC not in rule["apiGroups"]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert not {"pods/exec", "serviceaccounts/token"} & set(rule["resources"])
