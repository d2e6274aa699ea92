"""The custom resource definition before a real API server: each rule takes and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from testbed.harness import Cluster, Space

from .crd_cases import CASES, NAMES, TEXTS, Case, bounds, messages

ROOT = Path(__file__).resolve().parents[2]
CRD = ROOT / "crds" / "distkvclusters.distkv.io.yaml"
EXAMPLES = sorted((ROOT / "hack" / "examples").glob("*.yaml"))
(VERSION,) = yaml.safe_load(CRD.read_text())["spec"]["versions"]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]
SPEC = SCHEMA["properties"]["spec"]
API_VERSION, KIND = "distkv.io/v1alpha1", "DistKVCluster"


@pytest.fixture(scope="module")
def crd(cluster: Cluster) -> str:
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{CRD.stem}", "--timeout=30s")
    return CRD.stem


@pytest.fixture(scope="module")
def space(cluster: Cluster, crd: str) -> Iterator[Space]:
    with cluster.space() as found:
        yield found


def resource(name: str, spec: Any) -> dict[str, Any]:
    """Paused: an operator that runs on this cluster leaves it alone."""
    paused = {**spec, "paused": True} if isinstance(spec, dict) else spec
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": paused}


def refusals(space: Space, verb: str, resources: list[dict[str, Any]]) -> dict[str, str]:
    """Why the API server refuses which of them; nothing is changed."""
    listing = {"apiVersion": "v1", "kind": "List", "items": resources}
    options = ["-n", space.name, verb, "--dry-run=server", "--validate=ignore", "-f", "-"]
    done = space.cluster.call(*options, stdin=json.dumps(listing), timeout=120)
    found: dict[str, str] = {}
    for part in re.split(r"\n(?=Error|The )", done.stderr):
        name = re.search(r'(?:DistKVCluster\S*) "([^"]+)" is invalid', part)
        assert name or not part.strip() or part.startswith("Warning"), part
        if name:
            found[name[1]] = part
    taken = set(re.findall(r"distkvcluster\.distkv\.io/(\S+)", done.stdout))
    assert taken == {r["metadata"]["name"] for r in resources} - set(found), done
    return found


def judge(found: dict[str, str], cases: list[tuple[str, Case]]) -> None:
    for name, case in cases:
        assert f"{name}-good" not in found, (case, found[f"{name}-good"])
        assert case.rule in found.get(f"{name}-bad", ""), (case, found.get(f"{name}-bad"))


def test_every_rule_for_new_resources(space: Space) -> None:
    new = [c for c in (*CASES, *TEXTS, *bounds(SPEC)) if c.before is None]
    cases = [(f"c{number}", case) for number, case in enumerate(new)]
    resources = [resource(f"{name}-good", case.good) for name, case in cases]
    resources += [resource(f"{name}-bad", case.bad) for name, case in cases]
    judge(refusals(space, "create", resources), cases)


def test_every_rule_for_changes(space: Space) -> None:
    changes = [c for c in CASES if c.before is not None]
    cases = [(f"u{number}", case) for number, case in enumerate(changes)]
    ends = [(f"{name}-{end}", case) for name, case in cases for end in ("good", "bad")]
    space.apply(*(resource(name, case.before) for name, case in ends))
    resources = [resource(f"{name}-good", case.good) for name, case in cases]
    resources += [resource(f"{name}-bad", case.bad) for name, case in cases]
    judge(refusals(space, "replace", resources), cases)


def test_every_rule_for_names(space: Space) -> None:
    found = refusals(space, "create", [resource(n, {}) for _, *both in NAMES for n in both])
    for message, good, bad in NAMES:
        assert good not in found
        assert message in found[bad]


def test_no_rule_is_without_a_case() -> None:
    cases = [
        *(c.rule for c in (*CASES, *TEXTS, *bounds(SPEC))),
        *(message for message, *_ in NAMES),
    ]
    for message in messages(SCHEMA):
        assert any(message.startswith(rule) for rule in cases), message


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"dataShards": "three"}, "spec.dataShards"),
        ({"storage": {"size": "much"}}, "spec.storage.size"),
        ({"topology": {"zones": "Maybe"}}, 'supported values: "Required", "Preferred", "Ignored"'),
        ({"volumeLossPolicy": {"delay": "5"}}, "spec.volumeLossPolicy.delay"),
        ({"image": ""}, "spec.image"),
        ({"networkPolicy": {"clientNamespaces": ["a", "a"]}}, "clientNamespaces"),
    ],
)
def test_types_and_bounds_of_the_schema(space: Space, spec: Any, words: str) -> None:
    assert words in refusals(space, "create", [resource("typed", spec)])["typed"]


def test_a_field_that_does_not_exist_is_named(space: Space) -> None:
    wrong = json.dumps(resource("typo", {"dataShard": 3}))
    done = space.cluster.call(
        "-n", space.name, "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=wrong
    )
    assert 'unknown field "spec.dataShard"' in done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_the_examples_are_taken(space: Space, path: Path) -> None:
    options = ["apply", "--dry-run=server", "--validate=strict", "-f", str(path)]
    assert "created (server dry run)" in space.kubectl(*options)


def test_defaults_are_filled_in_but_none_of_the_configuration(space: Space) -> None:
    space.apply(resource("plain", {}))
    spec = space.get("dkv", "plain")["spec"]
    assert (spec["dataShards"], spec["parityShards"]) == (3, 2)
    assert spec["storage"] == {"size": "10Gi"}
    assert spec["gateway"]["replicas"] == 2
    assert spec["resources"]["limits"] == {"memory": "2Gi"}
    assert spec["volumeLossPolicy"] == {"mode": "Automatic", "delay": "5m"}
    assert "config" not in spec
    assert "repair" not in spec


def test_it_can_be_read_like_documentation(space: Space) -> None:
    for field in ("", ".spec", ".spec.storage", ".spec.config.limits", ".status.members"):
        text = space.kubectl("explain", f"dkv{field}")
        assert "<no description>" not in text
    text = space.kubectl("explain", "dkv.spec.config.consensus.heartbeat")
    assert "Default: 75ms." in text
    assert "from 25ms to 10s" in text


def test_a_list_shows_the_columns(space: Space) -> None:
    space.apply(resource("shown", {}))
    status = {
        "layoutSummary": "3+2",
        "nodesSummary": "4/5",
        "version": "1.2.3",
        "shards": {"missing": 7},
        "conditions": [
            {
                "type": "Ready",
                "status": "False",
                "reason": "NodeGone",
                "message": "",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
    patch = json.dumps({"status": status})
    space.kubectl("patch", "dkv", "shown", "--subresource=status", "--type=merge", "-p", patch)
    heading, line = space.kubectl("get", "dkv", "shown").splitlines()
    assert heading.split() == [
        *("NAME", "READY", "NODES", "LAYOUT", "HEALTHY", "MISSING", "VERSION", "AGE")
    ]
    assert line.split()[:4] == ["shown", "False", "4/5", "3+2"]
    assert "7" in line.split()
    assert "distkvcluster.distkv.io/shown" in space.kubectl("get", "all", "-o", "name")
