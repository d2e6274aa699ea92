"""Phase 1 of one ballot: who promised, and which values must be proposed again."""

from __future__ import annotations

from collections.abc import Iterable

from distkv.core.configuration import Configuration
from distkv.ids import Ballot, Member


class PhaseOne:
    """Stays with a leader for its whole tenure: after a change of members it is asked again
    whether q1 voters of the *new* configuration promised (protocol section 5).

    `recovered`: slot -> (ballot, entry), the highest ballot reported for each slot: the only
    value that may have been chosen there, hence the only one to propose. `target`: highest
    chosen prefix among the promisers; nothing is proposed before it is learned, because a
    promiser reports only what lies above its own prefix.
    """

    __slots__ = ("ballot", "last", "promised", "recovered", "source", "target")

    def __init__(self, ballot: Ballot) -> None:
        self.ballot = ballot
        self.promised: dict[Member, int] = {}
        """The promiser's own chosen prefix."""
        self.recovered: dict[int, tuple[Ballot, bytes]] = {}
        self.last = 0
        self.target = 0
        self.source = -1

    def add(
        self,
        member: Member,
        chosen: int,
        entries: Iterable[tuple[int, Ballot, bytes]],
        next_slot: int,
    ) -> None:
        """A promise. Slots below `next_slot` were proposed in this ballot already."""
        self.promised[member] = chosen
        if chosen > self.target:
            self.target, self.source = chosen, member.ordinal
        for slot, ballot, entry in entries:
            if slot < next_slot:
                continue
            known = self.recovered.get(slot)
            if known is None or known[0] < ballot:
                self.recovered[slot] = (ballot, entry)
                self.last = max(self.last, slot)

    def complete(self, configuration: Configuration) -> bool:
        """Whether q1 voters of this configuration promised."""
        count = 0
        for member in configuration.members:
            if member in self.promised:
                count += 1
        return count >= configuration.phase_one

    def missing(self, configuration: Configuration) -> list[Member]:
        """Voters that have not promised."""
        return [m for m in configuration.members if m not in self.promised]
