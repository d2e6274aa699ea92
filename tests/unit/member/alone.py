"""A cluster of one member, driven by hand: it leads, and others may claim to be there."""

from __future__ import annotations

import random
from collections.abc import Callable

from distkv.member.identity import DirectoryIdentity, founding_row
from distkv.member.member import Member
from distkv.member.messages import Founding, Greeting
from distkv.member.options import MemberOptions
from distkv.member.seat import Seat
from distkv.storage.base import Engine
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity

CLUSTER = b"c" * 16
HEALTHY = Greeting(True, True, False, 10_000, 0, 0, 0)


def member_on(
    engine: Engine, ordinal: int = 0, options: MemberOptions | None = None, seed: int = 1
) -> Member:
    """A member of the cluster on this directory, with room for all that it wants to send."""
    return Member(
        DirectoryIdentity(CLUSTER, 0, ordinal, 100 + ordinal, 1),
        engine,
        random.Random(seed),
        options or MemberOptions(),
        lambda ordinal, lane: 1 << 20,
        lambda text: None,
    )


class Alone:
    """See the module."""

    def __init__(
        self,
        engine: Engine | None = None,
        options: MemberOptions | None = None,
        seed: int = 1,
    ) -> None:
        self.engine = engine or MemoryEngine()
        founding = Founding(CLUSTER, "owner", 1, 0, ((0, 100),), 4096)
        self.engine.write([founding_row(founding)])
        self.now = 1000.0
        self.member = member_on(self.engine, options=options, seed=seed)
        assert self.member.seat is not None
        self.seat: Seat = self.member.seat
        self.step(3.0)
        assert self.seat.replica.is_leader
        self.seat.submit_formed(self.now + 5)
        self.until(lambda: self.seat.machine.formed)

    def step(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            output = self.member.turn(self.now, int(self.now * 1000))
            self.engine.write(output.writes)
            self.engine.flush()
            self.member.flushed(output.number)
            self.now += 0.025

    def until(self, holds: Callable[[], bool]) -> None:
        for _ in range(400):
            if holds():
                return
            self.step(0.025)
        raise AssertionError("waited in vain")

    def appear(self, ordinal: int, greeting: Greeting = HEALTHY) -> None:
        identity = Identity(CLUSTER, 0, ordinal, 100 + ordinal, 1)
        self.member.peer_up(identity)
        self.member.receive(identity, greeting)
