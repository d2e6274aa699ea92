"""The files engine after torn writes, lost pages, lost names and rotten bytes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from unit.storage.model import SMALL_SEGMENT, Rows, apply, contents, empty, make, random_batch

from distkv.storage.base import CorruptRow, Delete, Put, StorageError, StorageOperation, Table
from distkv.storage.files import FilesEngine
from distkv.storage.files import format as files_format

SECTOR = 512


def abandon(engine: FilesEngine) -> None:
    """End the engine as kill -9 would: nothing more is written or flushed."""
    engine._log.close()
    engine._lock.release()
    engine._closed = True


def sizes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in directory.glob("*.segment")}


@pytest.mark.parametrize("room", [0, 3000])
def test_every_byte_prefix_of_the_last_batches(quick_path: Path, room: int) -> None:
    """`room`: zeros behind, as they are written ahead."""
    rng = random.Random(1)
    store, copy = quick_path / "store", quick_path / "copy"
    engine = FilesEngine(store, reserve_bytes=0)
    states = [empty()]
    for _ in range(4):
        batch = [*random_batch(rng), Put(Table.META, b"n", b"%d" % len(states))]
        engine.write(batch)
        states.append(apply(states[-1], batch))
    engine.flush()
    flushed = engine.usage().on_disk
    ends, flushed_batches = [flushed], len(states) - 1
    for _ in range(5):
        batch = [*random_batch(rng, 3), Put(Table.META, b"n", b"%d" % len(states))]
        engine.write(batch)
        states.append(apply(states[-1], batch))
        ends.append(engine.usage().on_disk)
    (size,) = sizes(store).values()
    assert size > ends[-1], "zeros are written ahead"
    abandon(engine)
    assert ends[-1] - flushed > 1000
    for size in range(flushed, ends[-1] + 1):
        shutil.copytree(store, copy)
        (segment,) = copy.glob("*.segment")
        with segment.open("r+b") as file:
            file.truncate(size)
            file.truncate(size + room)
        again = FilesEngine(copy, reserve_bytes=0)
        assert again.torn_bytes <= size - max(end for end in ends if end <= size)
        whole = flushed_batches + sum(1 for end in ends[1:] if end <= size)
        assert contents(again) == states[whole], size
        again.write([Put(Table.STATE, b"after", b"crash")])
        abandon(again)
        third = FilesEngine(copy, reserve_bytes=0)
        assert third.get(Table.STATE, b"after") == b"crash"
        assert third.get(Table.META, b"n") == states[whole][Table.META][b"n"]
        abandon(third)
        shutil.rmtree(copy)


class Disk:
    """What is durable by the system calls really made, and what a crash may leave of the rest.

    Bytes of a file are durable once it was synced, names and their removal once the directory
    was. Everything else is kept, cut, zeroed by sectors, missing or back again, by chance.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = Path()
        self.names: set[str] = set()
        self.contents: dict[str, bytes] = {}
        for call in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, call, self._recording(getattr(os, call)))

    def start(self, directory: Path) -> None:
        """The machine starts with this directory; what is there is durable."""
        self.directory = directory
        self.contents = self._now()
        self.names = set(self.contents)

    def _now(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.directory.glob("*.segment")}

    def _recording(self, call: Callable[[int], None]) -> Callable[[int], None]:
        def record(fd: int) -> None:
            call(fd)
            path = Path(os.readlink(f"/proc/self/fd/{fd}"))
            if path == self.directory:
                self.names = set(self._now())
            elif path.suffix == ".segment":
                self.contents[path.name] = path.read_bytes()

        return record

    def crash(self, rng: random.Random, target: Path) -> None:
        """Write to `target` what may be found after a power failure now."""
        target.mkdir()
        now = self._now()
        for name in sorted(now.keys() | self.names):
            if name not in now:  # removed, not durably
                if rng.random() < 0.5:
                    (target / name).write_bytes(self.contents[name])
            elif name in self.names or rng.random() < 0.7:
                durable = self.contents.get(name, b"")
                (target / name).write_bytes(self._torn(rng, now[name], durable))
        for path in self.directory.glob("*.hint"):
            raw = path.read_bytes()
            if rng.random() < 0.8 and (target / path.with_suffix(".segment").name).exists():
                (target / path.name).write_bytes(
                    self._torn(rng, raw, b"") if rng.random() < 0.5 else raw
                )

    def _torn(self, rng: random.Random, now: bytes, durable: bytes) -> bytes:
        """What was not synced is lost from some byte on, or in some sectors. Zeros that were
        written ahead, or cut off, are there or not."""
        length = rng.randint(*sorted((len(now), len(durable))))
        old, kept = durable[:length].ljust(length, b"\x00"), bytearray(now[:length])
        kept += bytes(length - len(kept))
        lost_from = rng.choice((length, rng.randint(0, length)))
        kept[lost_from:] = old[lost_from:]
        if rng.random() < 0.5:
            for start in range(0, length, SECTOR):
                if rng.random() < 0.3:
                    kept[start : start + SECTOR] = old[start : start + SECTOR]
        return bytes(kept)


@pytest.mark.parametrize("seed", range(150))
def test_power_failures_with_compaction(
    seed: int, quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random life with several crashes; each time a prefix of the batches is there."""
    rng = random.Random(seed)
    flush_share, compact_share = rng.choice([0.02, 0.1, 0.3]), rng.choice([0.3, 0.7])
    disk = Disk(monkeypatch)
    directory = quick_path / "0"
    directory.mkdir()
    states: list[Rows] = [empty()]
    for life in range(6):
        disk.start(directory)
        engine = make("files", directory)
        assert isinstance(engine, FilesEngine)
        found = contents(engine)
        assert found in states, f"seed {seed}: not a prefix at life {life}"
        states = [found]
        for _ in range(rng.randrange(60)):
            batch = random_batch(rng)
            engine.write(batch)
            states.append(apply(states[-1], batch))
            while rng.random() < compact_share:
                engine.compact_step(rng.choice([500, 5000]))
            if rng.random() < flush_share:
                engine.flush()
                states = states[-1:]
                while rng.random() < compact_share:
                    engine.compact_step(5000)
        directory = quick_path / str(life + 1)
        disk.crash(rng, directory)
        abandon(engine)


def test_removed_file_that_comes_back_brings_no_row_back(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two dead segments go without a flush between: the deletion outlives the older file."""
    disk, store = Disk(monkeypatch), quick_path / "store"
    store.mkdir()
    disk.start(store)
    engine = make("files", store)
    assert isinstance(engine, FilesEngine)
    filler = [Put(Table.SHARD, b"filler", bytes(SMALL_SEGMENT))]
    engine.write([Put(Table.META, b"gone", b"1"), *filler])
    engine.write([Delete(Table.META, b"gone"), *filler])
    engine.write(filler)
    engine.write(filler)
    engine.flush()
    before = sorted(store.glob("*.segment"))
    for _ in range(20):
        engine.compact_step()
    assert not before[0].exists()
    for seed in range(30):
        disk.crash(random.Random(seed), quick_path / "copy")
        again = make("files", quick_path / "copy")
        assert again.keys(Table.META) == []
        again.close()
        shutil.rmtree(quick_path / "copy")
    engine.flush()
    while engine.compact_step():
        engine.flush()
    assert not before[1].exists()
    engine.close()


def filled(directory: Path, batches: int, seed: int) -> Rows:
    """A cleanly closed store in one segment, and its rows."""
    rng = random.Random(seed)
    engine = FilesEngine(directory, reserve_bytes=0)
    model = empty()
    for _ in range(batches):
        batch: list[StorageOperation] = random_batch(rng)
        engine.write(batch)
        engine.flush()
        model = apply(model, batch)
    engine.close()
    return model


def check_no_lie(engine: FilesEngine, model: Rows) -> int:
    """Every row is right or says that it is corrupt; returns the number of those."""
    corrupt = 0
    for table, rows in model.items():
        assert engine.keys(table, limit=10_000) == sorted(rows)
        for key, value in rows.items():
            found: object
            try:
                found = engine.get(table, key)
            except CorruptRow as error:
                found = (error.table, error.key)
                corrupt += 1
            assert found in (value, (table, key))
    return corrupt


@pytest.mark.parametrize("room", [0, 999])
def test_one_flipped_bit_anywhere(quick_path: Path, room: int) -> None:
    model = filled(quick_path, 14, seed=5)
    (segment,) = quick_path.glob("*.segment")
    sound = segment.read_bytes() + bytes(room)
    rng = random.Random(6)
    corrupt = 0
    for position in range(len(sound)):
        raw = bytearray(sound)
        raw[position] ^= 1 << rng.randrange(8)
        segment.write_bytes(raw)
        engine = FilesEngine(quick_path, reserve_bytes=0)
        found = check_no_lie(engine, model)
        assert found <= 1
        corrupt += found
        abandon(engine)
    live = sum(len(value) for rows in model.values() for value in rows.values())
    assert corrupt == live


def test_rotten_sectors_are_never_a_torn_tail(quick_path: Path) -> None:
    """A zeroed sector in the middle: rows lost to it say so, or opening refuses."""
    model = filled(quick_path, 30, seed=7)
    (segment,) = quick_path.glob("*.segment")
    sound = segment.read_bytes()
    opened = refused = 0
    reasons = set()
    last = len(sound) - 2 * files_format.HEAD_BYTES  # the closing mark itself may go
    for start in range(0, last - SECTOR, 100):
        raw = bytearray(sound)
        raw[start : start + SECTOR] = bytes(SECTOR)
        segment.write_bytes(raw)
        try:
            engine = FilesEngine(quick_path, reserve_bytes=0)
        except StorageError as error:
            reasons.add(str(error).split(": bytes")[0])
            refused += 1
            continue
        check_no_lie(engine, model)
        opened += 1
        abandon(engine)
    assert opened > 20
    assert refused > 20
    assert reasons == {str(segment)}


def test_rotten_row_heals_by_replacement_and_survives_compaction(quick_path: Path) -> None:
    engine = make("files", quick_path)
    assert isinstance(engine, FilesEngine)
    value = random.Random(8).randbytes(900)
    engine.write([Put(Table.SHARD, b"rotten", value), Put(Table.SHARD, b"sound", value)])
    for n in range(30):
        engine.write([Put(Table.SHARD, b"other", b"%03d" % n * 300)])
    engine.flush()
    first = min(quick_path.glob("*.segment"))
    raw = bytearray(first.read_bytes())
    raw[raw.index(value) + 450] ^= 1
    first.write_bytes(raw)
    with pytest.raises(CorruptRow, match=r"row b'rotten' of table SHARD"):
        engine.get(Table.SHARD, b"rotten")
    with pytest.raises(CorruptRow):
        engine.scan(Table.SHARD)
    assert engine.keys(Table.SHARD) == [b"other", b"rotten", b"sound"]
    assert engine.get(Table.SHARD, b"sound") == value
    for _ in range(100):
        engine.compact_step()
        engine.flush()
    assert first.exists()
    with pytest.raises(CorruptRow):
        engine.get(Table.SHARD, b"rotten")
    engine.write([Put(Table.SHARD, b"rotten", value)])
    engine.flush()
    assert engine.get(Table.SHARD, b"rotten") == value
    while engine.compact_step():
        engine.flush()
    assert not first.exists()
    assert dict(engine.scan(Table.SHARD))[b"sound"] == value
    engine.close()


def test_hints_change_nothing(quick_path: Path) -> None:
    rng = random.Random(9)
    store = quick_path / "store"
    engine = make("files", store)
    model = empty()
    for _ in range(300):
        batch = random_batch(rng)
        engine.write(batch)
        model = apply(model, batch)
        engine.flush()
    engine.close()
    hints = sorted(store.glob("*.hint"))
    assert len(hints) > 5
    for damage in ("none", "flip", "cut", "missing"):
        copy = quick_path / damage
        shutil.copytree(store, copy)
        for path in sorted(copy.glob("*.hint")):
            raw = bytearray(path.read_bytes())
            raw[rng.randrange(len(raw))] ^= 4
            if damage == "flip":
                path.write_bytes(raw)
            elif damage == "cut":
                path.write_bytes(raw[: rng.randrange(len(raw))])
            elif damage == "missing":
                path.unlink()
        again = make("files", copy)
        assert contents(again) == model
        again.close()


def test_later_version_is_refused(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_format, "VERSION", 2)
    engine = FilesEngine(quick_path, reserve_bytes=0)
    engine.write([Put(Table.META, b"a", b"b")])
    engine.close()
    monkeypatch.undo()
    with pytest.raises(StorageError, match="has format version 2, this program reads 1"):
        FilesEngine(quick_path)


def test_unknown_table_is_refused(quick_path: Path) -> None:
    engine = FilesEngine(quick_path, reserve_bytes=0)
    engine._log.begin()
    names = files_format.ENTRY.pack(files_format.PUT, 99, 1, 0, 0, 0) + b"k"
    engine._log.append([], 0, names, 1, False)
    engine.close()
    with pytest.raises(StorageError, match="rows of table 99, unknown to this program"):
        FilesEngine(quick_path)


def test_a_missing_durable_segment_is_noticed(quick_path: Path) -> None:
    engine = make("files", quick_path)
    for n in range(40):
        engine.write([Put(Table.SHARD, b"%d" % n, bytes(600))])
    engine.flush()
    engine.close()
    middle = sorted(quick_path.glob("*.segment"))[2]
    with middle.open("r+b") as file:
        file.truncate(1000)
    again = make("files", quick_path)  # its hint still names the rows
    with pytest.raises(CorruptRow):
        again.scan(Table.SHARD)
    again.close()
    middle.with_suffix(".hint").unlink()
    with pytest.raises(StorageError, match="can no longer be trusted"):
        make("files", quick_path)
