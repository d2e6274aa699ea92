"""What the charts render, and what their schemas refuse. Needs helm, no cluster.

The files in golden/ are what was rendered; after a change on purpose: DISTKV_GOLDEN=write.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from testbed.namespaces.tools import ensure_tools
from testbed.paths import CHECKOUT
from testbed.progress import Progress
from testbed.run import run

CHARTS = CHECKOUT / "charts"
GOLDEN = Path(__file__).parent / "golden"
KUBERNETES = "--kube-version=1.35.4"

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "operator-defaults": ("distkv-operator", {}),
    "operator-namespaced": (
        "distkv-operator",
        {
            "watchNamespaces": ["shop", "stock"],
            "replicas": 1,
            "crds": {"install": False},
            "networkPolicy": {"metricsNamespaces": ["monitoring"]},
        },
    ),
    "operator-everything": (
        "distkv-operator",
        {
            "image": {"repository": "registry.test/distkv", "tag": "1.2.3", "pullPolicy": "Always"},
            "imagePullSecrets": ["pull"],
            "clusterImage": "registry.test/distkv:1.2.2",
            "crds": {"keep": False},
            "serviceAccount": {"name": "own", "annotations": {"a": "b"}},
            "logging": {"level": "debug", "format": "text"},
            "metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}},
            "fullnameOverride": "keeper",
            "labels": {"team": "data"},
            "podAnnotations": {"note": "text"},
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "only", "operator": "Exists"}],
            "affinity": {"nodeAffinity": {}},
            "priorityClassName": "high",
        },
    ),
    "cluster-defaults": ("distkv-cluster", {}),
    "cluster-everything": (
        "distkv-cluster",
        {
            "nameOverride": "prices",
            "labels": {"team": "data"},
            "annotations": {"a": "b"},
            "dataShards": 4,
            "image": "registry.test/distkv:1.2.3",
            "storage": {"size": "20Gi", "className": "fast"},
            "resources": {"limits": {"memory": "4Gi"}},
            "gateway": {"replicas": 0},
            "config": {"logging": {"level": "debug"}},
            "repair": {"rate": "8Mi"},
            "deletionPolicy": "Delete",
            "podTemplate": {"imagePullSecrets": ["pull"], "imagePullPolicy": "Always"},
            "alerts": {"enabled": True, "labels": {"release": "prometheus"}},
        },
    ),
}

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("distkv-cluster", {"dataShards": 0}, "at '/dataShards': minimum: got 0, want 1"),
    ("distkv-cluster", {"dataShards": None}, "missing property 'dataShards'"),
    ("distkv-cluster", {"dataShards": 12}, "dataShards + parityShards must be at most 12, not 14"),
    ("distkv-cluster", {"storage": {"size": "much"}}, "at '/storage/size': 'much' does not match"),
    ("distkv-cluster", {"storage": {"sise": "1Gi"}}, "additional properties 'sise' not allowed"),
    ("distkv-cluster", {"topology": {"zones": "Maybe"}}, "at '/topology/zones'"),
    ("distkv-cluster", {"gateway": {"replicas": -1}}, "at '/gateway/replicas': minimum"),
    ("distkv-cluster", {"config": {"logging": {"levle": "x"}}}, "additional properties 'levle'"),
    ("distkv-cluster", {"nameOverride": "a-gateway"}, '"a-gateway" cannot be a cluster\'s name'),
    ("distkv-operator", {"replicas": "two"}, "at '/replicas': got string, want integer"),
    ("distkv-operator", {"image": {"pullpolicy": "x"}}, "additional properties 'pullpolicy'"),
    ("distkv-operator", {"logging": {"level": "loud"}}, "at '/logging/level'"),
    ("distkv-operator", {"watchNamespaces": ["Shop"]}, "at '/watchNamespaces/0'"),
]


@pytest.fixture(scope="session")
def helm() -> Path:
    return ensure_tools(Progress(quiet=True))["helm"]


def template(helm: Path, chart: str, values: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    command = [helm, "template", "release", CHARTS / chart, KUBERNETES, "-n", "space", "-f", "-"]
    return run(command, stdin=yaml.safe_dump(values), check=False)


def rendered(helm: Path, chart: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    done = template(helm, chart, values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


@pytest.mark.parametrize("name", CASES)
def test_charts_render_as_they_did(helm: Path, name: str) -> None:
    documents = rendered(helm, *CASES[name])
    for document in documents:
        if document["kind"] == "CustomResourceDefinition":
            document["spec"] = "as in crds/"
    text = yaml.safe_dump_all(documents, sort_keys=True, width=100)
    path = GOLDEN / f"{name}.yaml"
    if os.environ.get("DISTKV_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize(("chart", "values", "words"), REFUSED)
def test_a_wrong_value_is_refused_by_its_name(
    helm: Path, chart: str, values: dict[str, Any], words: str
) -> None:
    done = template(helm, chart, values)
    assert done.returncode != 0
    assert words in done.stderr


@pytest.mark.parametrize("chart", ["distkv-operator", "distkv-cluster"])
def test_helm_finds_nothing_to_complain_about(helm: Path, chart: str) -> None:
    said = run([helm, "lint", "--strict", CHARTS / chart]).stdout
    assert "0 chart(s) failed" in said
    assert "[WARNING]" not in said


def test_the_definition_is_kept_and_updated_by_helm(helm: Path) -> None:
    found = rendered(helm, "distkv-operator", {})
    definition = next(d for d in found if d["kind"] == "CustomResourceDefinition")
    assert definition["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    [source] = (CHECKOUT / "crds").glob("*.yaml")
    assert definition["spec"] == yaml.safe_load(source.read_text())["spec"]


def test_only_what_was_chosen_is_in_the_resource(helm: Path) -> None:
    [resource] = [d for d in rendered(helm, "distkv-cluster", {}) if d["kind"] == "DistKVCluster"]
    assert resource["spec"] == {}
    values = {"parityShards": 1, "storage": {"size": "10Gi", "className": "fast"}}
    found = rendered(helm, "distkv-cluster", values)
    [resource] = [d for d in found if d["kind"] == "DistKVCluster"]
    assert resource["spec"] == {"parityShards": 1, "storage": {"className": "fast"}}


def test_chart_and_install_file_give_the_operator_the_same(helm: Path) -> None:
    """One pod, one set of permissions, however it was installed."""
    values = {"image": {"tag": "dev"}, "replicas": 1}
    chart = {_identity(d): d for d in rendered(helm, "distkv-operator", values)}
    text = (CHECKOUT / "hack" / "install.yaml").read_text()
    installed = {_identity(d): d for d in yaml.safe_load_all(text)}
    for key, document in installed.items():
        if key[0] == "Namespace":
            continue
        same = chart[key]
        for part in ("rules", "roleRef", "automountServiceAccountToken"):
            assert same.get(part) == document.get(part), key
    key = ("Deployment", "distkv-operator")
    ours, theirs = (d[key]["spec"]["template"]["spec"] for d in (chart, installed))
    assert ours.pop("affinity")
    [container], [other] = ours.pop("containers"), theirs.pop("containers")
    assert ours == theirs
    environment = {e["name"]: e["value"] for e in container.pop("env")}
    assert environment.items() >= {e["name"]: e["value"] for e in other.pop("env")}.items()
    assert container == other


def _identity(document: dict[str, Any]) -> tuple[str, str]:
    return document["kind"], document["metadata"]["name"]
