"""Staged pieces of a snapshot that rot before they are installed, or while they are."""

from __future__ import annotations

from typing import Any

import pytest
from unit.member.alone import CLUSTER, Alone, member_on
from unit.member.snapshots import pieces

from distkv.core.hardstate import HardState
from distkv.core.log import Log
from distkv.core.messages import Accepted, Prepare, Promise, Refuse
from distkv.core.outbox import Outbox
from distkv.ids import Ballot
from distkv.machine.snapshot import INSTALLING, TABLES, SnapshotSink, is_installing
from distkv.member.member import Member
from distkv.member.messages import SnapshotPiece, SnapshotWanted
from distkv.member.staging import UNSTAGE, stage_of
from distkv.storage.base import Put, StorageError, Table
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity

PEER = Identity(CLUSTER, 0, 1, 101, 1)


def small_pieces(engine: MemoryEngine, transfer: int) -> list[SnapshotPiece]:
    found = pieces(engine, 40, transfer)
    assert len(found) > 3
    return found


def state_rows(engine: MemoryEngine) -> list[Any]:
    return [engine.scan(table) for table in TABLES]


def staged(engine: MemoryEngine) -> list[bytes]:
    return engine.keys(Table.META, UNSTAGE.start, UNSTAGE.end)


def kinds(member: Member) -> set[Any]:
    return {(s["source"], s["kind"]) for s in member.suspicions.status()}


def half_staged() -> tuple[MemoryEngine, Alone, list[SnapshotPiece]]:
    """All but the last piece; the second one is damaged by now."""
    engine = MemoryEngine()
    alone = Alone(engine)
    alone.appear(1)
    found = small_pieces(engine, 1)
    alone.seat.receiver.take_anew(1, alone.now)
    for piece in found[:-1]:
        alone.seat.receiver.on_piece(1, piece)
    assert engine.rot(Table.META, stage_of(1))
    return engine, alone, found


def test_a_piece_that_rotted_leaves_the_old_state_and_another_transfer_follows() -> None:
    engine, alone, found = half_staged()
    before = state_rows(engine)
    alone.seat.receiver.on_piece(1, found[-1])
    assert not is_installing(engine)
    assert state_rows(engine) == before
    assert not staged(engine)
    assert not alone.seat.receiver.active
    assert alone.seat.healer.found == {"META": 1}
    assert ("own disk", "rotten row") in kinds(alone.member)
    alone.seat.receiver.take_anew(1, alone.now)
    for piece in small_pieces(engine, 2):
        alone.seat.receiver.on_piece(1, piece)
    assert alone.seat.healer.states_taken == 1
    assert state_rows(engine) == before


def test_a_piece_that_the_scrubber_finds_rotten_ends_the_transfer() -> None:
    engine, alone, _ = half_staged()
    alone.seat.data._on_rot(Table.META, stage_of(1), True)
    assert not alone.seat.receiver.active
    assert not staged(engine)
    assert alone.seat.healer.found == {"META": 1}


def broken_off(engine: MemoryEngine, mark: bytes | None = None) -> list[SnapshotPiece]:
    """A crash after some rows of the snapshot were installed; then a piece of it rots."""
    found = small_pieces(engine, 1)
    engine.write([Put(Table.META, stage_of(piece.piece), piece.body) for piece in found])
    sink = SnapshotSink()
    engine.write(sink.begin(found[0].slot))
    for piece in found[:2]:
        engine.write(sink.take(piece.body))
    if mark is not None:
        engine.write([Put(Table.META, INSTALLING, mark)])
    assert engine.rot(Table.META, stage_of(2))
    return found


def accepted_and_promised(engine: MemoryEngine, applied: int) -> tuple[Any, ...]:
    hard, log = HardState(Outbox()), Log(Outbox())
    log.load(engine, max(hard.load(engine), applied), applied)
    return hard.promised, log.chosen, list(log.accepted_above(applied))


def turn(member: Member, now: float) -> list[Any]:
    """Messages of a turn whose batch is written and flushed."""
    output = member.turn(now, int(now * 1000))
    member.engine.write(output.writes)
    member.engine.flush()
    member.flushed(output.number)
    return [*output.messages, *output.messages_after_flush]


def directory() -> tuple[MemoryEngine, tuple[Any, ...], int]:
    """One that has promised, and accepted an entry above its applied slot."""
    engine = MemoryEngine()
    alone = Alone(engine)
    alone.step(1.0)
    applied = alone.seat.machine.applied
    outbox = Outbox()
    Log(outbox).put(applied + 1, Ballot(9, 1, 101), b"may be chosen")
    engine.write(outbox.writes)
    return engine, accepted_and_promised(engine, applied), applied


def test_a_swap_broken_off_whose_stage_rotted_is_finished_with_another_state() -> None:
    engine, kept, applied = directory()
    before = state_rows(engine)
    found = broken_off(engine)
    member = member_on(engine)
    assert member.seat is None
    assert ("own disk", "rotten row") in kinds(member)
    assert member.status()["state"] == "mending"
    member.peer_up(PEER)
    now = 2000.0
    asked = [sent.message for sent in turn(member, now)]
    assert SnapshotWanted(1, 0) in asked
    for ballot in (Ballot(50, 1, 101), Ballot(1, 1, 101)):
        member.receive(PEER, Prepare(ballot, applied))
    assert not [
        sent
        for sent in turn(member, now + 0.1)
        if isinstance(sent.message, Promise | Accepted | Refuse)
    ], "it has no part in anything"
    for piece in found:
        member.receive(PEER, piece)
    assert not is_installing(engine)
    assert member.seat is None, "the state is not durable yet"
    turn(member, now + 0.2)
    assert member.seat is not None
    assert state_rows(engine) == before
    assert member.seat.machine.applied == applied
    promised, _, above = accepted_and_promised(engine, applied)
    assert promised >= kept[0]
    assert above[: len(kept[2])] == kept[2]
    assert kept[2], "an entry above the state was to be kept"


def test_an_older_state_does_not_do() -> None:
    """Entries that were applied have left the log: after an older state they would be missing,
    and this node would say that it never accepted any there."""
    engine, _, _ = directory()
    found = broken_off(engine)
    member = member_on(engine)
    member.peer_up(PEER)
    turn(member, 2000.0)
    for piece in found:
        member.receive(PEER, piece._replace(slot=piece.slot - 1))
    assert is_installing(engine)
    assert not staged(engine)
    asked = [sent.message for sent in turn(member, 2001.0)]
    assert SnapshotWanted(2, 0) in asked


def test_a_crash_while_another_state_is_staged_begins_that_anew() -> None:
    engine, _, applied = directory()
    found = broken_off(engine)
    member = member_on(engine)
    member.peer_up(PEER)
    turn(member, 2000.0)
    for piece in found[:2]:
        member.receive(PEER, piece)
    again = member_on(engine)
    assert again.seat is None
    again.peer_up(PEER)
    turn(again, 3000.0)
    for piece in found:
        again.receive(PEER, piece)
    turn(again, 3000.1)
    assert again.seat is not None
    assert again.seat.machine.applied == applied


def test_a_mark_that_does_not_say_how_new_the_state_must_be_ends_the_start() -> None:
    engine, _, _ = directory()
    broken_off(engine, mark=b"\1")
    with pytest.raises(StorageError, match="have the node replaced"):
        member_on(engine)
