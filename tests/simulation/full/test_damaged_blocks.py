"""Engines like RocksDB whose block is damaged: walks fail, and name a sound row next to it.

Whatever walks, a node goes on until it has taken the state of a peer, and takes it once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulation.full import test_healing as healing

from distkv.data.scrub import TABLES
from distkv.operations import Count, Expiry, Flush, Put, Scan, Write
from distkv.simulation.full_world import World
from distkv.simulation.member_host import Host
from distkv.storage.base import CorruptRow, DeleteRange, Table


class Block:
    """Walks over `key` fail until the table is replaced as a whole."""

    def __init__(self, host: Host, table: Table, key: bytes, mendable: bool = True) -> None:
        self.damaged = True
        self._engine = host.engine
        self._table, self._key, self._mendable = table, key, mendable
        self._write = host.engine.write
        for name in ("scan", "keys"):
            setattr(host.engine, name, self._broken(getattr(host.engine, name)))
        host.engine.write = self._replacing  # type: ignore[method-assign]

    def _broken(self, walk: Callable[..., Any]) -> Callable[..., Any]:
        def broken(
            table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
        ) -> Any:
            node = limit < 1 << 20  # not the checker
            inside = node and table is self._table and start <= self._key
            if self.damaged and inside and (end is None or self._key < end):
                raise CorruptRow(table, max(start, self._key))
            return walk(table, start, end, limit)

        return broken

    def _replacing(self, batch: Any) -> Any:
        for operation in batch:
            if isinstance(operation, DeleteRange) and operation.table is self._table:
                self.damaged &= not (self._mendable and operation.end > self._key)
        return self._write(batch)


def seat_of(host: Host) -> Any:
    assert host.member is not None
    return host.member.seat


def filled() -> tuple[World, Host]:
    """A world with small and large values, one of which expires; a follower."""
    world = healing.world_of()
    for i in range(5):
        healing.put(world, b"key%d" % i, b"value")
    for i in range(3):
        healing.put(world, b"large%d" % i, b"x" * 50_000)
    soon = Expiry(at_ms=world.wall_ms(world.hosts[0]) + 8000)
    healing.ask(world, 0, Write((Put(b"short", b"value", soon),)))
    world.run_until(lambda: False, 2.0)
    return world, world.hosts[healing.other_than_the_leader(world)]


def judge(world: World, host: Host, block: Block, seconds: float = 20.0) -> None:
    """It is mended by one state, and stays so."""
    assert world.run_until(lambda: not block.damaged, seconds)
    world.run_until(lambda: False, 5.0)
    assert host.alive
    assert healing.taken(host) == 1
    assert not seat_of(host).healer.waiting
    assert not seat_of(host).replica.held
    assert len({h.machine.applied for h in world.hosts}) == 1


def test_a_scan() -> None:
    world, host = filled()
    block = Block(host, Table.RECORD, b"key2")
    page = healing.ask(world, host.ordinal, Scan(b"", None, b"key", 100), 5.0)
    assert len(page.keys) == 5  # type: ignore[attr-defined]
    judge(world, host, block)


@pytest.mark.parametrize("leads", [True, False])
def test_keys_that_expire(leads: bool) -> None:
    world, host = filled()
    if leads:
        host = next(h for h in world.hosts if h.leads)
    block = Block(host, Table.EXPIRY, host.engine.keys(Table.EXPIRY)[0])
    host.machine.keyspace._first_known = False
    judge(world, host, block)


def test_the_number_of_keys() -> None:
    world, host = filled()
    block = Block(host, Table.EXPIRY, b"")
    host.machine.keyspace._first_known = False
    seat_of(host).status()
    assert healing.ask(world, host.ordinal, Count(), 5.0) == 9
    judge(world, host, block)


def test_everything_is_removed() -> None:
    """The entry walks over the names, and must not be half applied when that fails."""
    world, host = filled()
    block = Block(host, Table.NAME, host.engine.keys(Table.NAME)[0])
    healing.ask(world, next(h.ordinal for h in world.hosts if h is not host), Write((Flush(),)))
    judge(world, host, block)


def test_the_survey_of_what_is_to_be_coded_anew() -> None:
    world, host = filled()
    block = Block(host, Table.NAME, host.engine.keys(Table.NAME)[0])
    seat_of(host).data.rows_mended()
    host.wake()
    judge(world, host, block)
    assert world.run_until(lambda: seat_of(host).data.restriper.census.known, 5.0)


def test_the_scrubber() -> None:
    world, host = filled()
    block = Block(host, Table.RECORD, b"key2")
    seat_of(host).data.scrubber._table = TABLES.index(Table.RECORD)
    seat_of(host).data.scrubber._start = b""
    seat_of(host).data.scrubber._step()
    host.wake()
    judge(world, host, block)


def test_a_state_that_does_not_help_is_taken_twice_and_the_disk_reported() -> None:
    world, host = filled()
    block = Block(host, Table.RECORD, b"key2", mendable=False)
    host.execute(Scan(b"", None, b"key", 100), world.now + 40.0)
    host.wake()
    world.run_until(lambda: False, 40.0)
    assert block.damaged
    assert 1 <= healing.taken(host) <= 2
    said = [s for s in seat_of(host).owner.suspicions.status() if s["source"] == "own disk"]
    assert said
    assert "another disk" in said[0]["detail"]


def test_a_rotten_record_that_the_survey_meets_is_told() -> None:
    world, host = filled()
    healing.forget(host)
    host.engine.rot(Table.RECORD, b"large1")
    seat_of(host).data.restriper.layout_changed()
    host.wake()
    assert world.run_until(lambda: healing.sound(host, Table.RECORD, b"large1"), 5.0)


def test_a_walk_that_fails_once_does_not_leave_the_survey_with_too_few() -> None:
    world, host = filled()
    restriper = seat_of(host).data.restriper
    names, keys = host.engine.keys(Table.NAME), host.engine.keys
    restriper.census.wants = lambda record: record.value_id is not None
    restriper.improves = lambda record: False
    failures = [names[0]]

    def failing(table: Table, *arguments: Any) -> list[bytes]:
        if table is Table.NAME and failures:
            raise CorruptRow(table, failures.pop())
        return keys(table, *arguments)

    host.engine.keys = failing  # type: ignore[method-assign]
    restriper.layout_changed()
    host.wake()
    assert world.run_until(lambda: not failures and restriper.census.known, 10.0)
    assert restriper.census.records == len(names)


def test_a_node_without_a_seat_that_cannot_read_whether_it_has_left() -> None:
    """Its sweep asks, as long as it is no member. There is no such row; its block is damaged."""
    world, host = filled()
    world.lose_disk(host)
    host.start()
    assert world.run_until(lambda: seated(host) and host.machine.applied > 0, 10.0)
    assert not host.votes
    row = b"r" + host.incarnation.to_bytes(8, "big")
    get, write, damaged = host.engine.get, host.engine.write, [True]

    def broken(table: Table, key: bytes) -> bytes | None:
        if damaged and (table, key) == (Table.STATE, row):
            raise CorruptRow(table, key)
        return get(table, key)

    def replacing(batch: Any) -> Any:
        if any(isinstance(o, DeleteRange) and o.table is Table.STATE for o in batch):
            damaged.clear()
        return write(batch)

    host.engine.get, host.engine.write = broken, replacing  # type: ignore[method-assign]
    assert world.run_until(lambda: not damaged, 10.0)
    assert host.alive
    assert healing.taken(host) == 1
    assert world.run_until(lambda: seat_of(host).status()["state"] == "waiting to be admitted", 5.0)


def seated(host: Host) -> bool:
    return host.member is not None and host.member.seat is not None
