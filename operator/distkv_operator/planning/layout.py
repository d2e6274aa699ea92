"""Driving a change of k and m: learners first, then the new layout, then the old nodes leave.

    StatefulSet grows  ->  new nodes catch up as learners  ->  layout pushed to the leader
        ->  the nodes stripe all records anew and retire the old epoch  ->  StatefulSet shrinks

Each round looks how far the nodes are (GET /v1/admin/layout) and takes the next of these. A
specification that is put back half-way is simply another change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distkv_operator.names import Names
from distkv_operator.planning.observed import Observed, Seat
from distkv_operator.planning.record import Record
from distkv_operator.planning.steps import Command, DeleteClaim, DeletePod, Step

LAYOUT_PATH = "/v1/admin/layout"


@dataclass(frozen=True)
class LayoutChange:
    """`replicas`: pods that are needed now. `message`: what is under way; empty: nothing."""

    replicas: int
    steps: tuple[Step, ...] = ()
    message: str = ""
    under_way: bool = False
    """A layout is being changed, not only wanted: nothing is rolled meanwhile."""
    is_known: bool = True
    """The leader said how far layouts are: without its word nothing is changed or rolled."""


def change_layout(observed: Observed, record: Record, leader: int | None) -> LayoutChange:
    """For a formed cluster."""
    spec, progress = observed.spec, observed.layout_progress
    if progress is None or leader is None or observed.unread:
        # Without the nodes' own word, or with half of what there is, nothing is scaled down.
        return LayoutChange(replicas_kept(observed, record), is_known=False)
    seats = _seats(progress)
    seated = len(seats)
    in_force = (int(progress["data_shards"]), int(progress["parity_shards"]))
    wanted = (spec.data_shards, spec.parity_shards)
    if in_force == wanted:
        if progress.get("changing"):
            return LayoutChange(seated, (), _restriping(progress, wanted), under_way=True)
        return LayoutChange(seated, _left_behind(observed, seated))
    replicas = max(seated, spec.nodes)
    joining = _joining(progress, record, seated, spec.nodes)
    missing = [o for o in range(seated, spec.nodes) if o not in joining]
    text = f"from {in_force[0]}+{in_force[1]} to {wanted[0]}+{wanted[1]}"
    if missing:
        names = ", ".join(map(str, missing))
        return LayoutChange(
            replicas,
            _start_anew(observed, progress, missing),
            message=f"the layout changes {text}: nodes {names} have to start and catch up first",
            under_way=bool(progress.get("changing")),
        )
    seats |= joining
    members = [[ordinal, seats[ordinal]] for ordinal in range(spec.nodes)]
    body = {
        "owner": record.owner,
        "data_shards": spec.data_shards,
        "parity_shards": spec.parity_shards,
        "members": members,
        "epoch": int(progress["epoch"]),
    }
    command = Command(leader, LAYOUT_PATH, body, f"changing the layout {text}")
    return LayoutChange(replicas, (command,), f"the layout changes {text}", under_way=True)


def _seats(progress: Mapping[str, Any]) -> dict[int, int]:
    """Who has a seat in some layout that lives, by ordinal, from 0 on without a gap: the members,
    and those that leave. A layout that wants one of the latter again names it as it is."""
    everybody = [*progress["members"], *(progress.get("leaving") or [])]
    return {int(ordinal): int(incarnation) for ordinal, incarnation in sorted(everybody)}


def replicas_kept(observed: Observed, record: Record) -> int:
    """Pods that are wanted or there now; without StatefulSet and pods, those that were."""
    live = observed.child("StatefulSet", Names(observed.name).stateful_set)
    replicas = 0 if live is None else int(live["spec"].get("replicas") or 0)
    there = [seat.ordinal for seat in observed.seats if seat.pod is not None]
    if not (replicas or there):
        there = list(record.members)
    return max([observed.nodes, replicas, *(ordinal + 1 for ordinal in there)])


def _joining(
    progress: Mapping[str, Any], record: Record, seated: int, wanted: int
) -> dict[int, int]:
    """New nodes that have caught up, and are recorded with their claims: ordinal to incarnation.
    One that is lost the moment after can then be told from a failed mount."""
    return {
        int(entry["ordinal"]): int(entry["incarnation"])
        for entry in progress.get("waiting") or []
        if seated <= int(entry["ordinal"]) < wanted
        and entry.get("caught_up")
        and not entry.get("removed")
        and record.claim_of_joining(int(entry["ordinal"]), int(entry["incarnation"]))
    }


def _start_anew(
    observed: Observed, progress: Mapping[str, Any], missing: Sequence[int]
) -> tuple[Step, ...]:
    """A node that left with an older layout, and whose seat is wanted again before its pod or its
    claim was gone: what it has is never admitted again. It needs an empty directory, as others
    of its kind do whose claims are deleted once their layout is in force. One at a time."""
    waiting = progress.get("waiting") or []
    left = {(int(e["ordinal"]), int(e["incarnation"])) for e in waiting if e.get("removed")}
    names, why = Names(observed.name), "its node had left with an older layout"
    for seat in observed.seats:
        ordinal = seat.ordinal
        if ordinal not in missing or (ordinal, seat.report.incarnation) not in left:
            continue
        steps: list[Step] = []
        if seat.claim is not None and not seat.claim_is_terminating:
            steps.append(DeleteClaim(names.claim(ordinal), seat.claim_uid, why))
        if seat.pod is not None and not seat.is_terminating:
            steps.append(DeletePod(names.pod(ordinal), seat.pod_uid, why))
        return tuple(steps)
    return ()


def _restriping(progress: Mapping[str, Any], wanted: tuple[int, int]) -> str:
    left, size = progress.get("records_left"), progress.get("bytes_left")
    return (
        f"the layout {wanted[0]}+{wanted[1]} is in force; {left} records ({size} bytes) are still "
        "to be striped anew"
    )


def _left_behind(observed: Observed, nodes: int) -> tuple[Step, ...]:
    """Claims of nodes that have left: what is on them is of no use, and a node that comes back
    to that ordinal needs an empty directory."""
    return tuple(
        DeleteClaim(seat.claim["metadata"]["name"], seat.claim_uid, "its node has left the layout")
        for seat in observed.seats[nodes:]
        if seat.claim is not None and _is_unused(seat)
    )


def _is_unused(seat: Seat) -> bool:
    return seat.pod is None and not seat.claim_is_terminating
