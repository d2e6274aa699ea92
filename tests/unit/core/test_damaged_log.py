"""Rows of the log that rotted: what is chosen may be missing, what was accepted may not."""

from __future__ import annotations

import struct

import pytest

from distkv.core.log import Log
from distkv.core.outbox import Outbox
from distkv.ids import Ballot
from distkv.storage.base import StorageError, Table
from distkv.storage.memory import MemoryEngine

BALLOT = Ballot(3, 1, 77)


def engine_with(slots: int) -> MemoryEngine:
    outbox = Outbox()
    log = Log(outbox)
    for slot in range(1, slots + 1):
        log.put(slot, BALLOT, b"entry %d" % slot)
    engine = MemoryEngine()
    engine.write(outbox.writes)
    return engine


def key(slot: int) -> bytes:
    return struct.pack(">Q", slot)


def test_a_chosen_and_applied_entry_may_be_gone() -> None:
    engine = engine_with(9)
    engine.rot(Table.LOG, key(4))
    log = Log(Outbox())
    log.load(engine, 7, 6)
    assert (log.first, log.chosen, log.last) == (5, 7, 9)
    assert [slot for slot, _, _ in log.accepted_above(7)] == [8, 9]


def test_an_accepted_entry_that_is_gone_must_not_be_forgotten() -> None:
    engine = engine_with(9)
    engine.rot(Table.LOG, key(8))
    with pytest.raises(StorageError, match="slot 8 is damaged"):
        Log(Outbox()).load(engine, 7, 7)


def test_a_chosen_entry_still_to_be_applied_stops_the_start() -> None:
    engine = engine_with(9)
    engine.rot(Table.LOG, key(6))
    with pytest.raises(StorageError, match="not applied yet"):
        Log(Outbox()).load(engine, 7, 5)
