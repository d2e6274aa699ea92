"""A snapshot that comes to a node whose disk is full, or which stops right after it."""

from __future__ import annotations

import pytest
from unit.member.alone import Alone
from unit.member.snapshots import pieces

from distkv.core.log import Log
from distkv.core.outbox import Outbox
from distkv.ids import Ballot
from distkv.machine.snapshot import is_installing
from distkv.member.staging import finish_install, stage_of
from distkv.storage.base import Put, Table
from distkv.storage.memory import MemoryEngine


@pytest.mark.parametrize("full_at", [-1, 0, 1])
def test_a_full_disk_ends_the_transfer_not_the_node(full_at: int) -> None:
    engine = MemoryEngine()
    alone = Alone(engine)
    receiver = alone.seat.receiver
    alone.appear(1)
    found = pieces(alone.engine)
    engine.full = full_at < 0
    receiver.take_anew(1, alone.now)
    assert receiver.active == (full_at >= 0)
    for number, piece in enumerate(found):
        engine.full |= number == full_at
        receiver.on_piece(1, piece)
    assert not receiver.active
    assert not is_installing(engine)
    engine.full = False
    alone.seat.replica.held = False
    receiver.take_anew(1, alone.now)
    for piece in pieces(alone.engine):
        receiver.on_piece(1, piece._replace(transfer=2))
    assert not receiver.active
    alone.seat.replica.held = False
    alone.step(0.2)
    assert alone.seat.replica.is_leader


def test_no_snapshot_comes_before_a_batch_that_waits_for_space() -> None:
    """Its rows, of the older state, would be written over those of the newer one."""
    alone = Alone()
    alone.appear(1)
    found = pieces(alone.engine)
    alone.seat.receiver.take_anew(1, alone.now)
    for piece in found[:-1]:
        alone.seat.receiver.on_piece(1, piece)
    applied = alone.seat.machine.applied
    alone.member.write_refused()
    alone.seat.receiver.on_piece(1, found[-1]._replace(slot=applied + 9))
    assert not is_installing(alone.engine)
    assert alone.seat.machine.applied == applied
    assert not alone.seat.receiver.active


def test_what_was_accepted_below_a_snapshot_goes_with_it() -> None:
    """A crash right after the installation, before the replica's own batch: a start takes every
    slot of the state for chosen, and what is found in its log row for what was chosen there."""
    alone = Alone()
    engine, slot = alone.engine, alone.seat.machine.applied
    outbox = Outbox()
    accepted = Log(outbox)
    accepted.put(slot, Ballot(1, 0, 5), b"never chosen")
    accepted.put(slot + 1, Ballot(1, 0, 5), b"may be chosen")
    staged = [Put(Table.META, stage_of(piece.piece), piece.body) for piece in pieces(alone.engine)]
    engine.write([*outbox.writes, *staged])
    finish_install(engine)
    log = Log(Outbox())
    log.load(engine, slot, slot)
    assert log.chosen == slot
    assert [entry for _, _, entry in log.accepted_above(0)] == [b"may be chosen"]
