"""Crashes of rocksdb and memory, and of a real process that is killed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from unit.storage.model import DISK_ENGINES, apply, contents, empty, make, random_batch

from distkv.storage.base import CorruptRow, Delete, Put, StorageError, StorageFull, Table
from distkv.storage.memory import MemoryEngine
from distkv.storage.rocksdb import RocksEngine


def wal(directory: Path) -> Path:
    return max((directory / "rocksdb").glob("*.log"))


def rocks_with_tail(store: Path, copy: Path) -> tuple[list[dict], list[int]]:
    """States after each batch, and the size of the log after each; 4 batches are flushed."""
    rng = random.Random(2)
    engine = RocksEngine(store, reserve_bytes=0)
    states, ends = [empty()], [0]
    for number in range(9):
        batch = [*random_batch(rng, 3), Put(Table.META, b"n", b"%d" % number)]
        engine.write(batch)
        states.append(apply(states[-1], batch))
        ends.append(wal(store).stat().st_size)
        if number == 3:
            engine.flush()
    shutil.copytree(store, copy)  # as after kill -9: closing would flush
    engine.close()
    return states, ends


def test_rocksdb_log_cut_at_many_bytes(quick_path: Path) -> None:
    store, copy, work = quick_path / "store", quick_path / "copy", quick_path / "work"
    states, ends = rocks_with_tail(store, copy)
    positions = sorted({*range(ends[4], ends[9] + 1, 37), *ends[4:], *(e - 1 for e in ends[5:])})
    assert len(positions) > 30
    for size in positions:
        shutil.copytree(copy, work)
        with wal(work).open("r+b") as file:
            file.truncate(size)
        engine = RocksEngine(work, reserve_bytes=0)
        whole = max(n for n, end in enumerate(ends) if end <= size)
        assert contents(engine) == states[whole], size
        engine.write([Put(Table.STATE, b"after", b"crash")])
        engine.close()
        shutil.rmtree(work)


def test_rocksdb_log_that_lost_durable_batches_is_refused(quick_path: Path) -> None:
    store, copy = quick_path / "store", quick_path / "copy"
    _, ends = rocks_with_tail(store, copy)
    with wal(copy).open("r+b") as file:
        file.seek((ends[2] + ends[3]) // 2)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(StorageError, match=r"was durable up to sequence .* can no longer be"):
        RocksEngine(copy)


def test_rocksdb_rotten_row(quick_path: Path) -> None:
    engine = RocksEngine(quick_path, reserve_bytes=0)
    engine.write([Put(Table.SHARD, b"rotten", b"value"), Put(Table.SHARD, b"sound", b"value")])
    stored = bytes([Table.SHARD]) + b"rotten"
    row = bytearray(engine._database.get(stored))
    row[-1] ^= 1
    engine._database.put(stored, bytes(row))
    view = engine.view()
    for reader in (engine, view):
        with pytest.raises(CorruptRow, match=r"row b'rotten' of table SHARD"):
            reader.get(Table.SHARD, b"rotten")
        with pytest.raises(CorruptRow):
            reader.scan(Table.SHARD)
        assert reader.keys(Table.SHARD) == [b"rotten", b"sound"]
        assert reader.get(Table.SHARD, b"sound") == b"value"
    view.close()
    engine.close()


def test_rocksdb_rotten_file(quick_path: Path) -> None:
    """Rot in a table file that RocksDB itself notices is a CorruptRow as well."""
    engine = RocksEngine(quick_path, reserve_bytes=0)
    engine.write([Put(Table.RECORD, b"%04d" % n, b"%04d" % n * 50) for n in range(2000)])
    engine.flush()
    engine._database.flush()
    engine.close()
    table = max((quick_path / "rocksdb").glob("*.sst"))
    raw = bytearray(table.read_bytes())
    raw[raw.index(b"1000" * 50) + 60] ^= 1
    table.write_bytes(raw)
    again = RocksEngine(quick_path, reserve_bytes=0)
    with pytest.raises(CorruptRow):
        again.get(Table.RECORD, b"1000")
    with pytest.raises(CorruptRow):
        again.scan(Table.RECORD, limit=2000)
    assert again.get(Table.RECORD, b"0001") == b"0001" * 50
    again.close()


@pytest.mark.parametrize("seed", range(100))
def test_memory_crash_leaves_a_prefix(seed: int) -> None:
    rng = random.Random(seed)
    engine = MemoryEngine()
    states = [empty()]
    for _ in range(8):
        flushed = 0
        for _ in range(rng.randrange(12)):
            batch = random_batch(rng)
            engine.write(batch)
            states.append(apply(states[-1], batch))
            if rng.random() < 0.3:
                mark = engine.written - rng.randrange(2)  # a flush that began a batch ago
                engine.flush_to(mark)
                flushed = max(flushed, len(states) - 1 - (engine.written - mark))
        assert engine.unflushed() <= len(states) - 1 - flushed
        old, torn = engine, rng.random() < 0.7
        engine = engine.crash(rng, torn)
        found = contents(engine)
        assert found in states[flushed:]
        if not torn:
            assert found == states[flushed]
        assert engine.unflushed() == 0
        with pytest.raises(StorageError):
            old.write([])
        states = [found]


def test_memory_crash_reaches_every_prefix() -> None:
    counts = set()
    for seed in range(60):
        engine = MemoryEngine()
        for n in range(4):
            engine.write([Put(Table.LOG, b"%d" % n, b""), Put(Table.META, b"n", b"%d" % n)])
        counts.add(engine.crash(random.Random(seed)).count(Table.LOG))
    assert counts == {0, 1, 2, 3, 4}


def test_memory_faults() -> None:
    engine = MemoryEngine()
    engine.write([Put(Table.LOG, b"a", b"1"), Put(Table.LOG, b"b", b"2")])
    assert engine.rot(Table.LOG, b"a")
    assert not engine.rot(Table.LOG, b"absent")
    view = engine.view()
    for reader in (engine, view):
        with pytest.raises(CorruptRow):
            reader.get(Table.LOG, b"a")
        with pytest.raises(CorruptRow):
            reader.scan(Table.LOG)
        assert reader.scan(Table.LOG, b"b") == [(b"b", b"2")]
        assert reader.keys(Table.LOG) == [b"a", b"b"]
    engine.write([Delete(Table.LOG, b"a")])
    assert engine.get(Table.LOG, b"a") is None
    engine.full = True
    with pytest.raises(StorageFull):
        engine.write([Put(Table.LOG, b"c", b"3")])
    assert engine.usage().free == 0
    engine.full = False
    engine.write([Put(Table.LOG, b"c", b"3")])
    engine.wipe()
    assert contents(engine) == empty()


_CHILD = """
import sys
from pathlib import Path
from unit.storage.model import make
from distkv.storage.base import Delete, Put, Table
engine = make(sys.argv[1], Path(sys.argv[2]))
number = int.from_bytes(engine.get(Table.META, b"last") or b"", "big")
while True:
    for _ in range(3):
        number += 1
        name = number.to_bytes(8, "big")
        old = max(0, number - 50).to_bytes(8, "big")
        engine.write([Put(Table.LOG, name, name * 40), Put(Table.META, b"last", name),
                      Delete(Table.LOG, old)])
    engine.compact_step(4096)
    engine.flush()
    print(number, flush=True)
"""


@pytest.mark.parametrize("kind", DISK_ENGINES)
def test_killed_process_keeps_what_it_acknowledged(kind: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    rng = random.Random(11)
    for _ in range(4):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, kind, str(tmp_path)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert child.stdout is not None
        acknowledged = 0
        for _ in range(rng.randrange(20, 150)):
            acknowledged = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.stdout.read().splitlines(keepends=True)
        acknowledged = max([acknowledged, *(int(n) for n in rest if n.endswith(b"\n"))])
        child.stdout.close()
        child.wait()
        engine = make(kind, tmp_path)
        last = int.from_bytes(engine.get(Table.META, b"last") or b"", "big")
        assert last >= acknowledged > 0
        names = [n.to_bytes(8, "big") for n in range(max(1, last - 49), last + 1)]
        assert engine.scan(Table.LOG, limit=1000) == [(name, name * 40) for name in names]
        engine.close()
