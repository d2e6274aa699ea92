"""How much may go at this moment: f, what is spent of it, and whether a disruption is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from distkv_operator.planning.observed import Observed
from distkv_operator.planning.report import NodeReport
from distkv_operator.planning.seats import SeatState, leader_of


@dataclass(frozen=True)
class Budget:
    """`tolerated` is f. Spent: members that do not serve, or have shards missing, or have yet to
    look; and nodes that leave, and whose shards are needed until then, if they are not whole."""

    nodes: int
    tolerated: int
    spent: tuple[int, ...]
    is_known: bool = True
    """The leader is sure how many disks may be lost: nobody has values that are not counted."""

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

    @property
    def bears_disruption(self) -> bool:
        """Whether the store goes on without any one of its nodes for a while, and it is sure."""
        return self.is_known and self.is_whole and self.tolerated > 0

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
    if observed.newest is not None:
        layout = observed.newest.layout
        now = failures(int(layout["data_shards"]), int(layout["parity_shards"]))
        tolerated = min(tolerated, now)
    if observed.layout_progress is not None:
        tolerated = min(tolerated, int(observed.layout_progress.get("failures", tolerated)))
    leader = leader_of(observed)
    said = NodeReport() if leader is None else observed.seats[leader].report
    spent = [s.ordinal for s in states[: observed.nodes] if not s.is_healthy]
    spent += _leaving(observed, said)
    return Budget(observed.nodes, tolerated, tuple(spent), said.survives is not None)


def _leaving(observed: Observed, said: NodeReport) -> Iterator[int]:
    """Nodes that only an old layout seats, and that are not whole, as the leader says."""
    progress = observed.layout_progress or {}
    for ordinal, incarnation in progress.get("leaving") or []:
        if not said.is_whole(int(ordinal), int(incarnation)):
            yield int(ordinal)
