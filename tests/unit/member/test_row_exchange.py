"""Rotten rows that peers give: which of them are right, and what is given to whom."""

from __future__ import annotations

import pytest
from unit.member.alone import Alone

from distkv.machine.rows import HEAD_ROW
from distkv.machine.snapshot import slot_of
from distkv.member.healing import AGAIN, Healer
from distkv.member.messages import RowsGiven, RowsWanted, SnapshotPiece, SnapshotWanted
from distkv.member.row_exchange import NEVER, ROWS_MAX
from distkv.member.seat import Seat
from distkv.operations import Put as PutValue
from distkv.operations import Write
from distkv.storage.base import CorruptRow, Delete, DeleteRange, Put, StorageOperation, Table
from distkv.storage.memory import MemoryEngine

ROW = (Table.NAME, b"a")


def rotten_seat() -> Seat:
    engine = MemoryEngine()
    seat = Alone(engine).seat
    engine.write([Put(*ROW, b"key")])
    engine.rot(*ROW)
    return seat


@pytest.mark.parametrize(
    ("slot", "taken_at"),
    [
        pytest.param(4, None, id="before its rot was met: it may have changed since"),
        pytest.param(5, 7, id="when its rot was met"),
        pytest.param(7, 7, id="now"),
        pytest.param(9, 9, id="of a peer that is ahead: when this node is there"),
    ],
)
def test_a_row_is_right_from_when_its_rot_was_met(slot: int, taken_at: int | None) -> None:
    exchange = Alone().seat.healer.exchange
    rotten = {ROW: 5}
    assert exchange.on_given(1, RowsGiven(slot, ((*ROW, b"key"),)), rotten) is (slot >= 5)
    found = [(at, exchange.usable(rotten, at)) for at in (7, 8, 9, 10)]
    assert [(at, puts) for at, puts in found if puts] == (
        [] if taken_at is None else [(taken_at, [Put(*ROW, b"key")])]
    )


def test_what_is_not_rotten_here_is_not_taken() -> None:
    exchange = Alone().seat.healer.exchange
    given = RowsGiven(5, ((*ROW, b"key"),))
    assert not exchange.on_given(1, given, {})
    assert not exchange.on_given(1, given, {ROW: NEVER})
    assert exchange.on_given(1, given, {ROW: 5})
    assert exchange.usable({}, 7) == []
    assert exchange.usable({ROW: 5}, 7) == [], "it was mended meanwhile, and rotted again"


@pytest.mark.parametrize("slots", [(9, 4), (9, 7), (7, 9), (7, 8, 9)])
def test_of_several_answers_the_one_that_is_right_first_is_taken(slots: tuple[int, ...]) -> None:
    """Of peers that lag, and of others that are ahead, of which one may be asked for ever."""
    exchange = Alone().seat.healer.exchange
    rotten = {ROW: 5}
    for slot in slots:
        exchange.on_given(slot, RowsGiven(slot, ((*ROW, b"%d" % slot),)), rotten)
    right = min(slot for slot in slots if slot >= 5)
    assert exchange.usable(rotten, right - 1) == []
    assert exchange.usable(rotten, right) == [Put(*ROW, b"%d" % right)]


def test_what_is_no_record_is_not_taken() -> None:
    alone = Alone()
    row = (Table.RECORD, b"a")
    exchange = alone.seat.healer.exchange
    for body in (b"", b"\x93\x01\x02\x03", b"\x01", b"\x9c" + 12 * b"\x02", b"\x91\x07"):
        assert not exchange.on_given(1, RowsGiven(5, ((*row, body),)), {row: 5})
    assert alone.member.suspicions.status()


def test_what_nobody_has_does_not_stand_before_all_others() -> None:
    alone = Alone()
    sent: list[RowsWanted] = []
    alone.member.send = lambda ordinal, message, stream=0: sent.append(message)  # type: ignore
    rotten = {(Table.NAME, b"%03d" % i): 5 for i in range(ROWS_MAX + 10)}
    rotten[Table.NAME, b"never"] = NEVER
    rotten[Table.STATE, b"state"] = 5
    for _ in range(2):
        assert alone.seat.healer.exchange.ask([1], rotten)
    assert {row for wanted in sent for row in wanted.rows} == {r for r in rotten if b"0" in r[1]}
    assert not alone.seat.healer.exchange.ask([1], {(Table.NAME, b"never"): NEVER})
    assert not alone.seat.healer.exchange.ask([], rotten)


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ([], [Put(*ROW, b"old")]),
        ([Put(Table.NAME, b"b", b"new"), Delete(Table.RECORD, b"a")], [Put(*ROW, b"old")]),
        ([Put(*ROW, b"new")], []),
        ([Delete(*ROW)], []),
        ([DeleteRange(Table.NAME, b"", b"\xff")], []),
        ([DeleteRange(Table.NAME, b"", b"\xff"), Put(*ROW, b"new")], []),
        ([DeleteRange(Table.RECORD, b"", b"\xff")], [Put(*ROW, b"old")]),
    ],
)
def test_what_the_log_changed_is_not_put_back(
    changed: list[StorageOperation], left: list[StorageOperation]
) -> None:
    seat = rotten_seat()
    healer, census = seat.healer, seat.data.restriper.census
    healer.on_rot(*ROW)
    census.known = True
    slot = healer.rotten[ROW]
    healer.on_given(1, RowsGiven(slot, ((*ROW, b"old"),)))
    assert healer.turn_ended(changed) == left
    assert not healer.waiting
    assert healer.rows_taken == len(left)
    assert healer.mended == 1
    assert not census.known, "values whose row could not be read were not counted (world 100)"


def test_an_entry_that_waited_for_the_row_is_applied() -> None:
    seat = rotten_seat()
    seat.healer.on_rot(*ROW)
    seat.healer._stuck = seat.replica.held = True
    seat.healer.on_given(1, RowsGiven(seat.healer.rotten[ROW], ((*ROW, b"key"),)))
    waiting = seat.kernel.spawn(seat.healer.wait(ROW, seat.kernel.now + 9.0))
    seat.kernel.run(seat.kernel.now)
    assert not waiting.done
    seat.healer.turn_ended([])
    seat.kernel.run(seat.kernel.now)
    assert waiting.done
    assert not seat.replica.held


def test_only_sound_rows_of_records_names_and_expiries_are_given() -> None:
    engine = MemoryEngine()
    alone = Alone(engine)
    sent: list[tuple[int, object]] = []
    alone.member.send = lambda ordinal, message, stream=0: sent.append((ordinal, message))  # type: ignore[method-assign]
    engine.write([Put(Table.NAME, b"rotten", b"x"), Put(Table.NAME, b"sound", b"y")])
    engine.rot(Table.NAME, b"rotten")
    secret = engine.keys(Table.META)[0]
    state = engine.keys(Table.STATE)[0]
    wanted = (
        (Table.META, secret),
        (Table.STATE, state),
        (Table.NAME, b"rotten"),
        (Table.NAME, b"absent"),
        (Table.NAME, b"sound"),
    )
    alone.seat.healer.exchange.on_wanted(1, RowsWanted(wanted))
    slot = alone.seat.machine.applied
    assert sent == [(1, RowsGiven(slot, ((Table.NAME, b"sound", b"y"),)))]
    assert (Table.NAME, b"rotten") in alone.seat.healer.rotten


def test_an_answer_has_an_end() -> None:
    alone = Alone()
    sent: list[RowsGiven] = []
    alone.member.send = lambda ordinal, message, stream=0: sent.append(message)  # type: ignore
    keys = [b"%03d" % i for i in range(ROWS_MAX + 5)]
    alone.engine.write([Put(Table.RECORD, key, bytes(100)) for key in keys])
    wanted = RowsWanted(tuple((Table.RECORD, key) for key in keys))
    alone.seat.healer.exchange.on_wanted(1, wanted)
    alone.engine.write([Put(Table.RECORD, key, bytes(100_000)) for key in keys])
    alone.seat.healer.exchange.on_wanted(1, wanted)
    assert [len(given.rows) for given in sent] == [ROWS_MAX, 3]


def mend(healer: Healer) -> None:
    """As a peer has it."""
    healer.on_given(1, RowsGiven(healer.rotten[ROW], ((*ROW, b"key"),)))
    healer._engine.write(healer.turn_ended([]))
    assert not healer.waiting


def test_a_row_that_is_sound_was_met_before_it_was_mended() -> None:
    healer = rotten_seat().healer
    healer.on_rot(*ROW)
    mend(healer)
    healer.on_rot(*ROW)
    assert not healer.waiting
    assert healer.found == {"NAME": 1}


def test_a_row_may_rot_again() -> None:
    seat = rotten_seat()
    for _ in range(AGAIN + 3):
        seat.owner.engine.rot(*ROW)  # type: ignore[attr-defined]
        seat.healer.on_rot(*ROW)
        assert seat.healer.rotten[ROW] != NEVER
        mend(seat.healer)


def test_a_row_that_is_met_again_and_again_is_not_what_is_damaged() -> None:
    healer = rotten_seat().healer
    healer.on_rot(*ROW)
    mend(healer)
    for _ in range(AGAIN):
        assert not healer.waiting
        healer.on_rot(*ROW)
    assert healer.rotten == {ROW: NEVER}
    assert healer.turn_ended([Put(*ROW, b"key")]) == []
    healer.poll(1e9)
    assert healer.waiting


def test_a_sound_row_before_a_damaged_block_waits_until_a_walk_gets_past() -> None:
    """RocksDB names it. The log may replace the block as well as a peer's state."""
    seat = Alone(MemoryEngine()).seat
    engine, healer = seat.owner.engine, seat.healer
    engine.write([Put(*ROW, b"key")])
    scan = engine.scan

    def broken(table: Table, start: bytes, end: bytes | None, limit: int) -> object:
        raise CorruptRow(table, named or start)

    named = b"next"
    engine.scan = broken  # type: ignore[method-assign, assignment]
    healer.on_rot(*ROW)
    assert not healer.waiting, "the next row is rotten by itself, and nobody has met it yet"
    named = b""
    healer.on_rot(*ROW)
    assert healer.rotten == {ROW: NEVER}
    healer.poll(seat.kernel.now)
    assert healer.waiting
    engine.scan = scan  # type: ignore[method-assign]
    healer.poll(seat.kernel.now + 1.0)
    assert not healer.waiting


class Blocked:
    """A node of which a batch waits for space: the engine is a slot behind what was drained."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        alone = self.alone = Alone(self.engine)
        self.seat = alone.seat
        alone.until(lambda: self.seat.booted)
        first = alone.member.execute(Write((PutValue(b"key", b"one"),)), alone.now + 9)
        alone.until(lambda: first.done)
        self.row = self.engine.get(Table.RECORD, b"key")
        alone.member.execute(Write((PutValue(b"key", b"two"),)), alone.now + 9)
        while True:
            output = alone.member.turn(alone.now, int(alone.now * 1000))
            alone.now += 0.025
            if any(operation.table is Table.RECORD for operation in output.writes):
                break
            self.engine.write(output.writes)
            self.engine.flush()
            alone.member.flushed(output.number)
        self.slot = slot_of(self.engine)
        assert self.seat.machine.drained > self.slot


def test_a_row_of_a_batch_that_waits_for_space_gets_into_no_older_state() -> None:
    """Neither here, where an increment would be applied to it again, nor at a peer."""
    blocked = Blocked()
    engine, seat = blocked.engine, blocked.seat
    engine.rot(Table.RECORD, b"key")
    sent: list[object] = []
    seat.owner.send = lambda ordinal, message, stream=0: sent.append(message)  # type: ignore[method-assign]
    seat.healer.exchange.on_wanted(1, RowsWanted(((Table.RECORD, b"key"),)))
    seat.healer.on_rot(Table.RECORD, b"key")
    seat.healer.exchange.on_wanted(1, RowsWanted(((Table.RECORD, b"key"),)))
    assert sent == []
    assert slot_of(engine) == blocked.slot
    with pytest.raises(CorruptRow):
        engine.get(Table.RECORD, b"key")
    assert seat.healer.rotten == {(Table.RECORD, b"key"): seat.machine.drained}


def test_a_snapshot_is_not_begun_without_the_head_of_the_state() -> None:
    engine = MemoryEngine()
    alone = Alone(engine)
    engine.rot(Table.STATE, HEAD_ROW)
    sent: list[object] = []
    alone.member.send = lambda ordinal, message, stream=0: sent.append(message)  # type: ignore[method-assign]
    alone.seat.server.on_wanted(1, SnapshotWanted(7, 0))
    alone.seat.healer.exchange.on_wanted(1, RowsWanted(((Table.NAME, b"a"),)))
    assert sent == [SnapshotPiece(7, 0, 0, False, b"")]
    assert (Table.STATE, HEAD_ROW) in alone.seat.healer.rotten
