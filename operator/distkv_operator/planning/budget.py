"""How much may go at this moment: f, what is spent of it, and whether a disruption is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distkv_operator.planning.observed import Observed
from distkv_operator.planning.seats import SeatState


@dataclass(frozen=True)
class Budget:
    """`tolerated` is f. Spent: members that do not serve, or have shards missing."""

    nodes: int
    tolerated: int
    spent: tuple[int, ...]

    @property
    def survivable(self) -> int:
        """How many more may go now."""
        return max(0, self.tolerated - len(self.spent))

    @property
    def is_whole(self) -> bool:
        """Nothing is spent."""
        return not self.spent

    @property
    def quorum(self) -> int:
        """q1: members that must answer."""
        return self.nodes - self.tolerated

    def bears_loss_of(self, ordinal: int) -> bool:
        """Whether every value survives if that member's disk goes for good."""
        return len({*self.spent, ordinal}) <= self.tolerated

    def others_spent(self, ordinal: int) -> tuple[int, ...]:
        """Of the other members, those that are not whole."""
        return tuple(o for o in self.spent if o != ordinal)


def failures(data_shards: int, parity_shards: int) -> int:
    """f = min(m, (n - 1) // 2)."""
    return min(parity_shards, (data_shards + parity_shards - 1) // 2)


def budget(observed: Observed, states: Sequence[SeatState]) -> Budget:
    """Of the layout in force; before there is one, of the specification."""
    tolerated = failures(observed.spec.data_shards, observed.spec.parity_shards)
    for seat in observed.seats:
        layout = seat.report.layout
        if layout:
            tolerated = min(
                tolerated, failures(int(layout["data_shards"]), int(layout["parity_shards"]))
            )
    if observed.layout_progress is not None:
        tolerated = min(tolerated, int(observed.layout_progress.get("failures", tolerated)))
    members = states[: observed.nodes]
    return Budget(observed.nodes, tolerated, tuple(s.ordinal for s in members if not s.is_healthy))
