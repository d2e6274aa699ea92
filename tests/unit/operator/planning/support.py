"""Observations for tests of planning: a settled cluster of five, and what may be otherwise."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from unit.operator.builders.support import CLUSTER_ID, cluster

from distkv_operator.builders import Context, children, fingerprint
from distkv_operator.names import FINGERPRINT_ANNOTATION, Names
from distkv_operator.planning.budget import Budget, budget
from distkv_operator.planning.children import marked
from distkv_operator.planning.conditions import Said
from distkv_operator.planning.observed import KubeNode, Manifest, Observed, Seat, format_time
from distkv_operator.planning.plan import OperatorFacts, Plan, plan
from distkv_operator.planning.record import Holder, Record, claim_annotations
from distkv_operator.planning.report import NodeReport
from distkv_operator.planning.seats import SeatState, leader_of, states
from distkv_operator.planning.secrets import Fresh
from distkv_operator.planning.steps import DeleteClaim, DeletePod, Step

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
FACTS = OperatorFacts("distkv:1", None)
FRESH = Fresh("f" * 32, "1" * 64, "2" * 64, "3" * 64)
OLD = "old"
"""Fingerprint of pods that have yet to be replaced."""


def before(seconds: float) -> datetime.datetime:
    return NOW - datetime.timedelta(seconds=seconds)


def incarnation(ordinal: int) -> int:
    return 100 + ordinal


def record(nodes: int = 5, **changes: Any) -> Record:
    members = {o: Holder(incarnation(o), f"claim-{o}") for o in range(nodes)}
    made = Record(CLUSTER_ID, "uid-1", founders=True, formed=True, members=members, version="1")
    return replace(made, **changes)


def asking(*ordinals: int, nodes: int = 5, **changes: Any) -> Record:
    """The record, with the directories that newcomers of these ordinals have."""
    joining = {o: (Holder(incarnation(o), f"claim-{o}"),) for o in ordinals}
    return record(nodes, joining=joining, **changes)


def said(
    ordinal: int,
    nodes: int = 5,
    k: int = 3,
    *,
    leads: bool = False,
    survives: int | None = 2,
    epoch: int = 1,
    members: Mapping[int, int] | None = None,
    **changes: Any,
) -> NodeReport:
    """A member's report; `changes` by the names of the status page."""
    seated = {o: incarnation(o) for o in range(nodes)} if members is None else members
    layout = {"epoch": epoch, "data_shards": k, "parity_shards": len(seated) - k}
    layout["members"] = [[o, i] for o, i in sorted(seated.items())]
    page = {
        "cluster": CLUSTER_ID,
        "incarnation": incarnation(ordinal),
        "state": "serving",
        "serving": True,
        "formed": True,
        "role": "leader" if leads else "follower",
        "leader": 0,
        "applied": 7,
        "shards": 9,
        "shards_missing": 0,
        "layout": layout,
        "cluster_view": {"survives": {"durable": survives}, "members": []},
    }
    return NodeReport("", page | changes)


def fresh_directory(ordinal: int, number: int) -> NodeReport:
    """An empty directory in a member's seat."""
    state = {"state": "waiting to be admitted", "serving": False, "formed": False}
    return said(ordinal, incarnation=number, role="none", shards_missing=None, **state)


def unfounded(ordinal: int, **changes: Any) -> NodeReport:
    """A node that no cluster knows yet."""
    page = {"cluster": CLUSTER_ID, "incarnation": incarnation(ordinal), "state": "waiting"}
    return NodeReport("", page | changes)


SILENT = NodeReport("nobody answers")


def host(ordinal: int, **changes: Any) -> KubeNode:
    made = KubeNode(f"host-{ordinal}", True, before(10_000), False, f"zone-{ordinal % 3}")
    return replace(made, **changes)


def claim(ordinal: int, uid: str = "", *, of: Record | None = None, **changes: Any) -> Manifest:
    """A claim of 10Gi, bound; `of`: whose annotations it carries."""
    meta: Manifest = {"name": Names("store").claim(ordinal), "uid": uid or f"claim-{ordinal}"}
    if of is not None:
        meta["annotations"] = claim_annotations(of, ordinal)
    size = {"storage": "10Gi"}
    made = {
        "metadata": meta,
        "spec": {"resources": {"requests": size}},
        "status": {"phase": "Bound", "capacity": size},
    }
    return made | changes


def pod(ordinal: int, mark: str = "", uid: str = "", **changes: Any) -> Manifest:
    """A pod that runs and is ready; `mark`: its fingerprint."""
    meta = {"name": f"store-{ordinal}", "uid": uid or f"pod-{ordinal}"}
    meta |= {"annotations": {FINGERPRINT_ANNOTATION: mark}}  # type: ignore[dict-item]
    spec = {"nodeName": f"host-{ordinal}", "containers": [{"name": "node", "image": "distkv:1"}]}
    ready = [{"type": "Ready", "status": "True"}]
    made = {"metadata": meta, "spec": spec, "status": {"phase": "Running", "conditions": ready}}
    return made | changes


def going(thing: Manifest) -> Manifest:
    """With a deletion under way."""
    return thing | {"metadata": thing["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}


def waiting(reason: str, message: str = "") -> Manifest:
    """Status of a pod whose container cannot start."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"phase": "Pending", "containerStatuses": [{"state": state}]}


def seat(ordinal: int, report: NodeReport | None = None, **changes: Any) -> Seat:
    """A seat of a settled cluster, but for `changes` (fields of Seat)."""
    made = Seat(
        ordinal,
        pod(ordinal),
        claim(ordinal, of=record()),
        host(ordinal),
        "",
        said(ordinal, leads=ordinal == 0) if report is None else report,
    )
    return replace(made, **changes)


def progress(nodes: int = 5, k: int = 3, **changes: Any) -> Manifest:
    """The leader's word on layouts: nothing changes."""
    found = {
        "leads": True,
        "epoch": 1,
        "data_shards": k,
        "parity_shards": nodes - k,
        "changing": False,
    }
    found["members"] = [[o, incarnation(o)] for o in range(nodes)]  # type: ignore[assignment]
    return (
        found
        | {"failures": min(nodes - k, (nodes - 1) // 2), "leaving": [], "waiting": []}
        | (changes)
    )


def settled(
    *seats: Seat,
    spec: Mapping[str, Any] | None = None,
    annotations: Mapping[str, str] | None = None,
    **changes: Any,
) -> Observed:
    """Five healthy nodes, but for the seats that are given; children and marks are as wanted."""
    wanted = cluster(**({"dataShards": 3, "parityShards": 2} | dict(spec or {})))
    by_ordinal = {each.ordinal: each for each in map(seat, range(5))}
    by_ordinal |= {each.ordinal: each for each in seats}
    context = Context("space", "uid-1", "distkv:1", CLUSTER_ID, 5, True, False)
    mark = fingerprint(wanted, context)
    found = Observed(
        now=NOW,
        cluster=wanted,
        namespace="space",
        uid="uid-1",
        generation=1,
        status={"formed": True, "clusterId": CLUSTER_ID, "image": "distkv:1"},
        annotations=dict(annotations or {}),
        record=record(),
        record_fault="",
        children=_children(wanted, context),
        seats=tuple(_marked(each, mark) for _, each in sorted(by_ordinal.items())),
        layout_progress=progress(),
    )
    return replace(found, **changes)


def last_seen(*ordinals: int, seconds: float = 10_000) -> dict[str, Any]:
    """The last status, in which these were seen so long ago; for `settled`."""
    moment = format_time(before(seconds))
    members = [{"ordinal": ordinal, "lastSeen": moment} for ordinal in ordinals]
    return {"status": settled().status | {"members": members}}


def _children(wanted: Any, context: Context) -> dict[tuple[str, str], Manifest]:
    found = {
        (child["kind"], child["metadata"]["name"]): marked(child)
        for child in children(wanted, context)
    }
    for child in found.values():
        child["metadata"] = child["metadata"] | {"uid": f"uid-{child['kind']}"}
    own = Names("store")
    for name in (own.identity, own.cluster_key, own.admin_token, own.link_token):
        found["Secret", name] = {"kind": "Secret", "metadata": {"name": name, "uid": name}}
    gateway = found.get(("Deployment", own.gateway))
    if gateway is not None:
        available = [{"type": "Available", "status": "True"}]
        count = wanted.spec.gateway.replicas
        gateway["status"] = {"replicas": count, "readyReplicas": count, "conditions": available}
    return found


def _marked(each: Seat, mark: str) -> Seat:
    """Pods without a mark of their own carry the present one."""
    if each.pod is None or each.pod["metadata"]["annotations"][FINGERPRINT_ANNOTATION]:
        return each
    meta = each.pod["metadata"] | {"annotations": {FINGERPRINT_ANNOTATION: mark}}
    return replace(each, pod=each.pod | {"metadata": meta})


def planned(observed: Observed) -> Plan:
    return plan(observed, FACTS, FRESH)


def condition(found: Plan, kind: str) -> Said:
    return next(entry for entry in found.said if entry.type == kind)


def taken(steps: Iterable[Step]) -> list[str]:
    """What is taken away: names of pods and claims."""
    return [step.name for step in steps if isinstance(step, DeletePod | DeleteClaim)]


def judged(observed: Observed) -> tuple[tuple[SeatState, ...], Budget, int | None]:
    found = states(observed)
    return found, budget(observed, found), leader_of(observed)
