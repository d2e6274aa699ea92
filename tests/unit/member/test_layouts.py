"""What the leader refuses about layouts, and when an old epoch ends."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from distkv.errors import BadRequest, DistKVError
from distkv.ids import Member as Seated
from distkv.member import admission, layouts
from distkv.member.identity import DirectoryIdentity, founding_row
from distkv.member.member import Member
from distkv.member.messages import Founding, Greeting
from distkv.member.options import MemberOptions
from distkv.member.seat import Seat
from distkv.member.soundness import ForeignOwner, NotYet
from distkv.member.standing import Standing, standing_of
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity

CLUSTER = b"c" * 16
HEALTHY = Greeting(True, True, False, 10_000, 0, 0, 0)


class Alone:
    """A cluster of one node: it leads, and others may claim to be there."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        founding = Founding(CLUSTER, "owner", 1, 0, ((0, 100),), 4096)
        self.engine.write([founding_row(founding)])
        self.now = 1000.0
        self.member = Member(
            DirectoryIdentity(CLUSTER, 0, 0, 100, 1),
            self.engine,
            random.Random(1),
            MemberOptions(),
            lambda ordinal, lane: 1 << 20,
            lambda text: None,
        )
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

    def change(self, k: int, m: int, owner: str = "owner", first: int = 100) -> bool:
        members = tuple(Seated(i, first + i) for i in range(k + m))
        return layouts.change(self.seat, owner, k, m, members)


def refused(alone: Alone, kind: type[DistKVError], text: str, *change: object) -> None:
    epoch = alone.seat.machine.membership.epoch
    with pytest.raises(kind, match=text):
        alone.change(*change)  # type: ignore[arg-type]
    alone.step(0.2)
    assert alone.seat.machine.membership.epoch == epoch


def test_refusals_name_what_is_wrong_and_change_nothing() -> None:
    alone = Alone()
    refused(alone, ForeignOwner, "another owner", 1, 0, "somebody")
    refused(alone, BadRequest, "data_shards must be at least 1", 0, 1)
    refused(alone, BadRequest, "parity_shards must be at least 0", 2, -1)
    refused(alone, BadRequest, "at most 12 nodes", 9, 4)
    refused(alone, BadRequest, "ordinal 0 is held by incarnation 100, not 200", 1, 1, "owner", 200)
    refused(alone, NotYet, "incarnation 101 at ordinal 1 is not connected", 1, 1)
    alone.appear(1, HEALTHY._replace(disk_full=True))
    refused(alone, NotYet, "the disk of node 1 is full", 1, 1)
    with pytest.raises(BadRequest, match="two have the same incarnation"):
        layouts.change(alone.seat, "owner", 1, 1, (Seated(0, 100), Seated(1, 100)))
    assert alone.change(1, 0), "it is so already"


def test_a_learner_is_fed_until_it_is_gone_and_never_counts() -> None:
    alone = Alone()
    alone.appear(1)
    alone.step(0.3)
    peers = {p.member: p.voter for p in alone.seat.replica.status().peers}
    assert peers == {Seated(1, 101): False}
    assert [w["ordinal"] for w in layouts.progress(alone.seat)["waiting"]] == [1]  # type: ignore[attr-defined]
    alone.member.peer_down(Identity(CLUSTER, 0, 1, 101, 1))
    alone.step(0.3)
    assert alone.seat.replica.status().peers == ()


def test_growing_and_going_back_retires_what_no_record_names() -> None:
    alone = Alone()
    for ordinal in (1, 2):
        alone.appear(ordinal)
    assert not alone.change(1, 2)
    alone.until(lambda: alone.seat.machine.membership.epoch == 2)
    told = layouts.progress(alone.seat)
    assert (told["data_shards"], told["parity_shards"], told["epoch"]) == (1, 2, 2)
    assert [e["epoch"] for e in told["epochs"]] == [1, 2]  # type: ignore[attr-defined]
    assert told["failures_wanted"] == 1
    # Nobody answers for the two others: nothing more can be chosen by f + 1 = 2.
    assert alone.seat.replica.status().changing
    refused(alone, NotYet, "another change", 2, 1)


def test_a_replacement_of_an_unknown_seat_is_refused() -> None:
    alone = Alone()
    with pytest.raises(BadRequest, match="between 0 and 0"):
        admission.replace(alone.seat, "owner", 1, 101, 201)
    with pytest.raises(BadRequest, match="old is 7, but ordinal 0 is held by 100"):
        admission.replace(alone.seat, "owner", 0, 7, 201)
    assert standing_of(alone.seat) is Standing.VOTER
