"""Layout epochs: the owner's command to change (k, m, n), and the end of old epochs.

Protocol section 6. The entry that begins an epoch changes who votes and how new values are
coded, at once; the records of older epochs stay readable from the members of *their* layout
until each was striped anew (`data`). A node that the newest layout leaves out is a learner
that keeps its shards. Once no record names an old epoch, the leader proposes to retire it,
and only then do the nodes leave that no other layout seats.

A change that lowers f may forget nothing: slots chosen by the old f + 1 are held by the new
f + 1 members before anything is proposed above the change (`core.leader`). What can be
survived meanwhile is the smallest f of the layouts that records name: see `Epochs.failures_now`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.core.configuration import Configuration, check
from distkv.errors import BadRequest
from distkv.ids import Member
from distkv.machine.commands import change_layout, change_retire
from distkv.member.soundness import (
    NotYet,
    check_joiner,
    check_leader,
    check_owner,
    check_quorum,
    held_by,
    is_caught_up,
    reached_by,
)
from distkv.member.standing import was_removed

if TYPE_CHECKING:
    from distkv.member.seat import Seat

LAYOUTS_MAX = 4
"""Layouts that live at once: a change, its reversal, and one more in a hurry."""


def change(
    seat: Seat,
    owner: str,
    k: int,
    m: int,
    members: tuple[Member, ...],
    again: bool = False,
    epoch: int | None = None,
) -> bool:
    """Propose a new write epoch. True: the newest layout is this one already.

    `again`: begin an epoch even so. That ends whatever was proposed before for the same
    number: an owner that turns back needs it while its earlier push may still come true.
    `epoch`: the newest one when this was asked for; a request that comes later than the next
    epoch, whatever its owner wants by then, is refused.
    Raises BadRequest, ForeignOwner, NotTheLeader, NotYet, NotFormed; nothing was changed then.
    """
    check_owner(seat, owner)
    membership = seat.machine.membership
    newest = membership.configuration
    wanted = Configuration(membership.epoch + 1, k, m, members)
    _check_members(seat, wanted)
    check_leader(seat)
    if not again and wanted._replace(epoch=newest.epoch) == newest:
        return True
    if epoch is not None and epoch != membership.epoch:
        raise NotYet(
            f"the newest epoch is {membership.epoch}, and this was asked for when it was {epoch}: "
            "look again"
        )
    if len(membership.layouts) >= LAYOUTS_MAX:
        raise NotYet(
            f"records still name the epochs {sorted(membership.layouts)}: wait until the oldest "
            "is retired (GET /v1/admin/layout shows how many are left)"
        )
    _check_moment(seat, wanted)
    if seat.member not in members:
        _hand_over(seat, wanted)
    if not seat.replica.propose_configuration(change_layout(owner, wanted)):
        raise NotYet("another change of members is under way")
    seat.owner.poke()
    return False


def _check_members(seat: Seat, wanted: Configuration) -> None:
    membership = seat.machine.membership
    try:
        check(wanted)
    except ValueError as error:
        raise BadRequest(str(error)) from error
    if len({member.incarnation for member in wanted.members}) != wanted.size:
        raise BadRequest("members must be distinct: two have the same incarnation")
    for now, then in zip(membership.everybody, wanted.members, strict=False):
        if now != then:
            raise BadRequest(
                f"members: ordinal {now.ordinal} is held by incarnation {now.incarnation}, not "
                f"{then.incarnation}; replace it first (POST /v1/admin/replace)"
            )
    for member in wanted.members[len(membership.everybody) :]:
        if was_removed(seat, member.incarnation):  # if that is unknown, `_check_moment` refuses
            raise BadRequest(
                f"members: incarnation {member.incarnation} was removed and is never admitted "
                f"again; give node {member.ordinal} an empty directory"
            )


def _check_moment(seat: Seat, wanted: Configuration) -> None:
    membership = seat.machine.membership
    for member in wanted.members:
        if member not in membership.everybody:
            check_joiner(seat, member)
    check_quorum(seat, membership.configuration)
    check_quorum(seat, wanted)
    for member in wanted.members:
        greeting = seat.owner.peers.greetings.get(member.ordinal)
        full = seat.owner.disk_full if member == seat.member else greeting and greeting.disk_full
        if full:
            raise NotYet(
                f"the disk of node {member.ordinal} is full: every value is stored once more "
                "before the old shards go; give it space first"
            )
    for epoch, layout in sorted(membership.layouts.items()):
        if membership.records[epoch]:
            _check_whole(seat, layout)


def _check_whole(seat: Seat, layout: Configuration) -> None:
    """Every value of a layout can still lose nobody's shards and be read."""
    short = [m.ordinal for m in layout.members if shards_missing(seat, m) != 0]
    if len(short) > layout.failures:
        raise NotYet(
            f"nodes {short} are down or lack shards of the layout {layout.data_shards} + "
            f"{layout.parity_shards}, which bears {layout.failures}: let repair end first"
        )


def shards_missing(seat: Seat, member: Member) -> int | None:
    """What the node says it lacks; None: it is not heard, or does not know yet."""
    if member == seat.member:
        return seat.missing
    greeting = seat.owner.peers.greetings.get(member.ordinal)
    return greeting.shards_missing if greeting and seat.owner.peers.is_up(member) else None


def _hand_over(seat: Seat, wanted: Configuration) -> None:
    """A leader that the new layout leaves out lets a member of it go on. Raises NotYet."""
    newest = seat.machine.configuration
    for member in sorted(wanted.members, key=lambda m: -(reached_by(seat, m) or -1)):
        fit = newest.is_voter(member) and is_caught_up(seat, member)
        if fit and seat.owner.peers.would_lead(member):
            if seat.replica.transfer(member.ordinal):
                seat.owner.poke()
                raise NotYet(
                    f"the new layout leaves out node {seat.member.ordinal}, which leads: it hands "
                    f"over to node {member.ordinal}; ask that one in a moment"
                )
            break


class Epochs:
    """What this node remembers of the epochs that live; `look` now and then."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._begun: dict[int, int] = {}
        """By epoch: a slot that was applied when it was first seen."""
        self._empty: dict[int, int] = {}
        """Epochs without records, and a slot that was applied when that was first seen."""

    def look(self) -> None:
        """A leader proposes to retire an old epoch that no record names, once all saw that."""
        seat = self._seat
        membership = seat.machine.membership
        if membership.epoch not in self._begun:
            self._begun = {membership.epoch: seat.machine.applied}
        old = [e for e in sorted(membership.layouts) if e != membership.epoch]
        self._empty = {e: slot for e, slot in self._empty.items() if e in old}
        for epoch in old:
            if membership.records[epoch]:
                self._empty.pop(epoch, None)
                continue
            slot = self._empty.setdefault(epoch, seat.machine.applied)
            if seat.replica.is_leader and self._seen_by_all(slot):
                body = change_retire(membership.owner, epoch)
                if seat.replica.propose_configuration(body):
                    seat.owner.poke()
                return

    def failures_now(self) -> int:
        """f as it may be claimed: every record has k_e + that many holders by its put, and that
        many members plus one have on their disks the entry that began the newest layout
        (protocol section 6)."""
        seat = self._seat
        membership = seat.machine.membership
        newest = membership.configuration
        claimed = [newest.failures]
        claimed += [c.failures for e, c in membership.layouts.items() if membership.records[e]]
        if len(membership.layouts) > 1:
            begun = self._begun.get(membership.epoch, seat.machine.applied)
            held = [held_by(seat, member) for member in newest.members]
            claimed.append(max(0, sum(h is not None and h >= begun for h in held) - 1))
        return min(claimed)

    def _seen_by_all(self, slot: int) -> bool:
        """Every member that is up, and q1 of the newest layout, applied that slot."""
        seat = self._seat
        membership = seat.machine.membership
        reached = {m: reached_by(seat, m) for m in membership.everybody}
        if any(r is not None and r < slot for r in reached.values()):
            return False
        newest = membership.configuration
        up = sum(reached[member] is not None for member in newest.members)
        return up >= newest.phase_one


# -- what is told


def progress(seat: Seat) -> dict[str, object]:
    """Plain data for GET /v1/admin/layout; see `runtime.admin`. `removed` is null where it is not
    known."""
    membership = seat.machine.membership
    newest = membership.configuration
    old = [epoch for epoch in membership.layouts if epoch != membership.epoch]
    epochs = [
        {
            "epoch": epoch,
            "data_shards": layout.data_shards,
            "parity_shards": layout.parity_shards,
            "failures": layout.failures,
            "members": [list(member) for member in layout.members],
            "records": membership.records[epoch],
            "bytes": membership.bytes[epoch],
        }
        for epoch, layout in sorted(membership.layouts.items())
    ]
    leader = seat.replica.leader
    return {
        "epoch": newest.epoch,
        "data_shards": newest.data_shards,
        "parity_shards": newest.parity_shards,
        "members": [list(member) for member in newest.members],
        "owner": membership.owner,
        "leader": None if leader is None else leader.ordinal,
        "leads": seat.replica.is_leader,
        "changing": bool(old),
        "epochs": epochs,
        "records_left": sum(membership.records[epoch] for epoch in old),
        "bytes_left": sum(membership.bytes[epoch] for epoch in old),
        "failures": seat.epochs.failures_now(),
        "failures_wanted": newest.failures,
        "leaving": [list(m) for m in membership.everybody if not newest.is_voter(m)],
        "waiting": [
            {
                "ordinal": member.ordinal,
                "incarnation": member.incarnation,
                "applied": reached_by(seat, member),
                "caught_up": is_caught_up(seat, member),
                "removed": was_removed(seat, member.incarnation),
            }
            for member in seat.learners.waiting()
            if member not in membership.everybody
        ],
    }
