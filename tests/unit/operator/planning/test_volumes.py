"""Growing volumes: claims first, then the StatefulSet that cannot be changed."""

from __future__ import annotations

from typing import Any

import pytest

from distkv_operator.planning.observed import Manifest, Observed
from distkv_operator.planning.steps import Apply, GrowClaim, OrphanStatefulSet
from distkv_operator.planning.volumes import volumes

from .support import SILENT, claim, going, planned, record, seat, settled, taken

LARGE = {"storage": {"size": "20Gi"}}


def sized(ordinal: int, asked: str, capacity: str = "10Gi", **changes: Any) -> Manifest:
    found = claim(ordinal, of=record())
    found["spec"] = {"resources": {"requests": {"storage": asked}}}
    found["status"] = {"phase": "Bound", "capacity": {"storage": capacity}} | changes
    return found


def with_claims(asked: str, capacity: str, **changes: Any) -> Observed:
    return settled(*(seat(o, claim=sized(o, asked, capacity)) for o in range(5)), **changes)


def old_template(observed: Observed) -> Observed:
    live = observed.child("StatefulSet", "store")
    assert live is not None
    (template,) = live["spec"]["volumeClaimTemplates"]
    template["spec"]["resources"]["requests"]["storage"] = "10Gi"
    return observed


def test_claims_are_asked_to_grow_in_use() -> None:
    observed = old_template(settled(spec=LARGE, expandable=True))
    found = volumes(observed)
    assert (found.ready, found.reason) == (False, "Growing")
    assert found.steps == tuple(
        GrowClaim(f"data-store-{o}", f"claim-{o}", "20Gi") for o in range(5)
    )
    assert taken(planned(observed).steps) == []


def test_a_class_that_does_not_grow_is_said() -> None:
    found = volumes(old_template(settled(spec=LARGE, expandable=False)))
    assert (found.reason, found.steps) == ("NotExpandable", ())
    assert "allowVolumeExpansion" in found.message


def test_a_claim_on_its_way_out_is_not_asked() -> None:
    found = volumes(settled(seat(1, claim=going(claim(1))), spec=LARGE, expandable=True))
    assert all(isinstance(s, GrowClaim) and s.uid != "claim-1" for s in found.steps)


def test_then_the_statefulset_is_made_again_without_its_pods() -> None:
    (step,) = volumes(old_template(with_claims("20Gi", "10Gi", spec=LARGE))).steps
    assert isinstance(step, OrphanStatefulSet)
    assert step.uid == "uid-StatefulSet"


def test_one_on_its_way_out_is_not_deleted_again_nor_applied() -> None:
    observed = old_template(with_claims("20Gi", "20Gi", spec=LARGE))
    live = observed.child("StatefulSet", "store")
    assert live is not None
    live["metadata"] = going(live)["metadata"]
    assert volumes(observed).steps == ()
    kinds = [s.manifest["kind"] for s in planned(observed).steps if isinstance(s, Apply)]
    assert "StatefulSet" not in kinds


def test_ready_once_the_capacity_is_there() -> None:
    assert volumes(with_claims("20Gi", "10Gi", spec=LARGE)).reason == "Growing"
    found = volumes(with_claims("20Gi", "20Gi", spec=LARGE))
    assert (found.ready, found.reason, found.steps) == (True, "Bound", ())


def test_a_larger_claim_than_wanted_stays() -> None:
    assert volumes(with_claims("50Gi", "50Gi")).steps == ()


@pytest.mark.parametrize("lost", [None, claim(1, status={"phase": "Pending"})], ids=["none", "new"])
def test_a_node_without_a_volume_is_named(lost: Manifest | None) -> None:
    found = volumes(settled(seat(1, SILENT, claim=lost)))
    assert (found.reason, found.message) == ("ClaimsPending", "nodes without a volume: 1")


def test_until_then_the_old_size_is_applied() -> None:
    observed = old_template(settled(spec=LARGE | {"image": "distkv:2"}, expandable=False))
    (applied,) = [
        step.manifest
        for step in planned(observed).steps
        if isinstance(step, Apply) and step.manifest["kind"] == "StatefulSet"
    ]
    (template,) = applied["spec"]["volumeClaimTemplates"]
    assert template["spec"]["resources"]["requests"]["storage"] == "10Gi"
