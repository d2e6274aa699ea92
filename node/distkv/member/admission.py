"""Replacing a member that lost its disk: named by the owner, through the log, once it is safe.

Protocol section 5: `old` matches by compare-and-set; every other member is a caught-up voter
or known to have failed, with q1 voters left; the joiner caught up as a learner before the
change is proposed. Never by an empty directory alone: a failed mount looks the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.errors import BadRequest, DistKVError, NotFormed
from distkv.ids import Member
from distkv.machine.commands import change_replace

if TYPE_CHECKING:
    from distkv.member.seat import Seat

BEHIND_MAX = 1000
"""Slots a joiner may lag behind the chosen prefix and still count as caught up."""


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


def replace(seat: Seat, owner: str, ordinal: int, old: int, new: int) -> bool:
    """Propose that `new` takes the seat of `old`. True: it has it already.

    Raises BadRequest, ForeignOwner, NotTheLeader, NotYet, NotFormed.
    """
    check_owner(seat, owner)
    members = seat.machine.configuration.members
    if not 0 <= ordinal < len(members):
        raise BadRequest(f"ordinal must be between 0 and {len(members) - 1}")
    if members[ordinal].incarnation == new:
        return True
    if members[ordinal].incarnation != old:
        raise BadRequest(
            f"old is {old}, but ordinal {ordinal} is held by {members[ordinal].incarnation}"
        )
    if seat.machine.membership.was_removed(new):
        raise BadRequest(f"incarnation {new} was removed and is never admitted again")
    if not seat.replica.is_leader:
        leader = seat.replica.leader
        raise NotTheLeader(
            "no leader is known" if leader is None else f"node {leader.ordinal} leads; ask it"
        )
    _check_moment(seat, ordinal, new)
    if not seat.replica.propose_configuration(change_replace(owner, ordinal, old, new)):
        raise NotYet("another change of members is under way")
    seat.owner.poke()
    return False


def _check_moment(seat: Seat, ordinal: int, new: int) -> None:
    if not seat.machine.formed:
        raise NotFormed("the cluster is not formed yet")
    peers, configuration = seat.owner.peers, seat.machine.configuration
    if not peers.is_up(Member(ordinal, new)):
        raise NotYet(f"incarnation {new} at ordinal {ordinal} is not connected to the leader")
    greeting = peers.greetings.get(ordinal)
    if greeting is None or greeting.applied + BEHIND_MAX < seat.replica.chosen:
        raise NotYet(f"incarnation {new} at ordinal {ordinal} has not caught up yet")
    others = [m for m in configuration.members if m.ordinal != ordinal]
    behind = {
        p.member.ordinal
        for p in seat.replica.status().peers
        if p.chosen + BEHIND_MAX < seat.replica.chosen
    }
    sound = [m for m in others if peers.is_up(m) and m.ordinal not in behind]
    if len(sound) < configuration.phase_one:
        raise NotYet(
            f"{len(sound)} of the other members are up and caught up, "
            f"{configuration.phase_one} are needed to change members safely"
        )
