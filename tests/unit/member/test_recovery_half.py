"""Forced recovery with a survivor whose state is half installed, and whose stage has rotted."""

from __future__ import annotations

import pytest
from unit.member import snapshots
from unit.member.test_recovery import (
    BALLOT,
    FOUNDING,
    NEW,
    TABLES,
    Crash,
    Fragile,
    directory,
    fresh,
    put,
    remember,
    survivors,
    values,
)

from distkv.cli.recovering import show
from distkv.core.hardstate import HardState
from distkv.core.outbox import Outbox
from distkv.ids import Ballot, Member
from distkv.machine.machine import Machine
from distkv.machine.snapshot import (
    INSTALLING,
    installing_slot,
    is_installing,
)
from distkv.member.identity import founding_row, identity_row, read_identity
from distkv.member.recovery import Recovery
from distkv.member.staging import UNSTAGE, stage_of
from distkv.member.survivors import CannotRecover
from distkv.storage.base import Put as StoragePut
from distkv.storage.base import Table

FIVE, SIX = put(5, b"five"), put(6, b"six")


def applied(ordinal: int, *more: bytes) -> Fragile:
    """Slots 1 to 4, and these behind them, are applied."""
    engine = directory(ordinal, 4, {5 + i: (BALLOT, body) for i, body in enumerate(more)})
    machine = Machine.load(engine)
    for body in more:
        machine.apply(machine.applied + 1, body)
    engine.write(machine.drain_writes())
    return engine


def break_off(engine: Fragile, giver: Fragile, installed: int = 1) -> Fragile:
    """A crash while the giver's state was installed, and rot."""
    snapshots.break_off(engine, giver, installed, 40)
    assert engine.rot(Table.META, stage_of(1))
    return engine


def generation(engine: Fragile) -> int:
    identity = read_identity(engine)
    assert identity is not None
    return identity.generation


def set_generation(engine: Fragile, number: int) -> None:
    identity = read_identity(engine)
    assert identity is not None
    founding = FOUNDING._replace(generation=number)
    engine.write([identity_row(identity._replace(generation=number)), founding_row(founding)])


def state(engine: Fragile) -> list[object]:
    return [engine.scan(table, b"", None, 999) for table in TABLES]


@pytest.mark.parametrize("installed", [0, 2])
def test_a_half_gets_the_state_of_the_furthest_and_its_log_counts(installed: int) -> None:
    one = applied(0)
    high = Ballot(7, 2, 102)
    two = directory(3, 2, {5: (BALLOT, FIVE), 6: (high, SIX)})
    break_off(two, applied(4, FIVE), installed)
    left = survivors(one, two)
    recovery = Recovery(left)
    findings = recovery.findings()
    assert (findings.survivors, findings.lost_ordinals) == ((0, 3), (1, 2, 4))
    assert findings.without_state == (3,)
    assert "directory 1 holds half a state (piece 1 of a staged snapshot" in findings.remarks[0]
    assert "it gets the state" in findings.remarks[0]
    assert "up to slot 5 all was chosen; of 1 of these slots" in findings.remarks[1]
    assert len(findings.remarks) == 2
    assert findings.phrase == "generation-1-loses-0-keys"
    assert (findings.applied, findings.slots, findings.slots_unknown) == (4, 2, 0)
    assert findings.slots_gone == 0
    recovery.carry_out(fresh(recovery), NEW)
    assert values(one)[b"k5"] == b"five"
    assert values(one)[b"k6"] == b"six"
    assert state(two) == state(one)
    assert Machine.load(two).barrier.round == 8
    assert not is_installing(two)
    assert not two.keys(Table.META, UNSTAGE.start, UNSTAGE.end)
    assert two.count(Table.LOG) == 0
    assert generation(one) == generation(two) == 1


def test_what_a_half_promised_is_below_the_new_ballot_and_not_forgotten() -> None:
    one, two = applied(0), break_off(directory(3, 2), applied(4))
    outbox = Outbox()
    hard = HardState(outbox)
    hard.load(two)
    hard.promise(Ballot(20, 1, 101))
    hard.write(2)
    two.write(outbox.writes)
    recovery = Recovery(survivors(one, two))
    recovery.carry_out(fresh(recovery), NEW)
    assert Machine.load(one).barrier.round == 21
    hard.load(two)
    assert hard.promised.round == 21


def test_what_a_half_knows_to_be_chosen_is_taken_before_what_others_accepted() -> None:
    one = directory(0, 2, {4: (Ballot(9, 1, 101), put(4, b"never chosen"))})
    two = break_off(directory(3, 4), applied(4))
    recovery = Recovery(survivors(one, two))
    recovery.carry_out(fresh(recovery), NEW)
    assert values(one)[b"k4"] == b"value"
    assert state(two) == state(one)


def test_slots_of_the_lost_state_that_nobody_knows_are_told_and_not_used_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = applied(0)
    two = break_off(directory(3, 2, {6: (BALLOT, SIX)}), applied(4, FIVE, SIX, put(7, b"seven")))
    assert installing_slot(two) == 7
    recovery = Recovery(survivors(one, two))
    findings = recovery.findings()
    assert (findings.applied, findings.slots) == (4, 3)
    assert (findings.slots_unknown, findings.slots_gone, findings.slots_uncertain) == (2, 2, 1)
    assert findings.phrase == "generation-1-loses-0-keys-and-2-slots"
    show(findings, as_json=False)
    said = capsys.readouterr().out
    assert (
        "all 4 slots applied by the node that is furthest along, and 1 more from the logs" in said
    )
    assert "2 further slots are known to nobody left: LOST\n  2 of these were chosen" in said
    assert "directory 1 holds half a state" in said
    recovery.carry_out(fresh(recovery), NEW)
    assert Machine.load(one).applied > 7
    assert values(one)[b"k6"] == b"six"
    assert b"k7" not in values(one)
    assert state(two) == state(one)


def test_a_hole_of_which_nobody_knows_whether_it_was_chosen_is_not_told_as_gone() -> None:
    one, two = applied(0), break_off(directory(3, 2, {7: (BALLOT, SIX)}), applied(4, FIVE))
    findings = Recovery(survivors(one, two)).findings()
    assert (findings.slots, findings.slots_unknown, findings.slots_gone) == (3, 2, 1)


def test_a_half_that_is_no_member_yet_in_the_older_state_is_heard() -> None:
    """It may have been admitted in a slot that only it knows."""
    one = applied(0)
    two = break_off(directory(3, 2, {5: (BALLOT, FIVE)}), applied(4, FIVE, SIX))
    identity = read_identity(two)
    assert identity is not None
    two.write([identity_row(identity._replace(incarnation=999))])
    findings = Recovery(survivors(one, two)).findings()
    assert findings.survivors == (0,)
    assert (findings.slots, findings.slots_gone) == (2, 1)
    set_generation(one, 1)  # which had lost the other
    findings = Recovery(survivors(one, two)).findings()
    assert (findings.slots, findings.slots_gone, findings.generation) == (0, 0, 2)


def test_a_mark_that_names_no_slot_is_told() -> None:
    one, two = applied(0), break_off(directory(3, 2), applied(4))
    two.write([StoragePut(Table.META, INSTALLING, b"\1")])
    recovery = Recovery(survivors(one, two))
    assert "how new the state of directory 1 was" in recovery.findings().remarks[1]
    assert "beyond slot 4 is LOST" in recovery.findings().remarks[1]
    recovery.carry_out(fresh(recovery), NEW)
    assert state(two) == state(one)


def rot_stage(engine: Fragile) -> bool:
    """Whether its state is half installed."""
    if not is_installing(engine):
        return False
    for key in engine.keys(Table.META, UNSTAGE.start, UNSTAGE.end):
        engine.rot(Table.META, key)
    return True


def test_a_copy_broken_off_whose_stage_rots_is_done_again() -> None:
    halves = 0
    for writes in range(12):
        one, two = directory(0, 4), directory(3, 2, {5: (BALLOT, put(5, b"x"))})
        recovery = Recovery(survivors(one, two))
        Fragile.left = writes
        try:
            recovery.carry_out(fresh(recovery), NEW)
        except Crash:
            pass
        finally:
            Fragile.left = None
        if not rot_stage(two):
            continue
        halves += 1
        again = Recovery(survivors(one, two))
        findings = again.findings()
        assert findings.half_done
        assert findings.without_state == (3,)
        assert (findings.slots_gone, findings.generation) == (0, 1)
        again.carry_out(fresh(again), {o: 300 + o for o in range(5)})
        assert state(two) == state(one)
        assert generation(two) == generation(one) == 1
        assert values(two)[b"k5"] == b"x"
    assert halves


def test_broken_off_at_any_write_the_same_command_gives_a_half_its_state() -> None:
    writes, done = 0, False
    while not done:
        one, two = directory(0, 4), break_off(directory(3, 2, {5: (BALLOT, FIVE)}), applied(4))
        recovery = Recovery(survivors(one, two))
        Fragile.left = writes
        try:
            recovery.carry_out(fresh(recovery), NEW)
            done = True
        except Crash:
            pass
        finally:
            Fragile.left = None
        rot_stage(two)
        again = Recovery(survivors(one, two))
        again.carry_out(fresh(again), {o: 300 + o for o in range(5)})
        assert state(two) == state(one)
        assert not is_installing(two)
        assert values(two)[b"k5"] == b"five"
        writes += 1
    assert writes > 6


def test_only_halves_that_can_have_a_state_make_a_quorum() -> None:
    """Of three: with the giver gone the two that are left wait for each other."""
    whole = [directory(0, 4), directory(1, 4, {5: (BALLOT, FIVE)})]
    half = break_off(directory(2, 2), applied(4, FIVE))
    recovery = Recovery(survivors(*whole, half))
    assert recovery.findings().lost_ordinals == (3, 4)
    assert (recovery.findings().slots, recovery.findings().slots_gone) == (1, 0)
    half = break_off(directory(2, 2), applied(4))
    with pytest.raises(CannotRecover, match=r"3 of 5 .*directory 2 holds half.*start its node"):
        Recovery(survivors(*whole, half))


def test_the_state_of_a_volume_that_went_back_makes_no_quorum() -> None:
    """Nobody hears it, so nobody takes its state."""
    whole = [applied(0, FIVE), directory(1, 4), directory(3, 4)]
    half = break_off(directory(2, 2), applied(4, FIVE))
    with pytest.raises(CannotRecover, match="4 of 5"):
        Recovery(survivors(*whole, half))
    remember(whole[1], {Member(0, 100): 1000})
    recovery = Recovery(survivors(*whole, half))
    assert recovery.findings().without_state == (2,)
    assert recovery.findings().slots == 0


def test_nobody_with_a_state_is_no_base() -> None:
    halves = [break_off(directory(o, 2), applied(4)) for o in (0, 3)]
    with pytest.raises(CannotRecover, match="none of these directories holds a whole state") as no:
        Recovery(survivors(*halves))
    assert "start" not in str(no.value)
    assert "directory 1: piece 1 of a staged snapshot" in str(no.value)


def test_a_generation_is_not_decided_twice_because_its_state_is_a_half() -> None:
    old, new = applied(0), break_off(directory(3, 4), applied(4))
    set_generation(new, 1)
    with pytest.raises(CannotRecover, match="has decided generation 1") as no:
        Recovery(survivors(old, new))
    assert "start its node" not in str(no.value)


def test_a_half_that_took_part_in_the_new_generation_keeps_its_log() -> None:
    """What it accepted there may be chosen."""
    base, half, old = applied(0), break_off(directory(3, 4), applied(4)), applied(1)
    for engine in (base, half):
        set_generation(engine, 1)
    recovery = Recovery(survivors(base, half, old))
    findings = recovery.findings()
    assert findings.half_done
    assert findings.without_state == (3,)
    assert "once it is started" in findings.remarks[0]
    log = half.scan(Table.LOG, b"", None, 99)
    recovery.carry_out(fresh(recovery), NEW)
    assert half.scan(Table.LOG, b"", None, 99) == log
    assert installing_slot(half) == 4
    assert state(old) == state(base)
