"""Who is sent the log without having a vote: nodes that wait for a seat, and nodes that leave.

Any connected node that knows the founders but is not in the newest layout: an empty directory
at a seat that is to be replaced or at an ordinal that no layout has yet, and the surplus nodes
of an older layout, which must apply the entry that retires it. Every member keeps the list, so
that a new leader has it at once. A learner never counts (`core.peers`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.ids import Member

if TYPE_CHECKING:
    from distkv.member.seat import Seat


class Learners:
    """See the module."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._fed: dict[Member, None] = {}

    def look(self) -> None:
        """Compare who is connected with who is fed; called now and then."""
        wanted = self.waiting()
        replica = self._seat.replica
        for member in list(self._fed):
            if member not in wanted:
                replica.remove_learner(member)
                del self._fed[member]
        for member in wanted:
            if member not in self._fed and replica.add_learner(member):
                self._fed[member] = None

    def waiting(self) -> list[Member]:
        """Connected nodes that know the founders and are not voters, by ordinal."""
        seat = self._seat
        peers, configuration = seat.owner.peers, seat.machine.configuration
        found = []
        for ordinal, identity in sorted(peers.up.items()):
            member = Member(ordinal, identity.incarnation)
            greeting = peers.greetings.get(ordinal)
            if greeting is not None and greeting.founded and not configuration.is_voter(member):
                found.append(member)
        return found
