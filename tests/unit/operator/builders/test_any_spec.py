"""Whatever a user may write: the manifests stay sound, and the store cannot be broken by it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from distkv.config import load
from distkv_operator import names
from distkv_operator.builders import Context, Manifest, children, fingerprint, reference, unwanted

from .drawn import specs
from .support import cluster, context
from .test_children import values


@st.composite
def situations(draw: st.DrawFn) -> tuple[dict[str, Any], Context]:
    spec = draw(specs())
    found = context(
        cluster(**spec),
        disruption_allowed=draw(st.booleans()),
        service_monitors=draw(st.booleans()),
    )
    if draw(st.booleans()):
        found = found._replace(operator=None)
    return spec, found


def pods(found: tuple[Manifest, ...]) -> list[tuple[str, Manifest]]:
    """(component, pod template) of all that make pods."""
    makers = [child for child in found if child["kind"] in ("StatefulSet", "Deployment")]
    return [
        (child["metadata"]["labels"][names.COMPONENT_LABEL], child["spec"]["template"])
        for child in makers
    ]


@settings(max_examples=60)
@given(situations())
def test_children_are_sound_and_deterministic(situation: tuple[dict[str, Any], Context]) -> None:
    spec, around = situation
    found = children(cluster(**spec), around)
    again = children(cluster(**json.loads(json.dumps(spec))), around)
    assert json.dumps(found) == json.dumps(again)
    assert len({reference(child) for child in found}) == len(found)
    assert not {reference(child) for child in found} & set(unwanted(cluster(**spec), around))
    for child in found:
        (owner,) = child["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == (names.KIND, "store", "uid-1")
        assert child["metadata"]["labels"][names.CLUSTER_LABEL] == "store"
        assert child["metadata"]["namespace"] == "space"
        assert None not in values(child)


@settings(max_examples=60)
@given(situations())
def test_no_override_breaks_the_store(situation: tuple[dict[str, Any], Context]) -> None:
    spec, around = situation
    found = children(cluster(**spec), around)
    for component, template in pods(found):
        wanted = names.selector("store", component)
        assert wanted.items() <= template["metadata"]["labels"].items()
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert len(pod["containers"]) == 1
        (container,) = pod["containers"]
        assert container["command"][0] == "distkv"
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert ("cluster-key" in mounted) is (component == names.NODE)
        if component == names.NODE:
            mark = template["metadata"]["annotations"][names.FINGERPRINT_ANNOTATION]
            assert mark == fingerprint(cluster(**spec), around)


@settings(max_examples=30)
@given(situations())
def test_every_configuration_is_one_that_starts(
    situation: tuple[dict[str, Any], Context],
) -> None:
    spec, around = situation
    found = children(cluster(**spec), around)
    with tempfile.TemporaryDirectory() as scratch:
        for role in ("node", "gateway"):
            path = Path(scratch) / f"{role}.toml"
            path.write_text(found[0]["data"][f"{role}.toml"])
            config = load(role, path, {"DISTKV_NODE__ORDINAL": "0"} if role == "node" else {})
            nodes = config.peers.addresses if role == "node" else config.gateway.nodes
            assert len(nodes) == around.replicas


@settings(max_examples=60)
@given(situations(), st.sampled_from(["gateway", "service", "topology", "monitoring", "paused"]))
def test_other_parts_of_the_specification_replace_no_pod(
    situation: tuple[dict[str, Any], Context], part: str
) -> None:
    spec, around = situation
    without = {key: value for key, value in spec.items() if key != part}
    assert fingerprint(cluster(**spec), around) == fingerprint(cluster(**without), around)
