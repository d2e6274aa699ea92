"""Walks that fail at a damaged block: the scrubber goes on behind it, and never for ever."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.data.dictengine import DictEngine

from distkv.data.scrub import Scrubber, ScrubLimits, place_behind
from distkv.kernel import Kernel
from distkv.storage.base import CorruptRow, Put, Table
from distkv.storage.rocksdb import RocksEngine

KEYS = [b"user:%05d:name" % i for i in range(1000)]
STEPS_MAX = 1000


class Round:
    """One whole round of scrubbing over an engine: which keys were read, what was reported."""

    def __init__(self, engine: Any) -> None:
        self.read: list[bytes] = []
        self.found: list[bytes] = []
        self.places = 0
        self.starts: list[tuple[int, bytes]] = []
        reread = engine.reread

        def watched(table: Table, key: bytes) -> bytes | None:
            self.read.append(key)
            row: bytes | None = reread(table, key)
            return row

        engine.reread = watched
        self.scrubber = Scrubber(
            Kernel(),
            engine,
            Coordinator(),  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            lambda table, key, unreadable: self.found.append(key),
            self._lost,
            ScrubLimits(step_bytes=400, step_rows=64),
        )
        while not self.scrubber.progress.rounds:
            self.starts.append((self.scrubber._table, self.scrubber._start))
            assert len(self.starts) < STEPS_MAX, "for ever"
            self.scrubber._step()
        assert self.starts == sorted(self.starts), "it went back"
        assert len(set(self.starts)) == len(self.starts), "it stood still"

    def _lost(self, places: int) -> None:
        self.places += places


class Coordinator:
    def wall_ms(self) -> int:
        return 0


def engine_with(table: Table, *damaged: range, names: Callable[..., bytes] | None = None) -> Any:
    """Blocks of rows that no walk gets over; by default it names the last row before it."""
    engine = DictEngine()
    for key in KEYS:
        engine.settle(Put(table, key, b"v"))
    engine.settle(Put(Table.EXPIRY, b"last", b""))
    keys = engine.keys
    blocks = [{KEYS[i] for i in block} for block in damaged]

    def walk(
        walked: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        found = keys(walked, start, end, limit + 1)  # one further, as RocksDB's iterators are
        for i, key in enumerate(found):
            if walked is table and any(key in block for block in blocks):
                named = found[i - 1] if i else start
                raise CorruptRow(table, names(start) if names else named)
        return found[:limit]

    engine.keys = walk  # type: ignore[method-assign]
    return engine


def left_out(made: Round) -> list[int]:
    return [i for i, key in enumerate(KEYS) if key not in set(made.read)]


@pytest.mark.parametrize("table", [Table.RECORD, Table.NAME, Table.STATE])
def test_all_rows_before_and_behind_a_damaged_block_are_read(table: Table) -> None:
    made = Round(engine_with(table, range(300, 340)))
    assert left_out(made) == list(range(300, 340))
    assert made.found == [KEYS[299]], "it is told once"
    assert made.scrubber.progress.rotten == {table.name: 1}
    assert made.scrubber.progress.rows == len(made.read)
    assert b"last" in made.read, "the tables behind it"


@pytest.mark.parametrize(
    "damaged",
    [
        (range(30),),
        (range(990, 1000),),
        (range(100, 130), range(450, 480), range(700, 701)),
        (range(1000),),
    ],
)
def test_wherever_the_damage_is(damaged: tuple[range, ...]) -> None:
    made = Round(engine_with(Table.RECORD, *damaged))
    assert left_out(made) == [i for block in damaged for i in block]
    assert len(made.found) == len(damaged)
    assert b"last" in made.read


def test_shards_of_a_damaged_block_are_told_as_damaged_files() -> None:
    made = Round(engine_with(Table.SHARD, range(500, 520)))
    assert made.places == 1
    assert left_out(made) == list(range(500, 520))


@pytest.mark.parametrize("name", [lambda start: start, lambda start: b"", lambda start: b"zzz"])
def test_an_engine_that_names_something_else_does_not_hold_it_up(name: Any) -> None:
    made = Round(engine_with(Table.RECORD, range(300, 340), names=name))
    assert set(range(236)).isdisjoint(left_out(made))
    assert b"last" in made.read


def test_rocksdb(tmp_path: Path) -> None:
    engine = RocksEngine(tmp_path, reserve_bytes=0)
    for key in KEYS:
        engine.write([Put(Table.RECORD, key, key + os.urandom(100))])
    engine._database.flush(True)
    engine.close()
    (file,) = (tmp_path / "rocksdb").glob("*.sst")
    raw = bytearray(file.read_bytes())
    for key in (KEYS[200], KEYS[700]):
        raw[raw.index(key) + 40] ^= 1
    file.write_bytes(raw)
    engine = RocksEngine(tmp_path, reserve_bytes=0)
    rotten = [i for i, key in enumerate(KEYS) if not readable(engine, key)]
    assert {200, 700} <= set(rotten)
    assert len(rotten) < 200
    made = Round(engine)
    assert left_out(made) == rotten
    assert len(made.found) == 2
    engine.close()


def readable(engine: RocksEngine, key: bytes) -> bool:
    try:
        return engine.get(Table.RECORD, key) is not None
    except CorruptRow:
        return False


@pytest.mark.parametrize(
    ("start", "first"),
    [
        (b"", b"\0\0\0\1"),
        (b"", b"user:00001"),
        (b"user:00001\0", b"user:00001a"),
        (b"user:00001\0", b"user:1"),
        (b"a\xff\xff\xff", b"b"),
        (b"\xff\xff", b"\xff\xff\xff\xff"),
        (b"k" * 4096, b"k" * 4000 + b"l"),
    ],
)
def test_the_place_found_is_close_to_the_first_that_will_do(start: bytes, first: bytes) -> None:
    asked: list[bytes] = []

    def walks_from(place: bytes) -> bool:
        asked.append(place)
        return place >= first

    found = place_behind(start, walks_from)
    assert found is not None
    assert found >= first > start
    assert found[: len(first)] == first
    assert all(place > start for place in asked)
    assert len(asked) <= 514


def test_there_is_no_such_place() -> None:
    assert place_behind(b"key", lambda place: False) is None
