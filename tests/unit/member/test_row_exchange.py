"""Rotten rows that peers give: which of them are right, and what is given to whom."""

from __future__ import annotations

import pytest
from unit.member.alone import Alone

from distkv.member.messages import RowsGiven, RowsWanted
from distkv.member.row_exchange import ROWS_MAX
from distkv.storage.base import Delete, DeleteRange, Put, StorageOperation, Table
from distkv.storage.memory import MemoryEngine

ROW = (Table.NAME, b"a")


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
    assert exchange.on_given(RowsGiven(slot, ((*ROW, b"key"),)), rotten)
    found = [(at, exchange.usable(rotten, at)) for at in (7, 8, 9, 10)]
    assert [(at, puts) for at, puts in found if puts] == (
        [] if taken_at is None else [(taken_at, [Put(*ROW, b"key")])]
    )


def test_what_is_not_rotten_here_is_not_taken() -> None:
    exchange = Alone().seat.healer.exchange
    assert not exchange.on_given(RowsGiven(5, ((*ROW, b"key"),)), {})
    assert exchange.on_given(RowsGiven(5, ((*ROW, b"key"),)), {ROW: 5})
    assert exchange.usable({}, 7) == []
    assert exchange.usable({ROW: 5}, 7) == [], "it was mended meanwhile, and rotted again"


@pytest.mark.parametrize(
    ("changed", "left"),
    [
        ([], [Put(*ROW, b"old")]),
        ([Put(Table.NAME, b"b", b"new"), Delete(Table.RECORD, b"a")], [Put(*ROW, b"old")]),
        ([Put(*ROW, b"new")], []),
        ([Delete(*ROW)], []),
        ([DeleteRange(Table.NAME, b"", b"\xff")], []),
        ([DeleteRange(Table.RECORD, b"", b"\xff")], [Put(*ROW, b"old")]),
    ],
)
def test_what_the_log_changed_is_not_put_back(
    changed: list[StorageOperation], left: list[StorageOperation]
) -> None:
    seat = Alone().seat
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
    seat = Alone().seat
    seat.healer.on_rot(*ROW)
    seat.healer._stuck = seat.replica.held = True
    seat.healer.on_given(1, RowsGiven(seat.healer.rotten[ROW], ((*ROW, b"key"),)))
    waiting = seat.kernel.spawn(seat.healer.wait(seat.kernel.now + 9.0))
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
