"""What holds for every child of every cluster."""

from __future__ import annotations

from typing import Any

import pytest

from distkv_operator import names
from distkv_operator.builders import children, fingerprint, reference, unwanted

from .support import cluster, context

SPECS: list[dict[str, Any]] = [
    {},
    {"dataShards": 1, "parityShards": 0, "gateway": {"replicas": 0}},
    {"networkPolicy": {"enabled": False}, "monitoring": {"enabled": False}},
    {"podTemplate": {"labels": {"team": "a"}, "tolerations": [{"operator": "Exists"}]}},
]


def values(part: Any) -> list[Any]:
    if isinstance(part, dict):
        return [v for value in part.values() for v in values(value)]
    if isinstance(part, list):
        return [v for value in part for v in values(value)]
    return [part]


@pytest.mark.parametrize("spec", SPECS)
def test_every_child_has_an_owner_labels_and_no_hole(spec: dict[str, Any]) -> None:
    wanted = cluster(**spec)
    found = children(wanted, context(wanted))
    assert len({reference(child) for child in found}) == len(found)
    for child in found:
        metadata = child["metadata"]
        assert metadata["namespace"] == "space"
        assert metadata["labels"][names.INSTANCE_LABEL] == "store"
        assert metadata["labels"][names.CLUSTER_LABEL] == "store"
        (owner,) = metadata["ownerReferences"]
        assert owner["uid"] == "uid-1"
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is False
        assert None not in values(child)


@pytest.mark.parametrize("spec", SPECS)
def test_the_same_arguments_give_the_same_manifests(spec: dict[str, Any]) -> None:
    first, second = cluster(**spec), cluster(**spec)
    assert children(first, context(first)) == children(second, context(second))
    assert fingerprint(first, context(first)) == fingerprint(second, context(second))


@pytest.mark.parametrize("spec", SPECS)
def test_a_child_is_wanted_or_unwanted_never_both(spec: dict[str, Any]) -> None:
    wanted = cluster(**spec)
    made = {reference(child) for child in children(wanted, context(wanted))}
    gone = set(unwanted(wanted, context(wanted)))
    full = cluster()
    assert not made & gone
    assert made | gone == {reference(child) for child in children(full, context(full))}


def test_what_holds_data_or_identity_is_never_unwanted() -> None:
    least = cluster(dataShards=1, parityShards=0, gateway={"replicas": 0})
    kinds = {child.kind for child in unwanted(least, context(least))}
    assert not kinds & {"StatefulSet", "Secret", "PersistentVolumeClaim", "ConfigMap"}
