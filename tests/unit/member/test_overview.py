"""What a member takes for old when it says how many disks may be lost."""

from __future__ import annotations

import pytest
from unit.member.alone import HEALTHY, Alone

from distkv.ids import SESSION_BYTES
from distkv.machine.commands import pack_open
from distkv.member.survival import SETTLED_SECONDS, UNKNOWN


def name_something(alone: Alone, number: int) -> int:
    """Have an entry applied: its slot."""
    session = bytes([number]) * SESSION_BYTES
    alone.seat.pending.submit(session, 0, pack_open(session), alone.now + 5)
    before = alone.seat.machine.applied
    alone.until(lambda: alone.seat.machine.applied > before)
    return alone.seat.machine.applied


@pytest.mark.parametrize("late", [0.0, 0.1, 0.45])
def test_what_was_applied_so_long_ago_is_always_spoken_of(late: float) -> None:
    """Full world 6081084: it took until the look after the next."""
    alone = Alone()
    alone.step(2.0 + late)
    slots = {}
    for number in range(40):
        slots[alone.now] = name_something(alone, number)
        alone.step(0.3)
        alone.seat.greeting()
        old = [slot for when, slot in slots.items() if alone.now - when >= SETTLED_SECONDS]
        assert alone.seat.overview._settled() >= max(old, default=0)
    young = [slot for when, slot in slots.items() if alone.now - when < SETTLED_SECONDS - 1.5]
    assert alone.seat.overview._settled() < young[0]


def test_what_is_caught_up_with_may_be_old() -> None:
    """Full world 6081084: who was cut off took for young what it heard of late."""
    alone = Alone()
    alone.step(10.0)
    assert alone.seat.overview.survival() != UNKNOWN
    before = alone.seat.overview._settled()
    alone.appear(1, HEALTHY._replace(applied=10_000))
    alone.step(1.0)
    assert alone.seat.overview.survival() == UNKNOWN
    late = name_something(alone, 1)
    alone.appear(1, HEALTHY._replace(applied=late))
    assert alone.seat.overview._settled() >= late > before
