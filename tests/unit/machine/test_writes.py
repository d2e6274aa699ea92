"""Inline writes: conditions, versions, numbers, appends, flushes, all or none."""

from __future__ import annotations

import pytest
from unit.machine.support import SESSION, World

from distkv.machine import commands as c
from distkv.machine.interface import OutcomeKind
from distkv.machine.numbers import NOT_AN_INTEGER, OVERFLOW
from distkv.operations import (
    Append,
    Condition,
    Delete,
    Flush,
    Increment,
    IncrementFloat,
    Must,
    Put,
)


def value_of(world: World, key: bytes) -> bytes | None:
    record = world.machine.record(key)
    return None if record is None else record.value


def test_put_and_versions_grow_over_the_whole_store() -> None:
    world = World()
    assert world.results(Put(b"a", b"1")) == [(1, False, None)]
    assert world.results(Put(b"b", b"1")) == [(2, False, None)]
    assert world.results(Put(b"a", b"2")) == [(3, True, None)]
    record = world.machine.record(b"a")
    assert record is not None
    assert (record.version, record.value, record.length) == (3, b"2", 1)
    assert record.slot == world.machine.applied


def test_previous_gives_the_record_before() -> None:
    world = World()
    world.results(Put(b"a", b"old"))
    ((version, existed, previous),) = world.results(Put(b"a", b"new", previous=True))  # type: ignore[misc]
    assert (version, existed, previous.value, previous.version) == (2, True, b"old", 1)
    ((version, existed, previous),) = world.results(Delete(b"a", previous=True))  # type: ignore[misc]
    assert (version, existed, previous.value) == (0, True, b"new")
    assert world.results(Delete(b"a", previous=True)) == [(0, False, None)]


@pytest.mark.parametrize(
    ("must", "version", "absent", "present"),
    [
        (Must.ANYTHING, 0, True, True),
        (Must.BE_ABSENT, 0, True, False),
        (Must.BE_PRESENT, 0, False, True),
        (Must.HAVE_VERSION, 1, False, True),
        (Must.HAVE_VERSION, 2, False, False),
        (Must.NOT_HAVE_VERSION, 1, True, False),
        (Must.NOT_HAVE_VERSION, 2, True, True),
    ],
)
def test_conditions(must: Must, version: int, absent: bool, present: bool) -> None:
    condition = Condition(must, version)
    for existing, met in ((False, absent), (True, present)):
        for mutations in (
            [Put(b"a", b"new", condition=condition)],
            [Put(b"z", b"z"), Put(b"a", b"new", condition=condition)],
        ):
            world = World()
            if existing:
                world.results(Put(b"a", b"old"))
            outcome = world.write(*mutations)
            if met:
                assert outcome.kind is OutcomeKind.APPLIED
                assert value_of(world, b"a") == b"new"
            else:
                assert (outcome.kind, outcome.detail) == (
                    OutcomeKind.CONDITION,
                    len(mutations) - 1,
                )
                assert value_of(world, b"a") == (b"old" if existing else None)
                assert value_of(world, b"z") is None


def test_conditions_judge_the_state_before_the_write() -> None:
    world = World()
    absent = Condition(Must.BE_ABSENT)
    results = world.results(Put(b"a", b"1", condition=absent), Put(b"a", b"2", condition=absent))
    assert results == [(1, False, None), (2, True, None)]
    assert value_of(world, b"a") == b"2"


def test_effects_follow_each_other_inside_a_write() -> None:
    world = World()
    results = world.results(
        Put(b"n", b"5"), Increment(b"n", 2), Append(b"n", b"0"), Delete(b"n"), Increment(b"n", -1)
    )
    assert results == [(1, False, None), 7, 2, (0, True, None), -1]
    assert value_of(world, b"n") == b"-1"
    assert world.machine.count() == 1


def test_a_failing_mutation_takes_all_others_back() -> None:
    world = World()
    world.results(Put(b"text", b"abc"))
    outcome = world.write(Put(b"a", b"1"), Flush(), Increment(b"a", 1), Put(b"text", b"x"))
    assert outcome.kind is OutcomeKind.APPLIED
    world.results(Put(b"text", b"abc"), Delete(b"a"))
    before = world.machine.keyspace.revision
    outcome = world.write(
        Put(b"a", b"1"), Delete(b"text"), Put(b"text", b"q"), Increment(b"text", 1)
    )
    assert (outcome.kind, outcome.detail) == (OutcomeKind.FAILED, NOT_AN_INTEGER)
    assert value_of(world, b"a") is None
    assert value_of(world, b"text") == b"abc"
    assert world.machine.keyspace.revision == before


@pytest.mark.parametrize(
    ("old", "delta", "new"),
    [
        (None, 5, 5),
        (b"-3", 5, 2),
        (b"9223372036854775806", 1, 2**63 - 1),
        (b"-9223372036854775807", -1, -(2**63)),
        (b"9223372036854775807", 1, OVERFLOW),
        (b"-9223372036854775808", -1, OVERFLOW),
        (b"9223372036854775808", 1, NOT_AN_INTEGER),
        (b"", 1, NOT_AN_INTEGER),
        (b"01", 1, NOT_AN_INTEGER),
        (b"+1", 1, NOT_AN_INTEGER),
        (b"-0", 1, NOT_AN_INTEGER),
        (b" 1", 1, NOT_AN_INTEGER),
        (b"1\n", 1, NOT_AN_INTEGER),
        (b"1.0", 1, NOT_AN_INTEGER),
        ("\u0663".encode(), 1, NOT_AN_INTEGER),
    ],
)
def test_increment(old: bytes | None, delta: int, new: int | str) -> None:
    world = World()
    if old is not None:
        world.results(Put(b"n", old))
    outcome = world.write(Increment(b"n", delta))
    if isinstance(new, str):
        assert (outcome.kind, outcome.detail) == (OutcomeKind.FAILED, new)
        assert value_of(world, b"n") == old
    else:
        assert outcome.detail == [new]
        assert value_of(world, b"n") == str(new).encode()


def test_increment_float_stores_what_it_answers() -> None:
    world = World()
    assert world.results(IncrementFloat(b"f", b"10.50")) == [b"10.5"]
    assert world.results(IncrementFloat(b"f", b"0.1")) == [b"10.6"]
    assert world.results(IncrementFloat(b"f", b"-5")) == [b"5.6"]
    assert value_of(world, b"f") == b"5.6"
    outcome = world.write(IncrementFloat(b"f", b"many"))
    assert outcome.kind is OutcomeKind.FAILED
    outcome = world.write(IncrementFloat(b"huge", b"1e4900"))
    assert outcome.kind is OutcomeKind.FAILED
    assert "4096" in str(outcome.detail)


def test_append_until_inline_max_then_the_value_is_needed() -> None:
    world = World()
    assert world.results(Append(b"a", b"x" * 4000)) == [4000]
    assert world.results(Append(b"a", b"y" * 96)) == [4096]
    outcome = world.write(Put(b"z", b"z"), Append(b"a", b"z"))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.NEEDS_VALUE, 1)
    assert value_of(world, b"a") == b"x" * 4000 + b"y" * 96
    assert value_of(world, b"z") is None


def test_needs_value_does_not_consume_the_sequence_and_a_basis_asks_again() -> None:
    world = World()
    world.results(Put(b"a", b"x" * 4096))
    outcome = world.write(Append(b"a", b"z"))
    assert outcome.kind is OutcomeKind.NEEDS_VALUE
    # The coordinator computes from version 1, but the key moves on to version 2.
    world.results(Put(b"a", b"other"))
    sequence = world.sequence + 1
    for version, kind in ((1, OutcomeKind.NEEDS_VALUE), (2, OutcomeKind.APPLIED)):
        world.sequence = sequence - 1
        outcome = world.write_raw(
            c.wire_basis(b"a", version), *c.wire_mutations([Put(b"a", b"computed")])
        )
        assert outcome.kind is kind
    assert value_of(world, b"a") == b"computed"
    outcome = world.write_raw(c.wire_basis(b"none", 0), *c.wire_mutations([Put(b"none", b"1")]))
    assert outcome.kind is OutcomeKind.APPLIED


def test_check_is_a_condition_without_an_effect() -> None:
    world = World()
    world.results(Put(b"watched", b"1"))
    put = c.wire_mutations([Put(b"a", b"1")])
    outcome = world.write_raw(c.wire_check(b"watched", Condition(Must.HAVE_VERSION, 9)), *put)
    assert (outcome.kind, outcome.detail) == (OutcomeKind.CONDITION, 0)
    outcome = world.write_raw(c.wire_check(b"watched", Condition(Must.HAVE_VERSION, 1)), *put)
    assert outcome.kind is OutcomeKind.APPLIED
    record = world.machine.record(b"watched")
    assert record is not None
    assert record.version == 1


def test_flush_removes_everything_and_counts() -> None:
    world = World()
    world.results(*(Put(b"k%d" % i, b"v") for i in range(10)))
    world.write_raw(*c.wire_mutations([Put(b"big", b"")], {0: world.dispersed()}))
    world.take_events()
    assert world.results(Put(b"k0", b"again"), Put(b"new", b"1"), Flush(), Put(b"kept", b"1")) == [
        (12, True, None),
        (13, False, None),
        12,
        (26, False, None),
    ]
    assert [key for key, _ in world.machine.scan(b"", None, b"", 100)] == [b"kept"]
    assert world.machine.count() == 1
    assert [type(event).__name__ for event in world.take_events()] == ["Superseded"]
    assert world.machine.membership.records == {1: 0}
    for key in (b"k0", b"k9", b"new", b"big"):
        assert world.machine.record(key) is None
    assert world.results(Put(b"k1", b"v")) == [(27, False, None)]
    assert world.results(Delete(b"k1")) == [(0, True, None)]
    world.reload()
    assert world.machine.count() == 1


def test_an_inline_value_above_the_limit_is_refused_not_stored() -> None:
    world = World()
    for mutations in ([Put(b"a", b"x" * 4097)], [Put(b"b", b""), Put(b"a", b"x" * 4097)]):
        outcome = world.write(*mutations)
        assert outcome.kind is OutcomeKind.FAILED
        assert "inline_max" in str(outcome.detail)
        assert world.machine.count() == 0


def test_scan_merges_what_is_not_written_yet() -> None:
    world = World()
    world.results(*(Put(b"k%d" % i, b"v") for i in (1, 3, 5, 7, 9)))
    mutations = [Put(b"k2", b"v"), Delete(b"k3"), Delete(b"k9"), Put(b"x", b"v"), Put(b"k5", b"w")]
    command = c.pack_write(SESSION, 99, 0, False, c.wire_mutations(mutations))
    world.machine.apply(world.machine.applied + 1, c.entry_batch(world.now, [command]))
    scan = world.machine.scan
    assert [k for k, _ in scan(b"", None, b"", 100)] == [b"k1", b"k2", b"k5", b"k7", b"x"]
    assert [k for k, _ in scan(b"", None, b"k", 3)] == [b"k1", b"k2", b"k5"]
    assert [k for k, _ in scan(b"k2", b"k7", b"", 100)] == [b"k2", b"k5"]
    assert [r.value for k, r in scan(b"k5", None, b"k5", 1)] == [b"w"]
    assert scan(b"k6", b"k6", b"", 5) == []
    assert scan(b"", None, b"\xff\xff", 5) == []
    for limit in range(1, 6):
        start, seen = b"", []
        while page := scan(start, None, b"", limit):
            seen += [k for k, _ in page]
            start = page[-1][0] + b"\0"
        assert seen == [b"k1", b"k2", b"k5", b"k7", b"x"]
