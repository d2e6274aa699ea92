"""The status: everything in it is observed in this round, but for the times of conditions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distkv.manifest.status import (
    ClusterStatus,
    Condition,
    Endpoints,
    Failures,
    GatewayStatus,
    Layout,
    LayoutMember,
    MemberStatus,
    Shards,
)
from distkv_operator import names
from distkv_operator.planning.budget import Budget
from distkv_operator.planning.observed import Manifest, Observed, format_time
from distkv_operator.planning.record import Record
from distkv_operator.planning.seats import SeatState


def status(
    observed: Observed,
    record: Record | None,
    states: Sequence[SeatState],
    budget: Budget,
    leader: int | None,
    notes: Mapping[int, str],
    image: str,
    conditions: list[Condition],
) -> Manifest:
    """As the resource has it: camelCase, nothing unset."""
    members = [_member(observed, state, notes.get(state.ordinal, "")) for state in states]
    ready = sum(1 for state in states if state.votes and state.seat.is_ready)
    found = ClusterStatus(
        observed_generation=observed.generation,
        conditions=conditions,
        # Without a record the status alone knows that there was a cluster: it keeps its word.
        formed=bool(observed.status.get("formed")) if record is None else record.formed,
        cluster_id=_kept(observed, "clusterId") if record is None else record.cluster_id,
        owner_id=_kept(observed, "ownerId") if record is None else record.owner,
        image=image,
        version=_version(states),
        layout=_layout(states),
        layout_summary=layout_summary(observed),
        nodes_summary=f"{ready}/{observed.spec.nodes}",
        replicas=sum(1 for state in states if state.seat.pod is not None),
        ready_replicas=ready,
        selector=",".join(
            f"{key}={value}"
            for key, value in sorted(names.selector(observed.name, names.NODE).items())
        ),
        leader=leader,
        members=members,
        shards=Shards(
            held=sum(member.shards_held for member in members),
            missing=_missing(states),
            corrupt=sum(member.shards_corrupt for member in members),
            bytes=sum(member.bytes_held for member in members),
        ),
        failures=Failures(
            tolerated=budget.tolerated,
            survivable=budget.survivable if record is not None and record.formed else 0,
        ),
        keys=_keys(states),
        gateway=_gateway(observed),
        endpoints=_endpoints(observed),
    )
    return found.model_dump(mode="json", by_alias=True, exclude_none=True)


def _kept(observed: Observed, field: str) -> str:
    return str(observed.status.get(field) or "")


def layout_summary(observed: Observed) -> str:
    """ "3+2": in force; before there is one, wanted."""
    if observed.newest is not None:
        layout = observed.newest.layout
        return f"{layout['data_shards']}+{layout['parity_shards']}"
    return f"{observed.spec.data_shards}+{observed.spec.parity_shards}"


def zone_of(state: SeatState) -> str:
    """Of the host of its pod; empty: unknown."""
    host = state.seat.host
    return host.zone if host is not None else ""


def _member(observed: Observed, state: SeatState, note: str) -> MemberStatus:
    seat, report = state.seat, state.seat.report
    raw = report.status
    role = report.role if report.answers else ""
    if state.is_stranger or report.state == "catching up":
        role = "learner"
    left = raw.get("repair_seconds_left")
    return MemberStatus(
        ordinal=state.ordinal,
        pod=names.Names(observed.name).pod(state.ordinal),
        role="" if role == "none" else role,
        state=report.state if report.answers else state.word,
        detail=note or state.sentence,
        ready=seat.is_ready and report.is_serving,
        node=str(seat.pod["spec"].get("nodeName") or "") if seat.pod is not None else "",
        zone=zone_of(state),
        incarnation="" if report.incarnation is None else str(report.incarnation),
        claim_uid=seat.claim_uid,
        image=seat.image,
        version=str(raw.get("version") or ""),
        shards_held=report.shards,
        shards_missing=report.missing,
        shards_corrupt=_count(raw.get("shards_corrupt")),
        bytes_held=_count(raw.get("shards_bytes")),
        bytes_missing=_count(raw.get("repair_bytes_left")),
        seconds_left=_count(round(left)) if isinstance(left, int | float) else None,
        last_seen=None if state.since is None else format_time(state.since),
    )


def _layout(states: Sequence[SeatState]) -> Layout | None:
    told = [state.seat.report for state in states if state.seat.report.layout]
    if not told:
        return None
    best = max(told, key=lambda report: (report.epoch, report.applied)).layout
    by_ordinal = {state.ordinal: state for state in states}

    def member(ordinal: int, incarnation: Any) -> LayoutMember:
        state = by_ordinal.get(ordinal)
        host = None if state is None else state.seat.host
        return LayoutMember(
            ordinal=ordinal,
            incarnation=str(incarnation),
            zone="" if host is None else host.zone,
            node="" if host is None else host.name,
        )

    return Layout(
        epoch=_count(best.get("epoch")),
        data_shards=_count(best.get("data_shards")),
        parity_shards=_count(best.get("parity_shards")),
        members=[member(entry[0], entry[1]) for entry in best.get("members") or []],
    )


def _version(states: Sequence[SeatState]) -> str:
    """The lowest that a node reports."""
    found = [str(v) for s in states if (v := s.seat.report.status.get("version"))]
    return min(found, key=_version_key, default="")


def _version_key(text: str) -> tuple[int, ...]:
    return tuple(int("".join(filter(str.isdigit, part)) or "0") for part in text.split("."))


def _keys(states: Sequence[SeatState]) -> int | None:
    counts = [_count(s.seat.report.status.get("keys")) for s in states if s.votes]
    return max(counts, default=None)


def _missing(states: Sequence[SeatState]) -> int | None:
    """Of all that answer; None until each of these has looked. Who waits to be a member is due
    no shard, and cannot know what it will lack."""
    answering = [s for s in states if s.seat.report.is_founded]
    known = [s.seat.report.missing for s in answering if s.seat.report.missing is not None]
    unknown = [s for s in answering if s.seat.report.missing is None]
    return None if any(s.seat.report.incarnation == s.member for s in unknown) else sum(known)


def _gateway(observed: Observed) -> GatewayStatus:
    if "Deployment" in observed.unread:
        kept = observed.status.get("gateway") or {}
        return GatewayStatus(replicas=_count(kept.get("replicas")), ready=_count(kept.get("ready")))
    live = observed.child("Deployment", names.Names(observed.name).gateway)
    said = {} if live is None else live.get("status", {})
    return GatewayStatus(
        replicas=_count(said.get("replicas")), ready=_count(said.get("readyReplicas"))
    )


def _endpoints(observed: Observed) -> Endpoints:
    own = names.Names(observed.name)
    service = own.gateway if observed.spec.gateway.replicas else own.service
    host = f"{service}.{observed.namespace}.svc"
    return Endpoints(redis=f"{host}:{names.RESP_PORT}", http=f"http://{host}:{names.HTTP_PORT}")


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
