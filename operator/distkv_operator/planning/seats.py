"""What is the matter with each seat: one word and a sentence, from pod, claim, host and report."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from distkv_operator.planning.observed import Observed, Seat, format_time, parse_time

HEALTHY = "Healthy"
REFILLING = "Refilling"
CATCHING_UP = "CatchingUp"
STRANGER = "WaitingToBeAdmitted"
STARTING = "Starting"
NOT_SERVING = "NotServing"
SILENT = "NotAnswering"
NO_POD = "NoPod"
BROKEN = "CannotStart"
UNPLACED = "CannotBePlaced"
HOST_GONE = "HostGone"
VOLUME_LOST = "VolumeLost"
NOT_MOUNTED = "VolumeNotMounted"

MOUNT_SECONDS = 90.0
"""A volume may take so long to be attached and mounted without anything being the matter."""


@dataclass(frozen=True)
class SeatState:
    """`since`: when it stopped answering, or its host went; kept in the status over rounds."""

    seat: Seat
    member: int | None
    """Incarnation that has the seat, as the members know."""
    word: str
    sentence: str
    since: datetime.datetime | None

    @property
    def ordinal(self) -> int:
        """Of the seat."""
        return self.seat.ordinal

    @property
    def is_healthy(self) -> bool:
        """It serves and misses nothing."""
        return self.word == HEALTHY

    @property
    def votes(self) -> bool:
        """It serves; shards may still be missing."""
        return self.word in (HEALTHY, REFILLING)

    @property
    def is_stranger(self) -> bool:
        """Its directory is not the member's."""
        return self.word == STRANGER


def member_incarnations(observed: Observed) -> dict[int, int]:
    """Who has which seat, by the node that has applied most of the log; else by the record."""
    newest = observed.newest
    if newest is not None:
        return {int(entry[0]): int(entry[1]) for entry in newest.layout["members"]}
    if observed.record is not None:
        return {o: holder.incarnation for o, holder in observed.record.members.items()}
    return {}


def leader_of(observed: Observed) -> int | None:
    """The ordinal that leads and says so itself; it may do so while its own state is mended."""
    leaders = [
        seat
        for seat in observed.seats
        if seat.report.role == "leader"
        and (seat.report.is_serving or seat.report.state == "mending")
    ]
    if leaders:
        return max(leaders, key=lambda s: s.report.applied).ordinal
    return None


def states(observed: Observed) -> tuple[SeatState, ...]:
    """Of every seat, by ordinal."""
    members = member_incarnations(observed)
    before = _since_before(observed)
    found = []
    for seat in observed.seats:
        member = members.get(seat.ordinal)
        word, sentence = _judge(seat, member, observed)
        since = None
        if word not in (HEALTHY, REFILLING, CATCHING_UP, STRANGER, NOT_SERVING):
            since = before.get(seat.ordinal) or observed.now
        found.append(SeatState(seat, member, word, sentence, since))
    return tuple(found)


def _since_before(observed: Observed) -> dict[int, datetime.datetime]:
    """`lastSeen` of the last status: so an operator that restarts does not begin to wait anew."""
    found = {}
    for entry in observed.status.get("members") or []:
        moment = parse_time(str(entry.get("lastSeen") or ""))
        if moment is not None and isinstance(entry.get("ordinal"), int):
            found[entry["ordinal"]] = min(moment, observed.now)
    return found


def _judge(seat: Seat, member: int | None, observed: Observed) -> tuple[str, str]:
    if seat.claim_is_lost:
        return VOLUME_LOST, "the volume behind its claim is gone"
    if seat.report.answers and not seat.is_terminating:
        return _judge_report(seat, member, observed.is_formed)
    return _judge_pod(seat, observed.now)


def _judge_report(seat: Seat, member: int | None, formed: bool) -> tuple[str, str]:
    report = seat.report
    if formed and member is not None and report.incarnation != member:
        return STRANGER, report.detail or "its directory is not the member's"
    if report.state in ("catching up", "mending"):  # it may vote, and hold shards
        return CATCHING_UP, report.detail
    if report.is_serving:
        if report.missing is None:
            return REFILLING, "it has yet to count the shards it lacks"
        if report.missing:
            return REFILLING, f"{report.missing} shards are still missing"
        return HEALTHY, ""
    return NOT_SERVING, f"{report.state}: {report.detail}".rstrip(": ")


def _judge_pod(seat: Seat, now: datetime.datetime) -> tuple[str, str]:
    if seat.pod is None:
        return NO_POD, "it has no pod"
    host = seat.host
    if host is not None and not host.ready:
        since = f" since {format_time(host.since)}" if host.since else ""
        return HOST_GONE, f"Kubernetes node {host.name} is not ready{since}"
    if host is None and (seat.is_placed or seat.volume_host):
        name = seat.pod["spec"].get("nodeName") or seat.volume_host
        return HOST_GONE, f"Kubernetes node {name} does not exist any more"
    if not seat.is_placed:
        if host is not None and host.unschedulable:
            return UNPLACED, f"Kubernetes node {host.name}, which has its volume, is cordoned"
        if seat.waits_because:
            return UNPLACED, seat.waits_because
        return STARTING, "its pod is being placed"
    if seat.is_broken:
        return BROKEN, seat.waits_because
    if seat.is_terminating:
        return STARTING, "its pod is being replaced"
    if seat.is_ready:
        return SILENT, f"its admin listener does not answer ({seat.report.reason})"
    stuck = seat.unmounted_since
    if stuck is not None and (now - stuck).total_seconds() >= MOUNT_SECONDS:
        name = seat.pod["spec"]["nodeName"]
        return NOT_MOUNTED, (
            f"Kubernetes node {name} has not mounted its volume since {format_time(stuck)}: "
            f"kubectl describe pod {seat.pod['metadata']['name']} says why"
        )
    return STARTING, f"its container is starting ({seat.report.reason})"
