"""Growing volumes: claims are asked to grow in use, then the StatefulSet learns the new size.

A StatefulSet's claim template cannot be changed, so it is deleted without its pods and made
again; the pods are adopted and notice nothing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from distkv.config.units import parse_size
from distkv_operator.names import Names
from distkv_operator.planning.observed import Manifest, Observed, Seat
from distkv_operator.planning.steps import GrowClaim, OrphanStatefulSet, Step


@dataclass(frozen=True)
class Volumes:
    """`ready`: every claim has the size that is wanted. `reason` and `message` of a condition."""

    ready: bool | None
    reason: str
    message: str
    steps: tuple[Step, ...] = ()


def volumes(observed: Observed) -> Volumes:
    """What is to be done about the size of the volumes."""
    wanted = parse_size(observed.spec.storage.size)
    claims = [seat for seat in observed.wanted if seat.claim is not None]
    unbound = [s.ordinal for s in claims if s.claim and s.claim["status"].get("phase") != "Bound"]
    small = [s for s in claims if not s.claim_is_terminating and _requested(s) < wanted]
    if small and observed.expandable is False:
        message = (
            f"volumes of {_sizes(small)} should be {observed.spec.storage.size}, but their "
            "storage class does not let volumes grow (allowVolumeExpansion)"
        )
        return Volumes(False, "NotExpandable", message)
    if small:
        size = observed.spec.storage.size
        steps = [GrowClaim(_name(s), s.claim_uid, size) for s in small]
        return Volumes(False, "Growing", f"volumes are being asked to grow to {size}", tuple(steps))
    step = _outdated_template(observed, wanted)
    growing = [s.ordinal for s in claims if s.ordinal not in unbound and _capacity(s) < wanted]
    steps_now = () if step is None else (step,)
    if growing:
        message = f"volumes of nodes {', '.join(map(str, growing))} are growing"
        return Volumes(False, "Growing", message, steps_now)
    if unbound or len(claims) < observed.nodes:
        missing = unbound or sorted(set(range(observed.nodes)) - {s.ordinal for s in claims})
        message = f"nodes without a volume: {', '.join(map(str, missing))}"
        return Volumes(False, "ClaimsPending", message, steps_now)
    return Volumes(True, "Bound", "every node has its volume", steps_now)


def with_live_claim_template(manifest: Manifest, live: Manifest | None) -> Manifest:
    """The StatefulSet to apply: with the claim template it has now, which cannot be changed."""
    if live is None:
        return manifest
    adapted = copy.deepcopy(manifest)
    ours = adapted["spec"]["volumeClaimTemplates"]
    for template, present in zip(ours, live["spec"]["volumeClaimTemplates"], strict=False):
        requests = present["spec"]["resources"]["requests"]
        template["spec"]["resources"]["requests"]["storage"] = requests["storage"]
    return adapted


def _outdated_template(observed: Observed, wanted: int) -> Step | None:
    live = observed.child("StatefulSet", Names(observed.name).stateful_set)
    if live is None or "deletionTimestamp" in live["metadata"] or observed.unread:
        return None
    template = live["spec"]["volumeClaimTemplates"][0]
    if parse_size(template["spec"]["resources"]["requests"]["storage"]) >= wanted:
        return None
    meta = live["metadata"]
    return OrphanStatefulSet(meta["name"], meta["uid"], "its claim template has the old size")


def _requested(seat: Seat) -> int:
    assert seat.claim is not None, "asked of claims only"
    return parse_size(seat.claim["spec"]["resources"]["requests"]["storage"])


def _capacity(seat: Seat) -> int:
    assert seat.claim is not None, "asked of claims only"
    found = seat.claim["status"].get("capacity", {}).get("storage")
    return 0 if found is None else parse_size(found)


def _name(seat: Seat) -> str:
    assert seat.claim is not None, "asked of claims only"
    return str(seat.claim["metadata"]["name"])


def _sizes(seats: list[Seat]) -> str:
    return "nodes " + ", ".join(str(seat.ordinal) for seat in seats)
