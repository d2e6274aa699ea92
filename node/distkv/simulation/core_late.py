"""Answers that come when their question is forgotten.

One leader's entries reach a few voters only, and their acknowledgements are held back. It
leads again at once under a higher ballot, proposes the same entries to a few others, and gets
the old acknowledgements then: too few voters hold the entries in either ballot, though not
in both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.core.messages import Accept, Accepted, Message, PreVote
from distkv.ids import Ballot, Member

if TYPE_CHECKING:
    from distkv.simulation.core_base import Base
    from distkv.simulation.core_process import Process

SOON = 0.5
LASTS = 700.0
"""ms after which it is given up."""


class HeldBack:
    """Of one leader, from now on; `world.held_back` while it lasts."""

    def __init__(self, world: Base, leader: Process) -> None:
        self._world = world
        self._leader = leader.member
        self._ballot: Ballot = leader.replica.ballot
        self._answers: list[tuple[Member, Message]] = []
        configuration = leader.machine.configuration
        others = [m.ordinal for m in configuration.members if m != leader.member]
        world.rng.shuffle(others)
        few = max(1, configuration.phase_two - 2)
        self._first, self._second = others[:few], others[few : 2 * few]
        """Ordinals that hear of entries in its present ballot, and in the next."""
        self._released = False
        world.at(LASTS, self.end)

    def takes(self, sender: Process, ordinal: int, message: Message) -> bool:
        """Whether this message is kept from its addressee."""
        kind = type(message)
        if kind is Accepted and ordinal == self._leader.ordinal:
            assert isinstance(message, Accepted)
            if message.ballot == self._ballot and not self._released:
                self._answers.append((sender.member, message))
                return True
        elif kind is PreVote and sender.member == self._leader:
            # Whoever just heard it would refuse: let them know that it is not the leader.
            self._world.at(0.0, self._world.leader_lost, ordinal, self._leader.ordinal)
        elif kind is Accept and sender.member == self._leader:
            assert isinstance(message, Accept)
            if message.ballot == self._ballot:
                return bool(message.entries) and ordinal not in self._first
            if message.ballot > self._ballot:
                if not self._released:
                    self._release()
                return bool(message.entries) and ordinal not in self._second
        return False

    def _release(self) -> None:
        self._released = True
        world = self._world
        for sender, message in self._answers:
            world.at(SOON, world.deliver, sender, self._leader.ordinal, message)
        world.at(40 + world.rng.random() * 120, self.end)

    def end(self) -> None:
        """What was held back is lost."""
        if self._world.held_back is self:
            self._world.held_back = None
