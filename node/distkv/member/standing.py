"""Where a node stands towards the layouts: voter, on its way in, on its way out, or gone."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from distkv.member.messages import MENDING
from distkv.storage.base import CorruptRow

if TYPE_CHECKING:
    from distkv.member.seat import Seat


class Standing(Enum):
    """The value is the state shown to people."""

    VOTER = "voter"
    JOINING = "waiting to be admitted"
    LEAVING = "leaving"
    RETIRED = "retired"
    UNKNOWN = MENDING


_TEXTS = {
    Standing.VOTER: "",
    Standing.JOINING: "its directory is new, and it waits until the cluster's owner admits "
    "incarnation {incarnation} at ordinal {ordinal}; it catches up but does not vote",
    Standing.LEAVING: "the newest layout has no seat {ordinal}; it keeps its shards until no "
    "record needs them",
    Standing.RETIRED: "incarnation {incarnation} has left the cluster for good: process and "
    "directory may be removed",
    Standing.UNKNOWN: "whether incarnation {incarnation} has left the cluster cannot be read from "
    "its disk: a peer's state takes the place of what is damaged",
}


def was_removed(seat: Seat, incarnation: int) -> bool | None:
    """Whether it left for good; None: the row that would say so is damaged here, and the healer
    was told of it."""
    try:
        return seat.machine.membership.was_removed(incarnation)
    except CorruptRow as rot:
        seat.healer.met(rot)
        return None


def standing_of(seat: Seat) -> Standing:
    """As of the applied state."""
    membership = seat.machine.membership
    if membership.configuration.is_voter(seat.member):
        return Standing.VOTER
    if seat.member in membership.everybody:
        return Standing.LEAVING
    removed = was_removed(seat, seat.member.incarnation)
    if removed is None:
        return Standing.UNKNOWN
    return Standing.RETIRED if removed else Standing.JOINING


def describe(seat: Seat) -> str:
    """One sentence for a person, without its subject; empty for a voter."""
    return _TEXTS[standing_of(seat)].format(
        incarnation=seat.member.incarnation, ordinal=seat.member.ordinal
    )
