"""Driving a change of k and m: learners first, then the new layout, then the old nodes leave.

    StatefulSet grows  ->  new nodes catch up as learners  ->  layout pushed to the leader
        ->  the nodes stripe all records anew and retire the old epoch  ->  StatefulSet shrinks

Each round looks how far the nodes are (GET /v1/admin/layout) and takes the next of these. A
specification that is put back half-way is simply another change.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distkv_operator.names import Names
from distkv_operator.planning.observed import Observed, Seat
from distkv_operator.planning.record import Record
from distkv_operator.planning.steps import Command, DeleteClaim, Step

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
    nodes = len(progress["members"])
    seated = _seated(progress, nodes)
    in_force = (int(progress["data_shards"]), int(progress["parity_shards"]))
    wanted = (spec.data_shards, spec.parity_shards)
    if in_force == wanted:
        if progress.get("changing"):
            return LayoutChange(seated, (), _restriping(progress, wanted), under_way=True)
        return LayoutChange(seated, _left_behind(observed, seated))
    replicas = max(seated, spec.nodes)
    joining = _joining(progress, record, nodes, spec.nodes)
    missing = [o for o in range(nodes, spec.nodes) if o not in joining]
    text = f"from {in_force[0]}+{in_force[1]} to {wanted[0]}+{wanted[1]}"
    if missing:
        names = ", ".join(map(str, missing))
        return LayoutChange(
            replicas,
            message=f"the layout changes {text}: nodes {names} have to start and catch up first",
            under_way=bool(progress.get("changing")),
        )
    members = [[int(o), int(i)] for o, i in progress["members"]][: spec.nodes]
    members += [[ordinal, joining[ordinal]] for ordinal in range(nodes, spec.nodes)]
    body = {
        "owner": record.owner,
        "data_shards": spec.data_shards,
        "parity_shards": spec.parity_shards,
        "members": members,
        "epoch": int(progress["epoch"]),
    }
    command = Command(leader, LAYOUT_PATH, body, f"changing the layout {text}")
    return LayoutChange(replicas, (command,), f"the layout changes {text}", under_way=True)


def _seated(progress: Mapping[str, Any], nodes: int) -> int:
    """Pods that some living layout needs."""
    leaving = progress.get("leaving") or []
    return max([nodes, *(int(entry[0]) + 1 for entry in leaving)])


def replicas_kept(observed: Observed, record: Record) -> int:
    """Pods that are wanted or there now; without StatefulSet and pods, those that were."""
    live = observed.child("StatefulSet", Names(observed.name).stateful_set)
    replicas = 0 if live is None else int(live["spec"].get("replicas") or 0)
    there = [seat.ordinal for seat in observed.seats if seat.pod is not None]
    if not (replicas or there):
        there = list(record.members)
    return max([observed.nodes, replicas, *(ordinal + 1 for ordinal in there)])


def _joining(
    progress: Mapping[str, Any], record: Record, nodes: int, wanted: int
) -> dict[int, int]:
    """New nodes that have caught up, and are recorded with their claims: ordinal to incarnation.
    One that is lost the moment after can then be told from a failed mount."""
    return {
        int(entry["ordinal"]): int(entry["incarnation"])
        for entry in progress.get("waiting") or []
        if nodes <= int(entry["ordinal"]) < wanted
        and entry.get("caught_up")
        and not entry.get("removed")
        and record.claim_of_joining(int(entry["ordinal"]), int(entry["incarnation"]))
    }


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
