"""Replacing a member that lost its disk: named by the owner, through the log, once it is safe.

Protocol section 5: `old` matches by compare-and-set; every other member is a caught-up voter
or known to have failed, with q1 voters left; the joiner caught up as a learner before the
change is proposed. Never by an empty directory alone: a failed mount looks the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.errors import BadRequest
from distkv.ids import Member
from distkv.machine.commands import change_replace
from distkv.member.soundness import NotYet, check_joiner, check_leader, check_owner, check_quorum
from distkv.member.standing import was_removed

if TYPE_CHECKING:
    from distkv.member.seat import Seat


def replace(seat: Seat, owner: str, ordinal: int, old: int, new: int) -> bool:
    """Propose that `new` takes the seat of `old`. True: it has it already.

    A surplus node of an older layout is replaced too, while records need its shards.
    Raises BadRequest, ForeignOwner, NotTheLeader, NotYet, NotFormed.
    """
    check_owner(seat, owner)
    members = seat.machine.membership.everybody
    if not 0 <= ordinal < len(members):
        raise BadRequest(f"ordinal must be between 0 and {len(members) - 1}")
    if members[ordinal].incarnation == new:
        return True
    if members[ordinal].incarnation != old:
        raise BadRequest(
            f"old is {old}, but ordinal {ordinal} is held by {members[ordinal].incarnation}"
        )
    if was_removed(seat, new):  # if that is unknown, `check_joiner` refuses
        raise BadRequest(f"incarnation {new} was removed and is never admitted again")
    check_leader(seat)
    check_joiner(seat, Member(ordinal, new))
    check_quorum(seat, seat.machine.configuration, without=ordinal)
    if not seat.replica.propose_configuration(change_replace(owner, ordinal, old, new)):
        raise NotYet("another change of members is under way")
    seat.owner.poke()
    return False
