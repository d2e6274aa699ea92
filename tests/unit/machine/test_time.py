"""Expiry happens by applied log time, never by a clock; ticks remove what is due."""

from __future__ import annotations

import pytest
from unit.machine.support import World

from distkv.machine import commands as c
from distkv.machine import keyspace
from distkv.machine.interface import OutcomeKind
from distkv.operations import (
    NEVER,
    Append,
    Condition,
    Delete,
    Expire,
    ExpireMode,
    Expiry,
    Increment,
    Must,
    Put,
)
from distkv.storage.base import Table


def expires(world: World, key: bytes = b"a") -> int | None:
    record = world.machine.record(key)
    assert record is not None
    return record.expires_ms


def test_a_record_is_invisible_from_its_time_on_even_before_a_tick() -> None:
    world = World()
    world.results(Put(b"a", b"1", Expiry(after_ms=100)), Put(b"b", b"1"))
    assert expires(world) == world.now + 100
    world.now += 99
    world.results(Put(b"c", b"1"))
    assert world.machine.record(b"a") is not None
    world.now += 1
    assert world.machine.record(b"a") is not None, "only log time counts"
    outcome = world.write(Delete(b"c"))
    assert outcome.kind is OutcomeKind.APPLIED
    assert world.machine.record(b"a") is None
    assert world.machine.count() == 1
    assert [key for key, _ in world.machine.scan(b"", None, b"", 9)] == [b"b"]
    assert len(world.engine.keys(Table.RECORD, b"", None, 9)) == 2
    absent = Condition(Must.BE_ABSENT)
    assert world.results(Put(b"a", b"2", condition=absent)) == [(5, False, None)]
    assert expires(world) is None
    assert world.engine.keys(Table.EXPIRY, b"", None, 9) == []


def test_log_time_never_goes_back() -> None:
    world = World()
    world.results(Put(b"a", b"1", Expiry(at_ms=world.now + 10)))
    world.entry(c.entry_noop(world.now + 10))
    assert world.machine.record(b"a") is None
    world.now -= 1000
    world.results(Put(b"b", b"1", Expiry(after_ms=5)))
    assert world.machine.log_time_ms == world.now + 1010
    assert expires(world, b"b") == world.now + 1015
    world.reload()
    assert world.machine.log_time_ms == world.now + 1010
    assert world.machine.record(b"a") is None


def test_a_tick_removes_what_is_due_and_due_says_when() -> None:
    world = World()
    world.results(*(Put(b"k%d" % i, b"v", Expiry(after_ms=10 * i)) for i in range(1, 6)))
    assert world.machine.next_expiry_ms() == world.now + 10
    assert not world.machine.due(world.now + 9)
    assert world.machine.due(world.now + 10)
    world.now += 30
    world.tick()
    assert [k for k, _ in world.engine.scan(Table.RECORD, b"", None, 9)] == [b"k4", b"k5"]
    assert len(world.engine.keys(Table.EXPIRY, b"", None, 9)) == 2
    assert world.machine.next_expiry_ms() == world.now + 10
    assert world.machine.keyspace.rows == world.machine.count() == 2
    world.results(Put(b"k4", b"v"))
    assert world.machine.next_expiry_ms() == world.now + 20
    world.results(Put(b"soon", b"v", Expiry(after_ms=1)))
    assert world.machine.next_expiry_ms() == world.now + 1
    world.reload()
    assert world.machine.next_expiry_ms() == world.now + 1
    world.results(Delete(b"soon"), Delete(b"k5"))
    assert world.machine.next_expiry_ms() is None
    assert not world.machine.due(2**50)


def test_what_is_over_by_log_time_is_due_for_a_leader_whose_clock_is_behind() -> None:
    """World 6707241: the key was gone for all, but stayed on the disks, and was striped anew
    in vain, until the next leader's clock was where that of the one before had been."""
    world = World()
    world.commands(c.pack_open(b"gateway-0001"))
    world.results(Put(b"a", b"1", Expiry(after_ms=10)))
    ahead = 10 * world.machine.options.session_idle_ms
    world.now += ahead
    world.results(Put(b"b", b"1"))
    world.now -= ahead
    assert world.machine.due(world.now)
    world.tick()
    assert world.engine.keys(Table.RECORD) == [b"b"]
    assert not world.machine._sessions._opened
    assert not world.machine.due(world.now)


def test_one_tick_removes_a_bounded_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyspace, "EXPIRED_PER_TICK", 3)
    world = World()
    world.results(*(Put(b"k%d" % i, b"v", Expiry(after_ms=10 - i)) for i in range(7)))
    world.now += 100
    left = []
    while world.machine.due(world.now):
        world.tick()
        left.append([k for k, _ in world.engine.scan(Table.RECORD, b"", None, 9)])
    assert left == [[b"k0", b"k1", b"k2", b"k3"], [b"k0"], []]


def test_a_put_that_is_over_already_removes_the_key() -> None:
    for mutations in ([], [Put(b"z", b"z")]):
        world = World()
        world.results(Put(b"a", b"old"))
        results = world.results(*mutations, Put(b"a", b"new", Expiry(at_ms=world.now)))
        assert results[-1] == (0, True, None)
        assert world.machine.record(b"a") is None
        assert world.engine.get(Table.RECORD, b"a") is None
    outcome = world.write_raw(
        *c.wire_mutations([Put(b"a", b"", Expiry(after_ms=-1))], {0: world.dispersed()})
    )
    assert outcome.detail == [(0, False, None)]
    assert world.engine.keys(Table.NAME, b"", None, 9) == []
    assert world.machine.membership.records == {1: 0}


@pytest.mark.parametrize("first", [[], [Put(b"z", b"z")]])
def test_what_keeps_and_what_drops_an_expiry(first: list[Put]) -> None:
    world = World()
    at = world.now + 1000
    world.results(Put(b"a", b"1", Expiry(at_ms=at)))
    world.results(*first, Put(b"a", b"2", Expiry(keep=True)))
    assert expires(world) == at
    world.results(*first, Increment(b"a", 1))
    world.results(*first, Append(b"a", b"0"))
    assert expires(world) == at
    world.results(*first, Put(b"a", b"2"))
    assert expires(world) is None
    world.results(*first, Put(b"new", b"2", Expiry(keep=True)))
    assert expires(world, b"new") is None


N, T = None, 1000
ALWAYS, WITHOUT, WITH = ExpireMode.ALWAYS, ExpireMode.ONLY_WITHOUT, ExpireMode.ONLY_WITH
LATER, SOONER = ExpireMode.ONLY_LATER, ExpireMode.ONLY_SOONER


@pytest.mark.parametrize(
    ("mode", "now", "then", "changed"),
    [
        (ALWAYS, N, T, True),
        (ALWAYS, T, T, True),
        (ALWAYS, T, N, True),
        (ALWAYS, N, N, False),
        (WITHOUT, N, T, True),
        (WITHOUT, T, T + 1, False),
        (WITH, N, T, False),
        (WITH, T, T + 1, True),
        (LATER, N, T, False),
        (LATER, T, T, False),
        (LATER, T, T + 1, True),
        (LATER, T, T - 1, False),
        (SOONER, N, T, True),
        (SOONER, T, T, False),
        (SOONER, T, T + 1, False),
        (SOONER, T, T - 1, True),
    ],
)
def test_expire_modes(mode: ExpireMode, now: int | None, then: int | None, changed: bool) -> None:
    world = World()
    start = NEVER if now is None else Expiry(at_ms=world.now + now)
    world.results(Put(b"a", b"1", start))
    expiry = NEVER if then is None else Expiry(after_ms=then)
    assert world.results(Expire(b"a", expiry, mode)) == [changed]
    record = world.machine.record(b"a")
    assert record is not None
    wanted = then if changed else now
    assert record.expires_ms == (None if wanted is None else world.now + wanted)
    assert record.version == (2 if changed else 1)


def test_expire_of_an_absent_key_and_into_the_past() -> None:
    world = World()
    assert world.results(Expire(b"a", Expiry(after_ms=5))) == [False]
    world.results(Put(b"a", b"1"))
    assert world.results(Expire(b"a", Expiry(after_ms=0))) == [True]
    assert world.machine.record(b"a") is None
    assert world.engine.keys(Table.RECORD, b"", None, 9) == []


def test_times_out_of_range_are_refused_when_packed() -> None:
    for expiry in (Expiry(at_ms=2**52), Expiry(after_ms=2**60)):
        with pytest.raises(ValueError, match="_ms"):
            c.wire_mutations([Put(b"a", b"", expiry)])
    world = World()
    latest = Expiry(after_ms=2**52 - 1)
    world.results(Put(b"a", b"1", latest))
    world.reload()
    assert expires(world) == world.now + 2**52 - 1
