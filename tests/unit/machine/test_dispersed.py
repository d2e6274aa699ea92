"""Coded puts: every condition of protocol section 2, names, supersession, re-striping."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from unit.machine.support import BALLOT, MEMBERS, SESSION, World

from distkv.core.configuration import Configuration
from distkv.ids import Ballot, Member, ValueId, node_session
from distkv.machine import commands as c
from distkv.machine.interface import (
    BarrierRaised,
    Booted,
    Named,
    OutcomeKind,
    Settled,
    Superseded,
)
from distkv.operations import NEVER, Condition, Delete, Expiry, Increment, Must, Put


def coded(
    dispersed: c.Dispersed, key: bytes = b"a", condition: Condition | None = None
) -> c.WireMutation:
    put = Put(key, b"", NEVER, condition or Condition())
    return c.wire_mutations([put], {0: dispersed})[0]


def test_a_coded_put_names_its_value() -> None:
    world = World()
    dispersed = world.dispersed()
    outcome = world.write_raw(coded(dispersed))
    assert outcome.detail == [(1, False, None)]
    record = world.machine.record(b"a")
    assert record is not None
    assert record.value is None
    assert record.value_id == dispersed.value_id
    assert record.holders == MEMBERS
    assert (record.length, record.checksum, record.data_shards, record.size) == (10_000, 77, 3, 5)
    assert (record.stripe_bytes, record.epoch, record.slot) == (65536, 1, world.machine.applied)
    assert world.machine.key_of(dispersed.value_id) == b"a"
    assert world.take_events() == [Named(b"a", dispersed.value_id, world.machine.applied)]
    world.reload()
    assert world.machine.record(b"a") == record
    assert world.machine.key_of(dispersed.value_id) == b"a"


def _settle(world: World) -> None:
    world.commands(c.pack_settled(100, 1, 5))


def _boot_again(world: World) -> None:
    world.commands(c.pack_boot(100, 0, 2, 1), c.pack_open(b"gateway-1234"))


def _replace(ordinal: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        body = c.change_replace("owner-one", ordinal, 100 + ordinal, 200 + ordinal)
        world.entry(c.entry_configuration(world.now, body))

    return change


def _raise_barrier(world: World) -> None:
    world.raise_barrier(Ballot(4, 1, 101))


def _new_epoch(world: World) -> None:
    body = c.change_layout("owner-one", Configuration(2, 2, 3, MEMBERS))
    world.entry(c.entry_configuration(world.now, body))


def _nothing(world: World) -> None:
    pass


@pytest.mark.parametrize(
    ("before", "changed", "reason"),
    [
        (_nothing, {}, ""),
        (_raise_barrier, {}, "barrier"),
        (_raise_barrier, {"stamp": Ballot(4, 1, 100)}, "barrier"),
        (_raise_barrier, {"stamp": Ballot(4, 1, 101)}, ""),
        (_raise_barrier, {"stamp": Ballot(5, 0, 0)}, ""),
        (_nothing, {"boot": 2}, "boot"),
        (_boot_again, {}, "boot"),
        (_boot_again, {"boot": 2}, ""),
        (_settle, {"counter": 4}, "settled"),
        (_settle, {"counter": 5}, ""),
        (_nothing, {"incarnation": 101}, "coordinator"),
        (_nothing, {"incarnation": 999}, "coordinator"),
        (_nothing, {"epoch": 2}, "epoch"),
        (_nothing, {"epoch": 0}, "epoch"),
        (_new_epoch, {}, "epoch"),
        (_new_epoch, {"epoch": 2, "data_shards": 2}, ""),
        (_nothing, {"holders": MEMBERS[:4]}, "holders"),
        (_nothing, {"holders": MEMBERS[:4], "data_shards": 2}, ""),
        (_nothing, {"holders": MEMBERS[:3], "data_shards": 2}, "holders"),
        (_nothing, {"holders": MEMBERS[:3], "data_shards": 1}, ""),
        (_nothing, {"holders": (MEMBERS[0],) * 5}, "holders"),
        (_nothing, {"holders": (*MEMBERS[:4], Member(4, 999))}, "holders"),
        (_nothing, {"holders": (*MEMBERS[:4], Member(7, 104))}, "holders"),
        (_replace(0), {}, "coordinator"),
        (_replace(4), {}, "holders"),
        (_replace(4), {"data_shards": 2}, ""),
    ],
)
def test_conditions_at_apply(
    before: Callable[[World], None], changed: dict[str, object], reason: str
) -> None:
    """Each refusal is distinct, changes nothing, and does not consume the sequence."""
    world = World()
    world.commands(c.pack_open(b"gateway-abcd"))
    before(world)
    world.take_events()
    dispersed = world.dispersed(**{"counter": 9, **changed})  # type: ignore[arg-type]
    for position in range(2):
        world.sequence = 0
        wires = [*c.wire_mutations([Put(b"z", b"1")])] * position + [coded(dispersed)]
        outcome = world.write_raw(*wires, session=b"gateway-abcd")
        if reason:
            assert (outcome.kind, outcome.detail) == (OutcomeKind.REFUSED, reason)
            assert world.machine.count() == 0
            assert world.take_events() == []
        else:
            assert outcome.kind is OutcomeKind.APPLIED
            break
    else:
        world.sequence = 0
        put = c.wire_mutations([Put(b"ok", b"1")])
        assert world.write_raw(*put, session=b"gateway-abcd").kind is OutcomeKind.APPLIED


def test_refusals_come_before_conditions() -> None:
    world = World()
    present = Condition(Must.BE_PRESENT)
    outcome = world.write_raw(coded(world.dispersed(epoch=7), condition=present))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.REFUSED, "epoch")
    outcome = world.write_raw(coded(world.dispersed(), condition=present))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.CONDITION, 0)


def test_a_refused_write_may_come_again_dispersed_anew() -> None:
    world = World()
    refused = world.write_raw(coded(world.dispersed(epoch=7)))
    world.sequence -= 1
    again = world.write_raw(coded(world.dispersed()))
    assert (refused.kind, again.kind) == (OutcomeKind.REFUSED, OutcomeKind.APPLIED)
    assert refused.sequence == again.sequence


def test_a_retry_with_another_value_id_is_the_same_command() -> None:
    """The value id is not part of a command's identity (protocol section 4)."""
    world = World()
    first, second = world.dispersed(), world.dispersed()
    one = world.write_raw(coded(first))
    world.take_events()
    world.raise_barrier(Ballot(9, 1, 101))
    world.sequence -= 1
    two = world.write_raw(coded(second))
    assert one == two
    assert world.machine.key_of(second.value_id) is None
    assert world.take_events() == [BarrierRaised(Ballot(9, 1, 101))]


def test_a_value_id_names_one_value_for_ever() -> None:
    world = World()
    dispersed = world.dispersed()
    world.write_raw(coded(dispersed))
    outcome = world.write_raw(coded(dispersed, b"b"))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.REFUSED, "settled")
    twice = world.dispersed()
    outcome = world.write_raw(coded(twice, b"b"), coded(twice, b"c"))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.REFUSED, "settled")


@pytest.mark.parametrize("how", ["inline", "coded", "delete", "expire", "tick"])
def test_a_value_that_loses_its_name_is_superseded_once(how: str) -> None:
    world = World()
    dispersed = world.dispersed()
    world.write_raw(coded(dispersed))
    world.take_events()
    if how == "inline":
        world.results(Put(b"a", b"small"))
    elif how == "coded":
        other = world.dispersed()
        world.write_raw(coded(other))
        assert world.take_events() == [
            Named(b"a", other.value_id, world.machine.applied),
            Superseded(dispersed.value_id),
        ]
        assert world.machine.membership.records == {1: 1}
        return
    elif how == "delete":
        world.results(Delete(b"a"))
    else:
        from distkv.operations import Expire

        world.results(Expire(b"a", Expiry(after_ms=5)))
        assert world.take_events() == []
        world.now += 5
        if how == "tick":
            world.tick()
        else:
            world.results(Put(b"a", b"small"))
    assert world.take_events() == [Superseded(dispersed.value_id)]
    assert world.machine.key_of(dispersed.value_id) is None
    assert world.machine.membership.records == {1: 0}


def test_numbers_and_appends_need_the_coded_value() -> None:
    world = World()
    world.write_raw(coded(world.dispersed(length=3)))
    outcome = world.write(Put(b"z", b"1"), Increment(b"a", 1))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.NEEDS_VALUE, 1)
    world.write_raw(coded(world.dispersed(length=10_000)))
    outcome = world.write(Increment(b"a", 1))
    assert outcome.kind is OutcomeKind.FAILED


def test_restripe_changes_neither_version_nor_expiry() -> None:
    world = World()
    old, new = world.dispersed(data_shards=2), world.dispersed()
    put = Put(b"a", b"", Expiry(after_ms=1000))
    world.write_raw(*c.wire_mutations([put], {0: old}))
    before = world.machine.record(b"a")
    assert before is not None
    world.take_events()
    outcome = world.write_raw(c.wire_restripe(b"a", old.value_id, new))
    assert outcome.detail == [before.version]
    after = world.machine.record(b"a")
    assert after is not None
    assert (after.version, after.expires_ms) == (before.version, before.expires_ms)
    assert (after.value_id, after.data_shards) == (new.value_id, 3)
    assert world.machine.keyspace.revision == before.version
    assert world.take_events() == [
        Named(b"a", new.value_id, world.machine.applied),
        Superseded(old.value_id),
    ]


def test_restripe_is_a_compare_and_set_on_the_value() -> None:
    world = World()
    old = world.dispersed()
    world.write_raw(coded(old))
    record = world.machine.record(b"a")
    wrong: list[c.WireMutation] = [
        c.wire_restripe(b"a", ValueId(100, 1, 999), world.dispersed()),
        c.wire_restripe(b"absent", old.value_id, world.dispersed()),
        c.wire_restripe(b"a", old.value_id, world.dispersed(length=9_999)),
        c.wire_restripe(b"a", old.value_id, world.dispersed(checksum=78)),
    ]
    for mutation in wrong:
        outcome = world.write_raw(mutation)
        assert (outcome.kind, outcome.detail) == (OutcomeKind.CONDITION, 0)
    refused = world.write_raw(c.wire_restripe(b"a", old.value_id, world.dispersed(epoch=3)))
    assert (refused.kind, refused.detail) == (OutcomeKind.REFUSED, "epoch")
    assert world.machine.record(b"a") == record
    world.results(Put(b"a", b"inline"))
    outcome = world.write_raw(c.wire_restripe(b"a", old.value_id, world.dispersed()))
    assert outcome.kind is OutcomeKind.CONDITION


def test_boots_and_settled_marks_only_grow() -> None:
    world = World()
    world.commands(c.pack_settled(100, 1, 7), c.pack_settled(100, 1, 6), c.pack_settled(100, 2, 9))
    assert world.take_events() == [Settled(100, 1, 7)]
    (outcome,) = world.commands(c.pack_boot(100, 0, 3, 1))
    assert outcome == (node_session(100, 3), 0, OutcomeKind.APPLIED, [True])
    assert world.take_events() == [Booted(100, 3)]
    (older,) = world.commands(c.pack_boot(100, 0, 2, 1))
    (same,) = world.commands(c.pack_boot(100, 0, 3, 1))
    (another,) = world.commands(c.pack_boot(100, 0, 3, 2))
    assert (another.kind, another.detail) == (OutcomeKind.REFUSED, "boot")
    assert (older.kind, older.detail) == (OutcomeKind.REFUSED, "boot")
    assert same.kind is OutcomeKind.APPLIED
    for ordinal, incarnation in ((1, 100), (0, 999)):
        (stranger,) = world.commands(c.pack_boot(incarnation, ordinal, 9, 1))
        assert (stranger.kind, stranger.detail) == (OutcomeKind.REFUSED, "coordinator")
    assert world.take_events() == []
    # The settled mark starts anew with the boot.
    outcome = world.write_raw(
        coded(world.dispersed(counter=0, boot=3)), session=node_session(100, 3)
    )
    assert outcome.kind is OutcomeKind.APPLIED


def test_barrier_only_grows() -> None:
    world = World()
    world.raise_barrier(BALLOT)
    world.raise_barrier(Ballot(2, 4, 104))
    assert world.machine.barrier == BALLOT
    assert world.take_events() == [BarrierRaised(BALLOT)]
    world.reload()
    assert world.machine.barrier == BALLOT


def test_nothing_is_written_before_the_cluster_is_formed() -> None:
    world = World(formed=False)
    outcome = world.write(Put(b"a", b"1"))
    assert (outcome.kind, outcome.detail) == (OutcomeKind.REFUSED, "not_formed")
    once = c.pack_write(b"\0Kabcdefghij", 1, 0, True, c.wire_mutations([Put(b"a", b"1")]))
    (outcome,) = world.commands(once)
    assert (outcome.kind, outcome.detail) == (OutcomeKind.REFUSED, "not_formed")
    world.commands(c.pack_formed(b"other cluster", "owner-one"), c.pack_formed(b"cluster-one", "x"))
    assert not world.machine.formed
    world.commands(c.pack_formed(b"cluster-one", "owner-one"))
    assert world.machine.formed
    world.reload()
    assert world.machine.formed
    world.sequence = 0
    assert world.write(Put(b"a", b"1")).kind is OutcomeKind.APPLIED
    assert world.commands(once)[0].kind is OutcomeKind.APPLIED
    assert world.commands(c.pack_write(SESSION, 1, 0, False, c.wire_mutations([Delete(b"a")])))[
        0
    ].detail == [(1, False, None)]
