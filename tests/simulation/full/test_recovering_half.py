"""Forced recovery from directories of which one has half a state: its shards and its log count."""

from __future__ import annotations

import pytest
from simulation.full import test_healing as healing
from simulation.full.test_held import seat_of
from simulation.full.test_staging import break_off

from distkv.core.messages import Accept, Message
from distkv.ids import Member
from distkv.machine.machine import Machine
from distkv.machine.snapshot import installing_slot, is_installing
from distkv.member.recovery import Recovery
from distkv.member.staging import stage_of
from distkv.member.survivors import Survivor
from distkv.simulation.member_host import Host
from distkv.storage.base import StorageOperation, Table
from distkv.storage.memory import MemoryEngine

FRESH = {ordinal: 900 + ordinal for ordinal in range(5)}


class Power(Exception):
    """It went."""


def recovery_of(*hosts: Host) -> Recovery:
    return Recovery([Survivor(f"node {host.ordinal}", host.engine) for host in hosts])


def carry_out(recovery: Recovery) -> None:
    recovery.carry_out({m.ordinal: MemoryEngine() for m in recovery.lost_members}, FRESH)


def test_rot_in_a_copy_that_was_broken_off_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 + 3 the two that are left hold two shards of every value."""
    world = healing.world_of((2, 3))
    for i in range(5):
        healing.put(world, b"big%d" % i, bytes([i]) * 20000)
    world.run_until(lambda: False, 15.0)
    for host in world.hosts:
        world.crash(host)
    one, two = world.hosts[:2]
    recovery = recovery_of(one, two)
    assert recovery.findings().phrase == "generation-1-loses-0-keys"
    write = two.engine.write

    def cut(batch: list[StorageOperation]) -> object:
        size = write(batch)
        if is_installing(two.engine):
            raise Power
        return size

    with monkeypatch.context() as patch:
        patch.setattr(two.engine, "write", cut)
        with pytest.raises(Power):
            carry_out(recovery)
    assert two.engine.rot(Table.META, stage_of(0))
    again = recovery_of(one, two)
    assert again.findings().half_done
    assert again.findings().phrase == "generation-1-loses-0-keys"
    carry_out(again)
    assert not is_installing(two.engine)
    assert Machine.load(two.engine).applied == Machine.load(one.engine).applied


def test_the_giver_is_lost_and_nobody_else_applied_its_last_slot() -> None:
    """Of 2 + 1: what is left waits for a state of that slot, and for a vote. The slot is in the
    log of the one that accepted it, the shards are in both directories."""
    world = healing.world_of((2, 1))
    for i in range(10):
        healing.put(world, b"key%d" % i, bytes([65 + i]) * 300)
    world.run_until(lambda: False, 5.0)
    giver = next(host for host in world.hosts if host.leads)
    half, deaf = (host for host in world.hosts if host is not giver)
    world.crash(half)
    step, frozen = seat_of(deaf).replica.step, seat_of(deaf).machine.applied

    def hear(sender: Member, message: Message) -> None:
        """Nothing of what is chosen."""
        if type(message) is Accept:
            message = message._replace(chosen=min(message.chosen, frozen))
        step(sender, message)

    seat_of(deaf).replica.step = hear  # type: ignore[method-assign]
    healing.put(world, b"last", b"acknowledged", giver.ordinal)
    break_off(half, giver, 3)
    assert half.engine.rot(Table.META, stage_of(1))
    slot = installing_slot(half.engine)
    world.crash(giver)  # and its disk is gone
    world.crash(deaf)
    assert slot is not None
    assert slot > Machine.load(deaf.engine).applied
    recovery = recovery_of(half, deaf)
    findings = recovery.findings()
    assert (findings.keys, findings.keys_lost, findings.slots_gone) == (11, 0, 0)
    assert findings.without_state == (half.ordinal,)
    carry_out(recovery)
    for host in (half, deaf):
        host.start()
    assert world.run_until(lambda: any(host.leads for host in world.hosts), 60.0)
    assert healing.get(world, b"last", half.ordinal) == b"acknowledged"
    assert healing.get(world, b"key9", half.ordinal) == b"J" * 300
