"""What the contract in storage/base.py promises, for every engine."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.storage.model import DISK_ENGINES, ENGINES, apply, contents, empty, make, random_batch

from distkv.storage.base import Delete, DeleteRange, Engine, Put, StorageError, Table
from distkv.storage.open import ENGINES as NAMES
from distkv.storage.open import open_engine


@pytest.fixture(params=ENGINES)
def engine(request: Any, tmp_path: Path) -> Iterator[Engine]:
    made = make(request.param, tmp_path / "store")
    yield made
    made.close()


def test_rows_come_back_and_tables_are_apart(engine: Engine) -> None:
    engine.write([Put(Table.LOG, b"k", b"log"), Put(Table.RECORD, b"k", b"record")])
    assert engine.get(Table.LOG, b"k") == b"log"
    assert engine.get(Table.RECORD, b"k") == b"record"
    assert engine.get(Table.META, b"k") is None
    assert engine.get(Table.LOG, b"") is None


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 5000, 350_000])
def test_value_sizes(engine: Engine, size: int) -> None:
    value = random.Random(size).randbytes(size)
    engine.write([Put(Table.SHARD, b"v", value)])
    assert engine.get(Table.SHARD, b"v") == value
    assert engine.scan(Table.SHARD) == [(b"v", value)]


def test_keys_of_all_bytes_and_lengths(engine: Engine) -> None:
    keys = [b"", b"\x00", b"\x00\x00", b"\x7f", b"\xff", b"\xff" * 4104, b"a" * 4104]
    engine.write([Put(Table.EXPIRY, key, key[:3]) for key in keys])
    assert engine.keys(Table.EXPIRY) == sorted(keys)
    engine.write([Put(Table.NAME, b"next table", b"")])
    assert engine.keys(Table.EXPIRY, b"\xff\xff") == [b"\xff" * 4104]
    assert all(engine.get(Table.EXPIRY, key) == key[:3] for key in keys)


def test_operations_of_a_batch_apply_in_order(engine: Engine) -> None:
    engine.write(
        [
            Put(Table.LOG, b"a", b"1"),
            Put(Table.LOG, b"a", b"2"),
            Put(Table.LOG, b"b", b"1"),
            Delete(Table.LOG, b"b"),
            Put(Table.LOG, b"c", b"1"),
            DeleteRange(Table.LOG, b"c", b"d"),
            Put(Table.LOG, b"c", b"2"),
            Delete(Table.LOG, b"never there"),
        ]
    )
    assert engine.scan(Table.LOG) == [(b"a", b"2"), (b"c", b"2")]
    assert engine.count(Table.LOG) == 2


@pytest.mark.parametrize("rows", [3, 16, 17, 400])
def test_range_deletes(engine: Engine, rows: int) -> None:
    keys = [n.to_bytes(8, "big") for n in range(rows)]
    engine.write([Put(Table.LOG, key, b"x" * 30) for key in keys])
    engine.write([DeleteRange(Table.LOG, keys[1], keys[-1])])
    assert engine.keys(Table.LOG) == [keys[0], keys[-1]]
    engine.write([DeleteRange(Table.LOG, keys[-1], keys[0]), DeleteRange(Table.LOG, b"", b"")])
    assert engine.keys(Table.LOG) == [keys[0], keys[-1]]
    engine.write([Put(Table.LOG, keys[1], b"again"), DeleteRange(Table.LOG, b"", keys[1])])
    assert engine.scan(Table.LOG)[0] == (keys[1], b"again")


def test_scan_bounds_and_limit(engine: Engine) -> None:
    keys = [b"%04d" % n for n in range(2500)]
    shuffled = keys[:]
    random.Random(1).shuffle(shuffled)
    engine.write([Put(Table.RECORD, key, key) for key in shuffled])
    assert engine.keys(Table.RECORD) == keys[:1000]
    assert engine.keys(Table.RECORD, limit=5000) == keys
    assert engine.keys(Table.RECORD, b"0010", b"0013") == keys[10:13]
    assert engine.scan(Table.RECORD, b"0010", b"0013", 2) == [(k, k) for k in keys[10:12]]
    assert engine.keys(Table.RECORD, b"2499") == [b"2499"]
    assert engine.keys(Table.RECORD, b"3") == []
    assert engine.keys(Table.RECORD, b"0013", b"0010") == []
    assert engine.keys(Table.RECORD, limit=0) == []
    assert engine.count(Table.RECORD) == 2500


def test_empty_batch_and_double_flush(engine: Engine) -> None:
    engine.write([])
    engine.flush()
    engine.write([Put(Table.META, b"a", b"")])
    engine.flush()
    engine.flush()
    assert engine.get(Table.META, b"a") == b""


def test_view_does_not_move(engine: Engine) -> None:
    rng = random.Random(3)
    model = empty()
    for _ in range(40):
        batch = random_batch(rng)
        engine.write(batch)
        model = apply(model, batch)
    view, then = engine.view(), model
    for _ in range(40):
        batch = random_batch(rng)
        engine.write(batch)
        model = apply(model, batch)
    second = engine.view()
    assert contents(view) == then
    assert contents(second) == contents(engine) == model != then
    for table, rows in then.items():
        assert {key: view.get(table, key) for key in rows} == rows
        assert view.keys(table) == sorted(rows)
        assert view.get(table, b"absent") is None
    view.close()
    view.close()
    with pytest.raises(StorageError):
        view.get(Table.LOG, b"k")
    with pytest.raises(StorageError):
        view.keys(Table.LOG)
    assert contents(second) == model
    second.close()


def test_usage_grows(engine: Engine) -> None:
    before = engine.usage()
    engine.write([Put(Table.SHARD, b"a", bytes(100_000))])
    after = engine.usage()
    assert after.live >= before.live + 100_000
    assert after.on_disk >= before.on_disk + 100_000
    assert after.free > 0


def test_closed_engine_refuses(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(StorageError):
        engine.write([Put(Table.META, b"a", b"")])


@pytest.mark.parametrize("kind", DISK_ENGINES)
def test_reopening_finds_everything(kind: str, tmp_path: Path) -> None:
    rng = random.Random(4)
    model = empty()
    for _ in range(6):
        engine = make(kind, tmp_path)
        assert contents(engine) == model
        for _ in range(30):
            batch = random_batch(rng)
            engine.write(batch)
            model = apply(model, batch)
        engine.close()


@pytest.mark.parametrize("kind", DISK_ENGINES)
def test_directory_is_locked(kind: str, tmp_path: Path) -> None:
    engine = make(kind, tmp_path)
    with pytest.raises(StorageError, match=f"{tmp_path} is in use by process {os.getpid()}"):
        make(kind, tmp_path)
    engine.close()
    make(kind, tmp_path).close()


@pytest.mark.parametrize("kind", DISK_ENGINES)
def test_new_directories_are_durable(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = set()
    fsync = os.fsync

    def recording(fd: int) -> None:
        fsync(fd)
        synced.add(os.readlink(f"/proc/self/fd/{fd}"))

    monkeypatch.setattr(os, "fsync", recording)
    engine = open_engine(kind, tmp_path / "a" / "b")
    engine.write([Put(Table.META, b"a", b"")])
    engine.flush()
    assert {str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")} <= synced
    engine.close()


@pytest.mark.parametrize("kind", NAMES)
def test_open_engine(kind: str, tmp_path: Path) -> None:
    engine = open_engine(kind, tmp_path / "new" / "store")
    assert engine.name == kind
    engine.write([Put(Table.META, b"a", b"b")])
    engine.close()


def test_open_engine_refuses_clearly(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown storage engine 'sqlite': choose one of files"):
        open_engine("sqlite", tmp_path)
    open_engine("files", tmp_path).close()
    with pytest.raises(StorageError, match="was made by the storage engine 'files'"):
        open_engine("rocksdb", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot open the store in"):
        open_engine("files", tmp_path / "file")


_KEYS = st.sampled_from([b"", b"a", b"ab", b"b", b"\x00", b"\xff", b"c", b"cc"])
_TABLES = st.sampled_from([Table.META, Table.SHARD])
_VALUES = st.sampled_from([b"", b"small", b"m" * 256, b"l" * 257, b"x" * 1500])
_OPERATIONS = st.one_of(
    st.builds(Put, _TABLES, _KEYS, _VALUES),
    st.builds(Delete, _TABLES, _KEYS),
    st.builds(DeleteRange, _TABLES, _KEYS, _KEYS),
)


class EngineMachine(RuleBasedStateMachine):
    """Random calls against an engine and the model. Subclasses name the engine."""

    kind = "memory"

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.engine = make(self.kind, Path(self.directory.name))
        self.model = empty()
        self.view: Any = None

    @rule(batch=st.lists(_OPERATIONS, max_size=5))
    def write(self, batch: list[Any]) -> None:
        self.engine.write(batch)
        self.model = apply(self.model, batch)

    @rule()
    def flush(self) -> None:
        self.engine.flush()

    @rule(budget=st.sampled_from([1, 700, 100_000]))
    def compact(self, budget: int) -> None:
        self.engine.compact_step(budget)

    @rule()
    @precondition(lambda self: self.view is None)
    def open_view(self) -> None:
        self.view, self.seen = self.engine.view(), self.model

    @rule()
    @precondition(lambda self: self.view is not None)
    def close_view(self) -> None:
        assert contents(self.view) == self.seen
        self.view.close()
        self.view = None

    @rule()
    @precondition(lambda self: self.kind != "memory" and self.view is None)
    def reopen(self) -> None:
        self.engine.close()
        self.engine = make(self.kind, Path(self.directory.name))

    @rule(table=_TABLES, start=_KEYS, end=st.none() | _KEYS, limit=st.integers(0, 4))
    def scan(self, table: Table, start: bytes, end: bytes | None, limit: int) -> None:
        rows = self.model[table]
        expected = sorted(
            (key, value)
            for key, value in rows.items()
            if start <= key and (end is None or key < end)
        )[:limit]
        assert self.engine.scan(table, start, end, limit) == expected
        assert self.engine.keys(table, start, end, limit) == [key for key, _ in expected]

    @invariant()
    def equal(self) -> None:
        assert contents(self.engine) == self.model
        for table in Table:
            assert self.engine.count(table) == len(self.model[table])

    def teardown(self) -> None:
        if self.view is not None:
            self.view.close()
        self.engine.close()
        self.directory.cleanup()


class FilesMachine(EngineMachine):
    kind = "files"


class RocksMachine(EngineMachine):
    kind = "rocksdb"


_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
TestMemoryModel = EngineMachine.TestCase
TestMemoryModel.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=_SLOW
)
TestFilesModel = FilesMachine.TestCase
TestFilesModel.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=_SLOW
)
TestRocksModel = RocksMachine.TestCase
TestRocksModel.settings = settings(
    max_examples=10, stateful_step_count=20, deadline=None, suppress_health_check=_SLOW
)
