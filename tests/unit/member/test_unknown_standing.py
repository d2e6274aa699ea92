"""Whether a directory has left for good cannot be read: nothing is done for that, and it heals."""

from __future__ import annotations

import struct

import pytest
from unit.member.alone import CLUSTER, Alone, member_on

from distkv.errors import DistKVError, NotFormed
from distkv.ids import Member as Seated
from distkv.member import admission, layouts
from distkv.member.identity import founding_row
from distkv.member.messages import Founding
from distkv.member.soundness import NotYet
from distkv.operations import Count
from distkv.storage.base import CorruptRow, Table
from distkv.storage.memory import MemoryEngine

ROW = b"r" + struct.pack(">Q", 101)


class Damaged(MemoryEngine):
    """As a damaged block: even that there is no such row cannot be read."""

    damaged = True

    def get(self, table: Table, key: bytes) -> bytes | None:
        if self.damaged and (table, key) == (Table.STATE, ROW):
            raise CorruptRow(table, key)
        return super().get(table, key)


def test_a_node_that_is_no_member_goes_on() -> None:
    engine = Damaged()
    engine.write([founding_row(Founding(CLUSTER, "owner", 1, 0, ((0, 100),), 4096))])
    member = member_on(engine, ordinal=1)
    now = 1000.0
    for _ in range(40):
        engine.write(member.turn(now, int(now * 1000)).writes)
        now += 0.1
    seat = member.seat
    assert seat is not None
    assert list(seat.healer.rotten) == [(Table.STATE, ROW)], "it is told"
    assert seat.greeting().state == member.health()["state"] == "mending"
    asked = member.execute(Count(), now + 1)
    assert isinstance(asked.error, NotFormed)
    assert "cannot be read" in str(asked.error)
    with pytest.raises(NotFormed):
        member.upload(5)
    engine.damaged = False
    seat.healer.installed()
    assert member.health()["state"] == "waiting to be admitted"


def test_nobody_gets_a_seat_who_may_have_been_removed() -> None:
    engine = Damaged()
    alone = Alone(engine)
    seat = alone.seat
    alone.appear(1)
    both = (Seated(0, 100), Seated(1, 101))

    def asked() -> list[DistKVError]:
        errors = []
        for ask in (
            lambda: admission.replace(seat, "owner", 0, 100, 101),
            lambda: layouts.change(seat, "owner", 1, 1, both),
        ):
            with pytest.raises(DistKVError) as refused:
                ask()
            errors.append(refused.value)
        return errors

    for error in asked():
        assert type(error) is NotYet
        assert "whether" in str(error)
    assert layouts.progress(seat)["waiting"][0]["removed"] is None  # type: ignore[index]
    assert list(seat.healer.rotten) == [(Table.STATE, ROW)]
    alone.step(1.0)
    engine.damaged = False
    assert not any("whether" in str(error) for error in asked())
