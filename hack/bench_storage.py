#!/usr/bin/env python3
"""Compare the storage engines `files` and `rocksdb` on this machine, in turn, in one run.

Prints wall and CPU milliseconds for each engine and their ratio (rocksdb / files, so above 1
means that `files` is better). Absolute times depend on the disk and its neighbours; the ratios
of one run are what counts. CPU is that of the whole process, background threads included.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "node"))

from distkv.storage.base import Delete, Engine, Put, Table
from distkv.storage.open import open_engine

ROOM = 2 << 20
"""Budget of compaction for each flush: more than any batch here, so that it keeps up."""
ENGINES = ("files", "rocksdb")


class Cost(NamedTuple):
    """Milliseconds for one unit of work."""

    wall: float
    cpu: float


def measure(work: Callable[[], int]) -> Cost:
    """Run `work`, which returns how many units it did."""
    cpu, wall = time.process_time(), time.perf_counter()
    units = work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Cost(wall * 1000 / units, cpu * 1000 / units)


def put_and_flush(size: int, rows: int, batches: int, table: Table) -> Callable[[Engine], int]:
    """Batches of `rows` rows of `size` bytes over 20,000 keys, one flush for each batch."""
    rng = random.Random(size + rows)
    value = rng.randbytes(size)

    def work(engine: Engine) -> int:
        for _ in range(batches):
            engine.write(
                [Put(table, b"key-%08d" % rng.randrange(20_000), value) for _ in range(rows)]
            )
            engine.compact_step(ROOM)
            engine.flush()
        return batches

    return work


def shards_and_removal(size: int, count: int) -> Callable[[Engine], int]:
    """Store shards, 4 to a flush, and remove each one 200 later, as overwritten values do."""
    value = random.Random(size).randbytes(size)

    def work(engine: Engine) -> int:
        for number in range(0, count, 4):
            name = [b"%020d" % (number + i) for i in range(4)]
            old = [b"%020d" % (number + i - 200) for i in range(4)]
            engine.write([Put(Table.SHARD, key, value) for key in name])
            engine.write([Delete(Table.SHARD, key) for key in old])
            engine.compact_step(ROOM)
            engine.flush()
        return count

    return work


def gets(table: Table, count: int) -> Callable[[Engine], int]:
    """Random reads of rows that are there, checksums verified."""

    def work(engine: Engine) -> int:
        keys = engine.keys(table, limit=1 << 30)
        rng = random.Random(1)
        for _ in range(count):
            assert engine.get(table, rng.choice(keys)) is not None
        return count

    return work


def row(title: str, costs: dict[str, list[Cost]]) -> None:
    """Print the medians of the rounds."""
    wall = {name: statistics.median(cost.wall for cost in costs[name]) for name in ENGINES}
    cpu = {name: statistics.median(cost.cpu for cost in costs[name]) for name in ENGINES}
    print(
        f"{title:34} {wall['files']:9.4f} {wall['rocksdb']:9.4f} "
        f"{wall['rocksdb'] / wall['files']:6.2f}   {cpu['files']:9.4f} {cpu['rocksdb']:9.4f} "
        f"{cpu['rocksdb'] / cpu['files']:6.2f}",
        flush=True,
    )


def compare(directory: Path, rounds: int, scale: float) -> None:
    """Run every measurement on both engines in turn."""

    def times(count: int) -> int:
        return max(1, int(count * scale))

    stages: list[tuple[str, Callable[[Engine], int]]] = [
        ("1 KiB x 1 and flush", put_and_flush(1024, 1, times(300), Table.RECORD)),
        ("1 KiB x 32 and flush", put_and_flush(1024, 32, times(150), Table.RECORD)),
        ("1 KiB x 256 and flush", put_and_flush(1024, 256, times(60), Table.RECORD)),
        ("get 1 KiB", gets(Table.RECORD, times(50_000))),
        ("88 KiB shard, 4 per flush", shards_and_removal(88 << 10, times(800))),
        ("350 KiB shard, 4 per flush", shards_and_removal(350 << 10, times(400))),
        ("get shard", gets(Table.SHARD, times(1_000))),
    ]
    print(
        f"{'ms per batch, shard or get':34} {'wall':>9} {'wall':>9}          {'CPU':>9} {'CPU':>9}"
    )
    print(f"{'':34} {'files':>9} {'rocksdb':>9}  ratio   {'files':>9} {'rocksdb':>9}  ratio")
    results: dict[str, dict[str, list[Cost]]] = {}
    disk: dict[str, float] = {}
    for turn in range(rounds):
        for name in ENGINES if turn % 2 == 0 else ENGINES[::-1]:
            store = directory / name
            engine = open_engine(name, store)
            for title, work in stages:
                cost = measure(partial(work, engine))
                results.setdefault(title, {e: [] for e in ENGINES})[name].append(cost)
            usage = engine.usage()
            disk[name] = usage.on_disk / (1 << 20)
            rows = engine.count(Table.RECORD)
            engine.close()

            def reopen(name: str = name, store: Path = store) -> int:
                again = open_engine(name, store)
                again.keys(Table.RECORD, limit=1)
                again.close()
                return 1

            cost = measure(reopen)
            results.setdefault("reopen and close", {e: [] for e in ENGINES})[name].append(cost)
            shutil.rmtree(store)
    for title, costs in results.items():
        row(title, costs)
    print(f"MiB on disk at the end: files {disk['files']:.0f}, rocksdb {disk['rocksdb']:.0f}")
    print(f"(about {rows} rows of 1 KiB and 200 shards were live)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, help="where to put the stores (default: a new one)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the work, 0.1 is quick")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        print(f"{os.cpu_count()} processors; {options.rounds} rounds, median of the rounds")
        compare(Path(directory), options.rounds, options.scale)


if __name__ == "__main__":
    main()
