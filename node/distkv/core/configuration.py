"""Who votes, how many make a quorum, how values are coded: one layout epoch.

Quorums follow Flexible Paxos (Howard, Malkhi, Spiegelman 2016): phase 1 needs q1 = n - f,
phase 2 needs q2 = f + 1, and q1 + q2 > n.
"""

from __future__ import annotations

from typing import NamedTuple

from distkv.ids import Member

NODES_MAX = 12
"""The erasure code is tested exhaustively up to this many nodes."""


class Configuration(NamedTuple):
    """State of membership after some slot. `members[i].ordinal == i`."""

    epoch: int
    data_shards: int
    parity_shards: int
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """n."""
        return len(self.members)

    @property
    def failures(self) -> int:
        """f: nodes that may be down, or lose their disks right after an acknowledgement."""
        return min(self.parity_shards, (len(self.members) - 1) // 2)

    @property
    def phase_one(self) -> int:
        """q1 = n - f: votes to elect, and to keep a leader in office."""
        return len(self.members) - self.failures

    @property
    def phase_two(self) -> int:
        """q2 = f + 1: votes to choose a slot, and to confirm a read."""
        return self.failures + 1

    def is_voter(self, member: Member) -> bool:
        """Whether this very incarnation holds its seat."""
        return member in self.members


def check(configuration: Configuration) -> None:
    """Raise ValueError, naming field and remedy, if the configuration promises nothing."""
    c = configuration
    if c.data_shards < 1:
        raise ValueError(f"data_shards must be at least 1, not {c.data_shards}")
    if c.parity_shards < 0:
        raise ValueError(f"parity_shards must be at least 0, not {c.parity_shards}")
    if c.size != c.data_shards + c.parity_shards:
        raise ValueError(
            f"{c.size} members do not match data_shards + parity_shards = "
            f"{c.data_shards + c.parity_shards}"
        )
    if c.size > NODES_MAX:
        raise ValueError(f"at most {NODES_MAX} nodes are supported, not {c.size}")
    if [m.ordinal for m in c.members] != list(range(c.size)):
        raise ValueError("members must be ordered by ordinal, one for each from 0 to n - 1")
    assert c.phase_one + c.phase_two > c.size, "quorums must intersect"
