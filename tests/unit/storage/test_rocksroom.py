"""RocksDB gives back the space of dead rows on a disk that is nearly full."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from unit.storage.disks import eventually, fill_up, free_of, mounted

from distkv.storage import rocksroom
from distkv.storage.base import CorruptRow, Delete, Put, StorageFull, Table
from distkv.storage.rocksdb import RESERVE_BYTES, RocksEngine

MIB = 1 << 20
DISK_BYTES = 224 * MIB
SCARCE_BYTES = RESERVE_BYTES + 32 * MIB
"""What a node leaves free for consensus."""


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(rocksroom, "REST_SECONDS", 0.0)
    monkeypatch.setattr(rocksroom, "REST_FACTOR", 0)
    with mounted(tmp_path / "disk", DISK_BYTES) as path:
        yield path


def write(engine: RocksEngine, numbers: list[int], size: int, seed: int = 0) -> None:
    for at in range(0, len(numbers), 10):
        some = numbers[at : at + 10]
        engine.write([Put(Table.SHARD, b"%08d" % n, value_of(n, size, seed)) for n in some])


def value_of(number: int, size: int, seed: int = 0) -> bytes:
    return random.Random(number * 10 + seed).randbytes(size)


def fill(engine: RocksEngine, disk: Path, size: int) -> list[int]:
    """As a node does: until space is scarce, while it asks for more of it."""
    numbers: list[int] = []
    while free_of(disk) > SCARCE_BYTES:
        more = list(range(len(numbers), len(numbers) + max(10, 300_000 // size)))
        write(engine, more, size)
        numbers += more
        if free_of(disk) < 2 * SCARCE_BYTES:
            engine.make_room()
    engine._room.join()
    return numbers


def delete(engine: RocksEngine, numbers: list[int]) -> None:
    for at in range(0, len(numbers), 20):
        engine.write([Delete(Table.SHARD, b"%08d" % n) for n in numbers[at : at + 20]])


def make_room(engine: RocksEngine) -> int:
    """Until there is nothing more to gain; passes."""
    began = engine._room.passes
    while True:
        before = engine._room.passes
        engine.make_room()
        engine._room.join()
        if engine._room.passes == before:
            return before - began
        assert before - began < 100, "it does not end"


def check(engine: RocksEngine, numbers: list[int], size: int) -> None:
    assert engine.keys(Table.SHARD, limit=10**6) == [b"%08d" % n for n in sorted(numbers)]
    for number in numbers:
        assert engine.get(Table.SHARD, b"%08d" % number) == value_of(number, size)


def errors(engine: RocksEngine) -> int:
    return engine._property("rocksdb.background-errors")


@pytest.mark.parametrize(
    ("order", "share", "size"),
    [
        ("oldest", 0.75, 100_000),
        ("oldest", 0.75, 3_000),
        ("random", 0.75, 100_000),
        ("random", 0.75, 3_000),
        ("random", 0.3, 100_000),
    ],
)
def test_deletions_on_a_scarce_disk_give_space_back(
    order: str, share: float, size: int, disk: Path
) -> None:
    """Values in blob files, of which the live ones must be moved, and more of them at times than
    there is space for; or in tables. RocksDB never runs out of space."""
    engine = RocksEngine(disk / "store")
    numbers = fill(engine, disk, size)
    if order == "random":
        random.Random(size).shuffle(numbers)
    cut = int(len(numbers) * share)
    dead, left = numbers[:cut], numbers[cut:]
    delete(engine, dead)
    make_room(engine)
    most = len(left) * size * 1.25 + 8 * MIB
    eventually(lambda: DISK_BYTES - free_of(disk) < most, "the space")
    assert errors(engine) == 0
    assert make_room(engine) == 0
    check(engine, left, size)
    engine.write([Put(Table.META, b"room", bytes(20 * MIB))])
    engine.close()
    again = RocksEngine(disk / "store")
    check(again, left, size)
    again.close()


def test_replaced_rows_give_space_back(disk: Path) -> None:
    engine = RocksEngine(disk / "store")
    numbers = list(range(400))
    for seed in (3, 2, 1, 0):
        write(engine, random.Random(seed).sample(numbers, 300), 100_000, seed)
    write(engine, numbers, 100_000)
    make_room(engine)
    eventually(lambda: DISK_BYTES - free_of(disk) < 52 * MIB, "the space")
    check(engine, numbers, 100_000)
    engine.close()


def test_an_open_view_puts_it_off(disk: Path) -> None:
    engine = RocksEngine(disk / "store")
    write(engine, list(range(300)), 100_000)
    delete(engine, list(range(250)))
    view = engine.view()
    assert make_room(engine) == 0
    view.close()
    assert make_room(engine) > 0
    check(engine, list(range(250, 300)), 100_000)
    engine.close()


def test_a_pass_that_meets_a_full_disk_costs_nothing(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody else takes the space after the pass looked at it."""
    engine = RocksEngine(disk / "store")
    numbers = list(range(1000))
    write(engine, numbers, 100_000)
    dead = random.Random(1).sample(numbers, 500)
    left = sorted(set(numbers) - set(dead))
    delete(engine, dead)
    fit = rocksroom._Pass._fit_cutoff

    def fit_and_fill(one: Any, *arguments: Any) -> int:
        count = fit(one, *arguments)
        fill_up(disk / "ballast", MIB)
        return count

    with monkeypatch.context() as patch:
        patch.setattr(rocksroom._Pass, "_fit_cutoff", fit_and_fill)
        engine.make_room()
        engine._room.join()
    assert errors(engine) > 0
    assert "failed, see RocksDB's LOG" in caplog.text
    with pytest.raises(StorageFull):
        engine.write([Put(Table.META, b"refused", bytes(MIB))])
    check(engine, left, 100_000)
    (disk / "ballast").unlink()

    def written() -> bool:
        try:
            engine.write([Put(Table.META, b"back", b"yes")])
        except StorageFull:
            return False
        return True

    eventually(written, "writes to be taken")
    engine.flush()
    make_room(engine)
    eventually(lambda: DISK_BYTES - free_of(disk) < 80 * MIB, "the space")
    check(engine, left, 100_000)
    assert engine.get(Table.META, b"back") == b"yes"
    engine.close()


def test_a_merge_that_does_not_fit_is_not_begun(disk: Path) -> None:
    engine = RocksEngine(disk / "store")
    numbers = list(range(9_000))
    random.Random(1).shuffle(numbers)
    write(engine, numbers, 3_000)
    delete(engine, numbers[::10])
    engine._database.flush()
    fill_up(disk / "ballast", rocksroom.MARGIN_BYTES + 2 * MIB)
    assert make_room(engine) == 1
    assert errors(engine) == 0
    (disk / "ballast").unlink()
    write(engine, numbers[::10], 3_000)
    assert make_room(engine) > 0
    check(engine, numbers, 3_000)
    engine.close()


@pytest.mark.parametrize(("size", "kind"), [(100_000, "blob"), (3_000, "sst")])
def test_a_pass_over_a_damaged_block_costs_nothing(size: int, kind: str, disk: Path) -> None:
    """RocksDB then takes no writes until it is opened anew."""
    store = disk / "store"
    engine = RocksEngine(store)
    numbers = list(range(20_000_000 // size))
    write(engine, numbers, size)
    engine._database.flush()
    engine._database.compact_range(None, None)
    engine.close()
    victim = len(numbers) // 2 // 3 * 3 + 1
    part = value_of(victim, size)[size // 2 :][:50]
    for path in (store / "rocksdb").glob(f"*.{kind}"):
        raw = path.read_bytes()
        path.write_bytes(raw.replace(part, bytes(50)))
    engine = RocksEngine(store)
    with pytest.raises(CorruptRow):
        engine.get(Table.SHARD, b"%08d" % victim)
    kept = [n for n in numbers if n % 3 == 1]
    delete(engine, [n for n in numbers if n % 3 != 1])
    assert errors(engine) == 0
    for number in range(10):
        engine.make_room()
        engine._room.join()
        assert number or errors(engine) > 0
        ends = [Put(Table.SHARD, end, b"") for end in (b"", b"9")]
        engine.write([Put(Table.META, b"%d" % number, b"goes on"), *ends])
        engine.flush()
        engine._database.flush()  # the fourth would have the tables merged
    assert engine._room.passes == 1
    assert engine._property("rocksdb.num-running-compactions") == 0
    for number in kept[: len(kept) // 3] + kept[-len(kept) // 3 :]:
        assert engine.get(Table.SHARD, b"%08d" % number) == value_of(number, size)
    with pytest.raises(CorruptRow):
        engine.get(Table.SHARD, b"%08d" % victim)
    engine.close()
    again = RocksEngine(store)
    assert all(again.get(Table.META, b"%d" % n) == b"goes on" for n in range(10))
    again.close()


def test_a_store_gets_the_options_of_now(tmp_path: Path) -> None:
    """And not those of its last opening, as rocksdict would have it."""
    engine = RocksEngine(tmp_path)
    engine._database.set_options({"blob_file_size": "12345678"})
    engine.close()
    RocksEngine(tmp_path).close()
    newest = max((tmp_path / "rocksdb").glob("OPTIONS-*")).read_text()
    assert f"blob_file_size={engine._file_bytes[1]}\n" in newest


def test_closing_ends_a_pass(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = RocksEngine(disk / "store")
    numbers = list(range(900))
    write(engine, numbers, 100_000)
    dead = random.Random(1).sample(numbers, 300)
    delete(engine, dead)
    merging = threading.Event()
    step = rocksroom._Pass._step

    def told(one: Any, work: Any) -> None:
        merging.set()
        step(one, work)

    monkeypatch.setattr(rocksroom._Pass, "_step", told)
    engine.make_room()
    assert merging.wait(30)
    engine.close()
    assert not engine._room.running
    assert engine._room.passes == 1
    again = RocksEngine(disk / "store")
    check(again, sorted(set(numbers) - set(dead)), 100_000)
    again.close()
