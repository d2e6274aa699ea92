"""Forced recovery on directories in memory: what is kept, and a crash at any of its writes."""

from __future__ import annotations

import pytest

from distkv.core import entries
from distkv.core.hardstate import HardState, PeerRecords
from distkv.core.log import Log
from distkv.core.outbox import Outbox
from distkv.core.witness import Witness
from distkv.ids import Ballot, Member, node_session
from distkv.machine import commands as c
from distkv.machine.machine import Machine
from distkv.member.identity import (
    WENT_BACK,
    DirectoryIdentity,
    first_configuration,
    founding_row,
    identity_row,
    load_founding,
    open_identity,
    read_identity,
)
from distkv.member.messages import Founding
from distkv.member.recovery import Recovery
from distkv.member.survivors import CannotRecover, Survivor
from distkv.operations import Put
from distkv.storage.base import Put as StoragePut
from distkv.storage.base import StorageOperation, Table
from distkv.storage.memory import MemoryEngine

CLUSTER = b"c" * 16
FOUNDING = Founding(CLUSTER, "owner", 2, 3, tuple((o, 100 + o) for o in range(5)), 4096)
SESSION = node_session(100, 1)
BALLOT = Ballot(3, 4, 104)
NEW = {ordinal: 200 + ordinal for ordinal in range(5)}
TABLES = (Table.STATE, Table.RECORD, Table.NAME, Table.EXPIRY)


class Crash(Exception):
    """The power went at a write."""


class Fragile(MemoryEngine):
    """Writes go through until none is left."""

    left: int | None = None

    def write(self, operations: list[StorageOperation]) -> None:
        if Fragile.left is not None:
            if not Fragile.left:
                raise Crash
            Fragile.left -= 1
        super().write(operations)


def put(number: int, value: bytes) -> bytes:
    mutations = c.wire_mutations([Put(b"k%d" % number, value)])
    return entries.batch(number, [c.pack_write(SESSION, number, 0, False, mutations)])


BASE = [
    entries.batch(0, [c.pack_formed(CLUSTER, "owner"), c.pack_boot(100, 0, 1, 1)]),
    *(put(i, b"value") for i in range(2, 5)),
]
"""Slots 1 to 4."""


def directory(
    ordinal: int, applied: int, accepted: dict[int, tuple[Ballot, bytes]] | None = None
) -> Fragile:
    """Of a stopped member: slots up to `applied` of BASE, others only accepted."""
    engine = Fragile()
    identity = DirectoryIdentity(CLUSTER, 0, ordinal, 100 + ordinal, 1)
    engine.write([identity_row(identity), founding_row(FOUNDING)])
    machine = Machine.found(engine, CLUSTER, "owner", first_configuration(FOUNDING))
    for slot, entry in enumerate(BASE[:applied], 1):
        machine.apply(slot, entry)
    engine.write(machine.drain_writes())
    outbox = Outbox()
    log, hard = Log(outbox), HardState(outbox)
    for slot, entry in enumerate(BASE[:applied], 1):
        log.put(slot, BALLOT, entry)
    for slot, (ballot, entry) in (accepted or {}).items():
        log.put(slot, ballot, entry)
    hard.promise(BALLOT)
    hard.write(applied)
    engine.write(outbox.writes)
    return engine


def survivors(*engines: Fragile) -> list[Survivor]:
    return [Survivor(f"directory {i}", engine) for i, engine in enumerate(engines)]


def fresh(recovery: Recovery) -> dict[int, MemoryEngine]:
    return {member.ordinal: Fragile() for member in recovery.lost_members}


def values(engine: MemoryEngine) -> dict[bytes, bytes | None]:
    return {key: record.value for key, record in Machine.load(engine).scan(b"", None, b"", 99)}


def test_the_highest_ballot_of_each_slot_is_kept_and_holes_are_told() -> None:
    low, high = Ballot(2, 0, 100), Ballot(5, 1, 101)
    one = directory(0, 4, {5: (low, put(5, b"low")), 8: (low, put(8, b"eight"))})
    two = directory(3, 2, {5: (high, put(5, b"high")), 6: (low, put(6, b"six"))})
    recovery = Recovery(survivors(one, two))
    findings = recovery.findings()
    assert (findings.survivors, findings.lost_ordinals) == ((0, 3), (1, 2, 4))
    assert (findings.applied, findings.slots, findings.slots_uncertain) == (4, 4, 3)
    assert (findings.slots_unknown, findings.commands, findings.keys) == (1, 3, 6)
    assert values(one) == {b"k%d" % i: b"value" for i in (2, 3, 4)}, "nothing was written yet"
    stores = fresh(recovery)
    recovery.carry_out(stores, NEW)
    for engine in (one, two, *stores.values()):
        found = values(engine)
        assert (found[b"k5"], found[b"k6"], found[b"k8"]) == (b"high", b"six", b"eight")
        assert engine.count(Table.LOG) == 0
        founding = load_founding(engine)
        assert founding is not None
        assert founding.generation == 1
    members = Machine.load(one).configuration.members
    assert members == tuple(Member(o, (100 if o in (0, 3) else 200) + o) for o in range(5))
    assert Machine.load(two).barrier.round == 6
    assert Machine.load(two).membership.was_removed(101)


def test_who_went_back_in_time_before_is_heard_after_it() -> None:
    """Survivors may be volumes of different moments: what they knew of each other ends here."""
    one, two = directory(0, 4), directory(3, 4)
    for engine, peer in ((one, Member(3, 103)), (two, Member(0, 100))):
        outbox = Outbox()
        records = PeerRecords(outbox, 1, Witness())
        records.greets(peer, 1, 0)
        records.heard(peer, 1000)
        records.greets(peer, 2, 10)
        records.save()
        engine.write(outbox.writes)
    recovery = Recovery(survivors(one, two))
    stores = fresh(recovery)
    recovery.carry_out(stores, NEW)
    for engine in (one, two, *stores.values()):
        records = PeerRecords(Outbox(), 1, Witness())
        records.load(engine)
        assert records.records == {}


def remember(engine: Fragile, told: dict[Member, int]) -> None:
    """Rows of what these peers once said to be flushed."""
    outbox = Outbox()
    records = PeerRecords(outbox, 1, Witness())
    for peer, flushes in told.items():
        records.greets(peer, 1, 0)
        records.heard(peer, flushes)
    records.save()
    engine.write(outbox.writes)


def test_volumes_of_different_moments_are_no_quorum() -> None:
    """All were restored, one after another: each later one has heard more of the earlier ones
    than they hold. They halt, so together they need a new beginning."""
    whole = [directory(ordinal, 4) for ordinal in range(5)]
    with pytest.raises(CannotRecover, match="5 of 5 members are left"):
        Recovery(survivors(*whole))
    for ordinal, engine in enumerate(whole):
        held = survivors(engine)[0].hard.batches
        remember(engine, {Member(o, 100 + o): held + (o < ordinal) for o in range(5)})
    for engine in whole[:3]:
        engine.write([StoragePut(Table.META, WENT_BACK, b"told")])
    recovery = Recovery(survivors(*whole))
    assert recovery.lost_members == ()
    recovery.carry_out({}, {})
    for engine in whole:
        again = survivors(engine)[0]
        assert again.identity.generation == 1
        assert not again.went_back(survivors(*whole))
    with pytest.raises(CannotRecover, match="5 of 5 members are left"):
        Recovery(survivors(*whole))


def test_a_volume_that_went_back_does_not_start_as_a_boot_that_was() -> None:
    """Its sessions and value ids would be those of an earlier process: writes that take an
    earlier one's answer, values that take an earlier one's name."""
    booted = entries.batch(5, [c.pack_boot(103, 3, 7, 1)])
    one, two = directory(0, 4, {5: (BALLOT, booted)}), directory(3, 2)
    recovery = Recovery(survivors(one, two))
    recovery.carry_out(fresh(recovery), NEW)
    identity = open_identity(two, CLUSTER, 3, 0)
    assert identity.boot > Machine.load(two).membership.boots[103].boot == 7
    assert open_identity(one, CLUSTER, 0, 0).boot == 2


def test_one_volume_that_went_back_is_replaced_not_recovered_from() -> None:
    whole = [directory(ordinal, 4) for ordinal in range(5)]
    for engine in whole[1:]:
        remember(engine, {Member(0, 100): 1000})
    with pytest.raises(CannotRecover, match="4 of 5 members are left"):
        Recovery(survivors(*whole))


@pytest.mark.parametrize("writes", range(20))
def test_broken_off_at_any_write_the_same_command_finishes_it(writes: int) -> None:
    one, two = directory(0, 4), directory(3, 2, {3: (BALLOT, BASE[2]), 5: (BALLOT, put(5, b"x"))})
    recovery = Recovery(survivors(one, two))
    Fragile.left = writes
    try:
        recovery.carry_out(fresh(recovery), NEW)
        crashed = False
    except Crash:
        crashed = True
    finally:
        Fragile.left = None
    if crashed:
        again = Recovery(survivors(one, two))
        stores = fresh(again)
        again.carry_out(stores, {ordinal: 300 + ordinal for ordinal in range(5)})
        expected = [one.scan(table, b"", None, 999) for table in TABLES]
        for engine in (two, *stores.values()):
            assert [engine.scan(table, b"", None, 999) for table in TABLES] == expected
        members, generations = Machine.load(one).configuration.members, set()
        for engine in (one, two, *stores.values()):
            identity = read_identity(engine)
            assert identity is not None
            assert identity.member == members[identity.ordinal]
            generations.add(identity.generation)
        # Broken off once both survivors were done, it begins anew: one more, for all.
        assert len(generations) == 1
        assert generations <= {1, 2}
    assert values(one)[b"k5"] == b"x"


def test_a_quorum_or_nothing_is_not_recovered() -> None:
    with pytest.raises(CannotRecover, match="a forced recovery is not needed"):
        Recovery(survivors(directory(0, 4), directory(1, 4), directory(2, 4)))
    with pytest.raises(CannotRecover, match="never formed"):
        Recovery(survivors(directory(0, 0), directory(1, 0)))
    with pytest.raises(CannotRecover, match="ordinal 1 is given twice"):
        Recovery(survivors(directory(1, 4), directory(1, 4)))
    with pytest.raises(CannotRecover, match="holds no member"):
        survivors(Fragile())
    recovery = Recovery(survivors(directory(0, 4)))
    with pytest.raises(CannotRecover, match="need a new directory each"):
        recovery.carry_out({}, NEW)
    taken = {member.ordinal: directory(member.ordinal, 1) for member in recovery.lost_members}
    with pytest.raises(CannotRecover, match="is not empty"):
        recovery.carry_out(taken, NEW)
