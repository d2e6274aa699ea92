"""What the conditions say of a round. Messages are written for whoever has to act on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from distkv_operator.names import Names
from distkv_operator.planning.budget import Budget
from distkv_operator.planning.conditions import Said, listing
from distkv_operator.planning.formation import Formation
from distkv_operator.planning.healing import Healing
from distkv_operator.planning.layout import LayoutChange
from distkv_operator.planning.observed import Observed, condition_of
from distkv_operator.planning.rolling import Roll
from distkv_operator.planning.seats import SeatState
from distkv_operator.planning.status import zone_of


def verdicts(
    observed: Observed,
    formation: Formation,
    states: Sequence[SeatState],
    budget: Budget,
    leader: int | None,
    healing: Healing,
    rolling: Roll,
    layout: LayoutChange,
    is_paused: bool,
) -> Iterator[Said]:
    """All conditions that follow from formation, seats and what is under way."""
    members = states[: observed.nodes]
    quorum = _quorum(formation, members, budget, leader)
    available = _available(observed, quorum)
    progressing = _progressing(observed, formation, members, healing, rolling, layout, is_paused)
    yield quorum
    yield available
    yield _shards(formation, members, budget)
    yield progressing
    yield _ready(observed, formation, members, available, rolling)
    yield _zones(members, budget)


def _quorum(
    formation: Formation, members: Sequence[SeatState], budget: Budget, leader: int | None
) -> Said:
    if formation.reason != "Formed":
        return Said("QuorumHealthy", False, formation.reason, formation.message)
    voting = [state.ordinal for state in members if state.votes]
    if len(voting) < budget.quorum:
        down = listing([s.ordinal for s in members if not s.votes])
        message = (
            f"{len(voting)} of {budget.nodes} members serve and {budget.quorum} are needed: "
            f"reads and writes are refused until one more is back ({down} do not serve)"
        )
        return Said("QuorumHealthy", False, "NoQuorum", message)
    if leader is None:
        return Said("QuorumHealthy", False, "NoLeader", "the members are electing a leader")
    message = f"node {leader} leads, {len(voting)} of {budget.nodes} members serve"
    return Said("QuorumHealthy", True, "Quorum", message)


def _available(observed: Observed, quorum: Said) -> Said:
    if not quorum.status:
        return Said("Available", False, quorum.reason, quorum.message)
    if observed.spec.gateway.replicas == 0:
        return Said("Available", True, "Serving", "the nodes take reads and writes")
    if "Deployment" in observed.unread:
        return Said("Available", None, "NotObserved", observed.gaps)
    live = observed.child("Deployment", Names(observed.name).gateway)
    ready = 0 if live is None else int(live.get("status", {}).get("readyReplicas") or 0)
    if ready == 0:
        return Said("Available", False, "NoGateway", "no gateway is ready; the nodes themselves do")
    return Said("Available", True, "Serving", f"{ready} gateways take reads and writes")


def _shards(formation: Formation, members: Sequence[SeatState], budget: Budget) -> Said:
    if formation.reason != "Formed":
        return Said("ShardsHealthy", None, formation.reason, formation.message)
    left = (
        f"of {budget.tolerated} failures that are tolerated, {budget.survivable} more can be "
        "survived now"
    )
    missing = {s.ordinal: s.seat.report.missing for s in members if s.seat.report.missing}
    if missing:
        where = ", ".join(f"{count} on node {ordinal}" for ordinal, count in missing.items())
        return Said("ShardsHealthy", False, "ShardsMissing", f"shards missing: {where}; {left}")
    away = [s.ordinal for s in members if not s.is_healthy]
    if away:
        message = f"{listing(away)} cannot be counted on; {left}"
        return Said("ShardsHealthy", False, "NodesAway", message)
    return Said("ShardsHealthy", True, "AllPresent", f"no shard is missing; {left}")


def _progressing(
    observed: Observed,
    formation: Formation,
    members: Sequence[SeatState],
    healing: Healing,
    rolling: Roll,
    layout: LayoutChange,
    is_paused: bool,
) -> Said:
    if is_paused:
        message = "the operator changes nothing until spec.paused (or the annotation) is taken back"
        return Said("Progressing", False, "Paused", message)
    if formation.reason != "Formed":
        return Said("Progressing", not formation.holds, formation.reason, formation.message)
    notes = "; ".join(
        f"node {ordinal}: {note}" if ordinal >= 0 else note
        for ordinal, note in sorted(healing.notes.items())
    )
    if notes:
        moves = bool(healing.steps) or rolling.step is not None
        return Said("Progressing", moves, "Healing", notes)
    if observed.unread:
        message = f"nothing is taken away meanwhile: {observed.gaps}"
        return Said("Progressing", None, "ObservationIncomplete", message)
    if layout.message:
        return Said("Progressing", True, "ChangingLayout", layout.message)
    if rolling.outdated:
        reason = "RollStuck" if rolling.stuck else "Rolling"
        manual = observed.spec.update_strategy.type == "Manual"
        return Said("Progressing", not rolling.stuck and not manual, reason, rolling.message)
    busy = [state for state in members if not state.is_healthy]
    if not (busy or layout.is_known):
        message = "nobody said yet how far layouts are: the members have no leader that answers"
        return Said("Progressing", None, "LayoutUnknown", message)
    if busy:
        message = "; ".join(f"node {s.ordinal}: {s.sentence or s.word}" for s in busy)
        return Said("Progressing", True, busy[0].word, message)
    return Said("Progressing", False, "Settled", "everything is as the specification wants it")


def _ready(
    observed: Observed,
    formation: Formation,
    members: Sequence[SeatState],
    available: Said,
    rolling: Roll,
) -> Said:
    if not available.status:
        return Said("Ready", available.status, available.reason, available.message)
    unready = [s for s in members if not (s.votes and s.seat.is_ready)]
    if unready:
        message = "; ".join(f"node {s.ordinal}: {s.sentence or s.word}" for s in unready)
        return Said("Ready", False, "NodesNotReady", message)
    live = observed.child("Deployment", Names(observed.name).gateway)
    if observed.spec.gateway.replicas and live is not None:
        ready = int(live.get("status", {}).get("readyReplicas") or 0)
        if condition_of(live, "Available") != "True" or ready < observed.spec.gateway.replicas:
            message = f"{ready} of {observed.spec.gateway.replicas} gateways are ready"
            return Said("Ready", False, "GatewaysNotReady", message)
    if rolling.outdated:
        return Said("Ready", False, "Rolling", rolling.message)
    return Said("Ready", True, "AllReady", f"all {observed.nodes} nodes are ready")


def _zones(members: Sequence[SeatState], budget: Budget) -> Said:
    zones = [zone_of(state) for state in members]
    if not zones or not all(zones):
        message = "the zone of some node is not known (label topology.kubernetes.io/zone)"
        return Said("ZoneFailureSurvivable", None, "ZonesUnknown", message)
    counts = Counter(zones)
    zone, most = max(counts.items(), key=lambda entry: (entry[1], entry[0]))
    spread = ", ".join(f"{zone}: {count}" for zone, count in sorted(counts.items()))
    if most <= budget.tolerated:
        message = f"losing any one zone loses at most {most} nodes ({spread})"
        return Said("ZoneFailureSurvivable", True, "SpreadEnough", message)
    message = (
        f"losing {zone} loses {most} nodes, and {budget.tolerated} are tolerated ({spread}): "
        "spread the nodes over more zones, or raise parityShards"
    )
    return Said("ZoneFailureSurvivable", False, "TooManyInOneZone", message)
