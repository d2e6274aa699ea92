"""What all parts of one replica share."""

from __future__ import annotations

import random

from distkv.core.configuration import Configuration
from distkv.core.hardstate import HardState, PeerRecords
from distkv.core.log import Log
from distkv.core.options import ReplicaOptions
from distkv.core.outbox import Outbox
from distkv.core.witness import Witness
from distkv.ids import Member
from distkv.machine.interface import StateMachine

_SAVE_PEERS_MS = 1000


class Shared:
    """`now`: ticks since the start. `wall`: the clock, ms, used for stamps only."""

    __slots__ = (
        "admitted",
        "durable",
        "hard",
        "log",
        "machine",
        "me",
        "now",
        "options",
        "out",
        "peers",
        "read_rounds",
        "rng",
        "rounds",
        "wall",
        "witness",
    )

    def __init__(
        self, me: Member, machine: StateMachine, options: ReplicaOptions, rng: random.Random
    ) -> None:
        self.me = me
        self.machine = machine
        self.options = options
        self.rng = rng
        self.now = 0
        self.wall = 0
        self.out = Outbox()
        self.log = Log(self.out)
        self.hard = HardState(self.out)
        self.witness = Witness()
        self.peers = PeerRecords(
            self.out,
            options.ticks(_SAVE_PEERS_MS),
            self.witness,
            lambda member: self.configuration.is_voter(member),
        )
        self.rounds = 0
        """Slots for which this node asked the voters to accept, since its start (phase 2)."""
        self.read_rounds = 0
        """Times it asked them whether it still leads, for all reads that waited."""
        self.durable = 0
        """Number of the last Ready known to be flushed."""
        self.admitted = 1
        """Number of the Ready with which the own seat became part of the applied state."""

    @property
    def configuration(self) -> Configuration:
        """Of the next slot to apply: the state after the last applied one."""
        return self.machine.configuration

    def may_vote(self) -> bool:
        """Whether this incarnation holds its seat and durably holds all that admitted it.

        The seat is part of the applied state, so every slot up to the entry that admitted
        this incarnation is here as chosen; that state must be durable too (protocol
        section 5), else a crash could undo the admission but not the vote.
        """
        return self.durable >= self.admitted and self.configuration.is_voter(self.me)

    def others(self) -> list[Member]:
        """The other voters of the newest applied configuration."""
        return [m for m in self.configuration.members if m != self.me]
