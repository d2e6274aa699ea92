"""What a peer did that no sound replica does; counted by the member, never acted upon.

Kinds: see member.suspicions. Nothing here is on the path of a sound cluster: the replica
calls it where it refuses or ignores a message anyway, and once for each new ballot.
"""

from __future__ import annotations

from distkv.ids import Ballot, Member

FOUND_MAX = 1000
"""Kept until the member takes them; more are dropped."""


class Witness:
    """`found`: (peer, kind of member.suspicions, detail), emptied by whoever reports it."""

    __slots__ = ("_ballots", "found")

    def __init__(self) -> None:
        self.found: list[tuple[Member, str, str]] = []
        self._ballots: dict[int, Ballot] = {}

    def suspect(self, peer: Member, kind: str, detail: str) -> None:
        """Note a misdeed."""
        if len(self.found) < FOUND_MAX:
            self.found.append((peer, kind, detail))

    def uses(self, sender: Member, ballot: Ballot) -> None:
        """`sender` acts under a ballot: its own, and never lower than one it used before.

        A ballot is durable before its first use, and messages of a peer arrive in order, but for
        beats: one of a former ballot may come at any time, and is not told here.
        """
        if (ballot.ordinal, ballot.incarnation) != (sender.ordinal, sender.incarnation):
            self.suspect(sender, "foreign_ballot", f"it acts under {tuple(ballot)}")
            return
        known = self._ballots.get(sender.ordinal)
        if known is None or known.incarnation != sender.incarnation or known < ballot:
            self._ballots[sender.ordinal] = ballot
        elif ballot < known:
            self.suspect(sender, "ballot_regression", f"{tuple(ballot)} after {tuple(known)}")
