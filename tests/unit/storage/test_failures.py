"""Full disks (real ones), failing flushes, and many threads at once."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.storage.disks import mounted
from unit.storage.model import DISK_ENGINES, Rows, apply, contents, empty, make, random_batch

from distkv.storage.base import Delete, DeleteRange, Engine, Put, StorageError, StorageFull, Table
from distkv.storage.files import FilesEngine
from distkv.storage.rocksdb import RocksEngine

DISK_BYTES = 24 << 20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB of its own."""
    with mounted(tmp_path / "disk", DISK_BYTES) as disk:
        yield disk


def open_on(kind: str, directory: Path, reserve_bytes: int) -> Engine:
    if kind == "files":
        return FilesEngine(directory, segment_bytes=1 << 20, reserve_bytes=reserve_bytes)
    return RocksEngine(directory, reserve_bytes=reserve_bytes)


def fill(engine: Engine, rng: random.Random, size: int) -> dict[bytes, bytes]:
    """Write until the disk is full; the rows that were accepted."""
    rows: dict[bytes, bytes] = {}
    while True:
        number = len(rows)
        first, second = b"%06d" % number, b"%06d" % (number + 1)
        batch = [Put(Table.SHARD, name, rng.randbytes(size)) for name in (first, second)]
        try:
            engine.write(batch)
        except StorageFull:
            return rows
        rows.update({row.key: row.value for row in batch})
        assert len(rows) * size < 2 * DISK_BYTES, "the disk never got full"


@pytest.mark.parametrize("size", [300, 90_000])
@pytest.mark.parametrize("kind", DISK_ENGINES)
def test_full_disk_is_refused_whole_and_left_again(kind: str, size: int, small_disk: Path) -> None:
    """Another file takes the space, so that the engine meets ENOSPC itself."""
    rng = random.Random(size)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(DISK_BYTES * 3 // 4))
    store = small_disk / "store"
    engine = open_on(kind, store, reserve_bytes=0)
    rows = fill(engine, rng, size)
    assert rows
    assert engine.scan(Table.SHARD, limit=10**6) == sorted(rows.items())
    with pytest.raises(StorageFull):
        engine.write([Put(Table.META, b"big", bytes(200_000))])
    assert engine.get(Table.META, b"big") is None
    ballast.unlink()
    engine.write([Put(Table.META, b"back", b"yes")])
    engine.flush()
    assert engine.get(Table.META, b"back") == b"yes"
    assert engine.scan(Table.SHARD, limit=10**6) == sorted(rows.items())
    engine.close()
    again = open_on(kind, store, reserve_bytes=0)
    assert again.scan(Table.SHARD, limit=10**6) == sorted(rows.items())
    assert again.get(Table.META, b"back") == b"yes"
    assert again.get(Table.META, b"big") is None
    again.close()


def test_files_reserve_lets_deletions_and_compaction_through(small_disk: Path) -> None:
    """Nobody else makes room: deleting does, with the space kept for it."""
    rng = random.Random(5)
    engine = FilesEngine(small_disk, segment_bytes=1 << 20, reserve_bytes=2 << 20)
    rows = fill(engine, rng, 50_000)
    assert engine.usage().free >= 1 << 20
    keys = sorted(rows)
    engine.write([Delete(Table.SHARD, key) for key in keys if int(key) % 3])
    engine.flush()
    while engine.compact_step():
        engine.flush()
    left = {key: value for key, value in rows.items() if int(key) % 3 == 0}
    engine.write([Put(Table.META, b"room", bytes(5 << 20))])
    assert engine.scan(Table.SHARD, limit=10**6) == sorted(left.items())
    engine.close()


def test_a_small_disk_that_is_full_gets_its_space_back(small_disk: Path) -> None:
    """Segments as large as the disk would never be sealed, and never be compacted."""
    engine = FilesEngine(small_disk)
    rows = fill(engine, random.Random(6), 50_000)
    engine.write([Delete(Table.SHARD, key) for key in rows])
    engine.flush()
    while engine.compact_step():
        engine.flush()
    engine.write([Put(Table.META, b"room", bytes(DISK_BYTES // 2))])
    engine.close()


def test_failed_flush_stops_writes_until_reopened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FilesEngine(tmp_path, reserve_bytes=0)
    engine.write([Put(Table.META, b"a", b"1")])
    engine.flush()
    engine.write([Put(Table.META, b"a", b"2")])

    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(StorageError, match=f"flushing {tmp_path} failed .Input/output error"):
        engine.flush()
    monkeypatch.undo()
    with pytest.raises(StorageError, match="writes are refused until the node is restarted"):
        engine.write([Put(Table.META, b"b", b"")])
    with pytest.raises(StorageError, match="refused"):
        engine.flush()
    with pytest.raises(StorageError, match="refused"):
        engine.compact_step()
    assert engine.get(Table.META, b"a") == b"2"
    assert engine.get(Table.META, b"b") is None
    engine.close()
    again = FilesEngine(tmp_path, reserve_bytes=0)
    assert again.get(Table.META, b"a") in (b"1", b"2")
    again.write([Put(Table.META, b"b", b"")])
    again.close()


def test_short_and_failing_writes_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(6)
    engine = make("files", tmp_path)
    model = empty()
    whole = os.pwritev

    def torn(fd: int, parts: list[bytes], offset: int) -> int:
        raw = b"".join(parts)
        return whole(fd, [raw[: rng.randrange(len(raw))]], offset)

    def full(fd: int, raw: bytes, offset: int) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for _ in range(200):
        batch = random_batch(rng)
        chance = rng.random()
        if chance < 0.3:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwritev", torn)
                patch.setattr(os, "pwrite", full)
                try:
                    engine.write(batch)
                    model = apply(model, batch)  # nothing in it that had to be written
                except StorageFull:
                    pass
        elif chance < 0.6:
            with monkeypatch.context() as patch:
                patch.setattr(os, "pwritev", torn)
                engine.write(batch)
                model = apply(model, batch)
        else:
            engine.write(batch)
            model = apply(model, batch)
        assert contents(engine) == model
    engine.close()
    again = make("files", tmp_path)
    assert contents(again) == model
    again.close()


def test_key_too_long_leaves_nothing(tmp_path: Path) -> None:
    engine = make("files", tmp_path)
    with pytest.raises(ValueError, match="over the limit of 65535"):
        engine.write([Put(Table.LOG, b"a", b""), Put(Table.LOG, bytes(70_000), b"")])
    with pytest.raises(ValueError, match="over the limit of 65535"):
        engine.write([Put(Table.LOG, b"a", b""), DeleteRange(Table.LOG, b"", bytes(70_000))])
    assert contents(engine) == empty()
    engine.close()


@pytest.mark.parametrize("kind", DISK_ENGINES)
def test_flushes_in_other_threads(kind: str, tmp_path: Path) -> None:
    """Two threads flush all the time while the owner writes, reads, rotates and compacts."""
    engine = make(kind, tmp_path)
    failures: list[BaseException] = []
    flushes = [0, 0]
    stop = threading.Event()

    def flusher(number: int) -> None:
        try:
            while not stop.is_set():
                engine.flush()
                flushes[number] += 1
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=flusher, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        model = _busy_owner(engine, flushes, failures)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures
    assert contents(engine) == model
    engine.close()
    again = make(kind, tmp_path)
    assert contents(again) == model
    again.close()


def _busy_owner(engine: Engine, flushes: list[int], failures: list[BaseException]) -> Rows:
    """Write, read, rotate and compact for as long as it takes to meet many flushes."""
    rng = random.Random(12)
    model = empty()
    view, seen = engine.view(), model
    turn = 0
    while (turn < 1500 or min(flushes) < 20) and not failures:
        turn += 1
        batch = random_batch(rng, 3)
        engine.write(batch)
        model = apply(model, batch)
        engine.compact_step(3000)
        if turn % 400 == 0:
            assert contents(view) == seen
            view.close()
            assert contents(engine) == model
            view, seen = engine.view(), model
    view.close()
    return model
