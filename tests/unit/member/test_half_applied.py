"""Entries that walk over rows: all of them are read before anything is changed.

A row that cannot be read makes the entry wait. Met half way, it would end the process, and again
after each start.
"""

from __future__ import annotations

from typing import Any

import pytest
from unit.member.alone import Alone

from distkv.core import entries
from distkv.machine import parsing
from distkv.machine.commands import pack_tick
from distkv.machine.interface import OutcomeKind
from distkv.machine.keyspace import EXPIRED_PER_TICK
from distkv.operations import Delete, Expiry, Flush, Put, Write
from distkv.storage.base import CorruptRow, Table
from distkv.storage.base import Put as Row
from distkv.storage.memory import MemoryEngine

DAMAGED = 1 << 50
"""A time far from now, ms."""


class Prepared:
    """A node alone, and the time at which keys of it are over."""

    def __init__(self, expiring: int = 0) -> None:
        self.engine = MemoryEngine()
        self.alone = Alone(self.engine)
        self.machine = self.alone.seat.machine
        self.alone.until(lambda: self.alone.seat.booted)
        self.over = int(self.alone.now * 1000) + 100_000
        keys = [b"k%04d" % i for i in range(expiring)]
        for at in range(0, expiring, 50):
            puts = tuple(Put(key, b"v", Expiry(at_ms=self.over)) for key in keys[at : at + 50])
            self.write(*puts)
        self.machine.keyspace.records._young, self.machine.keyspace.records._old = {}, {}

    def write(self, *mutations: Any) -> None:
        future = self.alone.member.execute(Write(mutations), self.alone.now + 9)
        self.alone.until(lambda: future.done)

    def packed(self, *mutations: Any) -> list[bytes]:
        """The command as it would be proposed."""
        captured: list[bytes] = []

        def propose(commands: list[bytes]) -> bool:
            captured.extend(commands)
            return True

        self.alone.seat.replica.propose = propose  # type: ignore[method-assign, assignment]
        self.alone.member.execute(Write(mutations), self.alone.now + 9)
        self.alone.seat.router.route(self.alone.now)
        assert captured
        return captured

    def damage(self, table: Table, key: bytes) -> None:
        """Walks over it fail, as over a damaged block."""
        keys = self.engine.keys

        def broken(
            walked: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
        ) -> list[bytes]:
            found = keys(walked, start, end, limit)
            if walked is table and key in found:
                raise CorruptRow(table, start)
            return found

        self.engine.keys = broken  # type: ignore[method-assign]

    def apply(self, stamp: int, *commands: bytes) -> bool:
        """Whether it was applied; else it waits."""
        entry = entries.batch(stamp, list(commands))
        try:
            self.machine.apply(self.machine.applied + 1, entry)
        except CorruptRow:
            assert not self.machine._broken, "it was applied half way"
            return False
        return True


def test_two_ticks_in_one_entry() -> None:
    made = Prepared(EXPIRED_PER_TICK + 50)
    made.engine.rot(Table.RECORD, b"k%04d" % (EXPIRED_PER_TICK + 10))
    assert not made.apply(made.over + 1, pack_tick(), pack_tick())


def test_a_tick_goes_further_by_what_its_entry_removes() -> None:
    made = Prepared(EXPIRED_PER_TICK + 50)
    removed = made.packed(Delete(b"k0000"), Delete(b"k0001"))
    made.engine.rot(Table.RECORD, b"k%04d" % (EXPIRED_PER_TICK + 1))
    assert not made.apply(made.over + 1, *removed, pack_tick())


def test_a_tick_looks_for_the_next_key_if_its_entry_removes_the_first() -> None:
    made = Prepared(1)
    made.write(Put(b"later", b"v", Expiry(at_ms=DAMAGED)))
    removed = made.packed(Delete(b"k0000"))
    made.damage(Table.EXPIRY, made.engine.keys(Table.EXPIRY)[-1])
    assert not made.apply(made.over - 1, *removed, pack_tick())


@pytest.mark.parametrize("table", [Table.NAME, Table.EXPIRY])
def test_everything_is_removed(table: Table) -> None:
    made = Prepared(1)
    made.write(Put(b"large", bytes(50_000)))
    flush = made.packed(Flush())
    made.damage(table, made.engine.keys(table)[0])
    made.machine.keyspace._first_known = False
    assert not made.apply(made.over + 1, *flush)


def test_what_is_not_due_holds_nobody_up() -> None:
    made = Prepared()
    once = made.machine._once
    once.store(b"s" * 16, 1, OutcomeKind.APPLIED, [True], DAMAGED)
    made.write(Put(b"key", b"v"))
    (queued,) = made.engine.keys(Table.STATE, b"j", b"k")
    made.damage(Table.STATE, queued)
    assert made.apply(int(made.alone.now * 1000), pack_tick())


def test_names_are_walked_once_however_often_all_is_removed() -> None:
    made = Prepared()
    made.engine.write([Row(Table.NAME, b"%024d" % i, b"k") for i in range(5000)])
    batch = parsing.parse_batch(entries.batch(1, made.packed(*(Flush() for _ in range(20)))))
    walks = 0
    keys = made.engine.keys

    def counted(table: Table, *arguments: Any) -> list[bytes]:
        nonlocal walks
        walks += table is Table.NAME
        return keys(table, *arguments)

    made.engine.keys = counted  # type: ignore[method-assign]
    made.machine._read_ahead(batch, made.machine.log_time_ms)
    assert walks == 6
