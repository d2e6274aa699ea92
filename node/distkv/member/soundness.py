"""What the leader must see before members may change: who is up, caught up, and whole.

Protocol section 5: every other member is a caught-up voter or known to have failed, q1 voters
are left, and whoever joins has caught up as a learner before the change is proposed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.core.configuration import Configuration
from distkv.errors import DistKVError, NotFormed
from distkv.ids import Member
from distkv.member.standing import was_removed

if TYPE_CHECKING:
    from distkv.member.seat import Seat

BEHIND_MAX = 1000
"""Slots a member may lag behind the chosen prefix and still count as caught up."""


ANSWERED_HEARTBEATS = 2
"""Within so many it answered, who is said to be there."""


class NotTheLeader(DistKVError):
    """Only the leader changes members; the message names it."""

    code, http, retry = "not_leader", 409, True


class ForeignOwner(DistKVError):
    """The cluster belongs to another owner."""

    code, http = "foreign_owner", 403


class NotYet(DistKVError):
    """The change is right but not safe at this moment."""

    code, http, retry = "not_yet", 409, True


def check_owner(seat: Seat, owner: str) -> None:
    """Raise ForeignOwner for the commands of another owner."""
    if owner != seat.machine.membership.owner:
        raise ForeignOwner("this cluster has another owner; its commands alone are taken")


def check_leader(seat: Seat) -> None:
    """Raise NotTheLeader, NotFormed."""
    if not seat.replica.is_leader:
        leader = seat.replica.leader
        raise NotTheLeader(
            "no leader is known" if leader is None else f"node {leader.ordinal} leads; ask it"
        )
    if not seat.machine.formed:
        raise NotFormed("the cluster is not formed yet")


def reached_by(seat: Seat, member: Member) -> int | None:
    """Slot up to which a connected node knows the log, as far as this one has heard: as a
    leader it hears it with every answer, else once a second. None: it is not connected."""
    if member == seat.member:
        return seat.machine.applied
    greeting = seat.owner.peers.greetings.get(member.ordinal)
    if greeting is None or not seat.owner.peers.is_up(member):
        return None
    told = [peer.chosen for peer in seat.replica.status().peers if peer.member == member]
    return max([greeting.applied, *told])


def held_by(seat: Seat, member: Member) -> int | None:
    """Slot up to which everything is on the disk of a connected node, as far as this one has
    heard; less than it knows (`reached_by`), for a moment. None: it is not connected."""
    status = seat.replica.status()
    if member == seat.member:
        return status.durable
    greeting = seat.owner.peers.greetings.get(member.ordinal)
    if greeting is None or not seat.owner.peers.is_up(member):
        return None
    told = [peer.match for peer in status.peers if peer.member == member]
    return max([greeting.durable, *told])


def is_caught_up(seat: Seat, member: Member) -> bool:
    """Whether it is connected and not far behind the chosen prefix."""
    reached = reached_by(seat, member)
    return reached is not None and reached + BEHIND_MAX >= seat.replica.chosen


def answers(seat: Seat, member: Member) -> bool:
    """Whether a peer answered the leader a moment ago. Its connection counts as up for longer
    after its process has ended, perhaps with its disk."""
    for peer in seat.replica.status().peers:
        if peer.member == member:
            return peer.silent <= ANSWERED_HEARTBEATS * seat.options.replica.heartbeat
    return True


def check_joiner(seat: Seat, member: Member) -> None:
    """Raise NotYet unless this node has caught up as a learner, answers, and is known not to have
    been removed (that it was is the caller's to refuse)."""
    ordinal, incarnation = member
    if was_removed(seat, incarnation) is None:
        raise NotYet(
            f"whether incarnation {incarnation} was removed cannot be read from the disk of node "
            f"{seat.member.ordinal}: what is damaged there is mended first"
        )
    if not (seat.owner.peers.is_up(member) and answers(seat, member)):
        raise NotYet(f"incarnation {incarnation} at ordinal {ordinal} is not connected")
    if not is_caught_up(seat, member):
        raise NotYet(f"incarnation {incarnation} at ordinal {ordinal} has not caught up yet")


def check_quorum(seat: Seat, configuration: Configuration, without: int = -1) -> None:
    """Raise NotYet unless q1 voters of a layout, the ordinal `without` apart, are sound.

    Disks that are lost unnoticed while a layout with a smaller f is asked for may be more than
    that bears, and then nobody can ever be elected under it; so it counts who answers now.
    """
    voters = [m for m in configuration.members if m.ordinal != without]
    sound = [m for m in voters if is_caught_up(seat, m) and answers(seat, m)]
    if len(sound) < configuration.phase_one:
        absent = [m.ordinal for m in voters if m not in sound]
        raise NotYet(
            f"{len(sound)} members of the layout {configuration.data_shards} + "
            f"{configuration.parity_shards} are up and caught up, {configuration.phase_one} are "
            f"needed to change members safely: start nodes {absent} first"
        )
