"""Which voters are sent entries at once: as many as complete a quorum, if nothing is late.

A slot is chosen by q2 voters, whoever they are; the others need it only to catch up. So the
leader counts on the q2 - 1 voters that usually answer soonest ("eager"), and gives the others a
moment later whatever came meanwhile, in one message: at one client this halves the work of a
put. Nothing here decides what is chosen: `Peers.agreed` counts every answer, as ever.

When the quorum is late by the measure of its members, everything goes to all voters, and the
member that was late is counted on no more: its `delay` has grown. So a frozen voter costs one
hedge, once.
"""

from __future__ import annotations

from distkv.core.options import ReplicaOptions
from distkv.core.progress import Progress


class Spread:
    """State of one tenure. Times are in ticks."""

    __slots__ = ("_hedge_max", "_hedge_min", "hedge", "until")

    def __init__(self, options: ReplicaOptions) -> None:
        self._hedge_min = options.ticks(options.hedge_min)
        self._hedge_max = options.ticks(options.hedge_max)
        self.hedge = self._hedge_min
        """Wait for an answer before the quorum counts as late."""
        self.until = -1
        """Up to this tick everybody is sent everything at once."""

    def choose(self, voters: list[Progress], others: int) -> None:
        """Count on the `others` quickest of `voters`, of equals on those that wait for the
        outcome anyway, then on those counted on already."""
        order = sorted(
            voters,
            key=lambda peer: (not peer.known, round(peer.delay), not peer.asks, not peer.eager),
        )
        slowest = 0.0
        for place, peer in enumerate(order):
            peer.eager = place < max(1, others)
            peer.asks = False
            if peer.eager and peer.known:
                slowest = max(slowest, peer.delay)
        self.hedge = min(max(self._hedge_min, round(3 * slowest) + 1), self._hedge_max)
