#!/usr/bin/env python3
"""Compare the storage engines `files` and `rocksdb` on this machine, batch by batch in turn.

Both engines do each step right after each other, in changing order, so that whatever else
the machine and its disk are busy with meets both alike. Printed are milliseconds for each
engine and the ratio rocksdb / files: above 1 means that `files` is better. CPU is the
calling thread's; the threads of RocksDB are counted to rocksdb, for `files` has none.
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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "node"))

from distkv.storage.base import Delete, Engine, Put, Table
from distkv.storage.open import open_engine

ENGINES = ("files", "rocksdb")
ROOM = 2 << 20
"""Budget of compaction for each flush: more than any batch here, so that it keeps up."""
LIVE_SHARDS = 200
PER_FLUSH = 4

Step = Callable[[Engine], None]


class Cost(NamedTuple):
    """Milliseconds per unit: median and mean of the wall time, mean CPU."""

    median: float
    mean: float
    cpu: float


def finish(engine: Engine) -> None:
    """End of a batch: what the owner of an engine does as well."""
    engine.compact_step(ROOM)
    engine.flush()


def put_and_flush(size: int, rows: int, batches: int, table: Table) -> Iterator[Step]:
    """Batches of `rows` rows of `size` bytes over 20,000 keys, one flush for each batch."""
    rng = random.Random(size + rows)
    value = rng.randbytes(size)
    for _ in range(batches):
        batch = [Put(table, b"key-%08d" % rng.randrange(20_000), value) for _ in range(rows)]

        def step(engine: Engine, batch: list[Put] = batch) -> None:
            engine.write(batch)
            finish(engine)

        yield step


def shards_and_removal(size: int, flushes: int) -> Iterator[Step]:
    """Store shards, 4 to a flush, and remove each one 200 later, as overwritten values do."""
    value = random.Random(size).randbytes(size)
    for number in range(0, flushes * PER_FLUSH, PER_FLUSH):
        names = [b"%020d" % (number + i) for i in range(PER_FLUSH)]
        old = [b"%020d" % (number + i - LIVE_SHARDS) for i in range(PER_FLUSH)]

        def step(engine: Engine, names: list[bytes] = names, old: list[bytes] = old) -> None:
            engine.write([Put(Table.SHARD, name, value) for name in names])
            engine.write([Delete(Table.SHARD, name) for name in old])
            finish(engine)

        yield step


def gets(table: Table, keys: list[bytes], count: int) -> Iterator[Step]:
    """Random reads of rows that are there, checksums verified, 20 to a step."""
    rng = random.Random(1)
    for _ in range(count // 20):
        some = [rng.choice(keys) for _ in range(20)]

        def step(engine: Engine, some: list[bytes] = some) -> None:
            for key in some:
                assert engine.get(table, key) is not None

        yield step


def compare(steps: Iterator[Step], engines: dict[str, Engine], units: int) -> dict[str, Cost]:
    """Do each step on both engines; cost of one of its `units` units."""
    walls: dict[str, list[float]] = {name: [] for name in ENGINES}
    cpu = dict.fromkeys(ENGINES, 0.0)
    process, thread = time.process_time(), time.thread_time()
    for number, step in enumerate(steps):
        for name in ENGINES if number % 2 == 0 else ENGINES[::-1]:
            used, began = time.thread_time(), time.perf_counter()
            step(engines[name])
            walls[name].append((time.perf_counter() - began) * 1000 / units)
            cpu[name] += time.thread_time() - used
    background = (time.process_time() - process) - (time.thread_time() - thread)
    cpu["rocksdb"] += max(0.0, background)
    return {
        name: Cost(
            statistics.median(walls[name]),
            statistics.fmean(walls[name]),
            cpu[name] * 1000 / units / len(walls[name]),
        )
        for name in ENGINES
    }


def print_row(title: str, costs: dict[str, Cost]) -> None:
    """One line of the table."""
    files, rocksdb = costs["files"], costs["rocksdb"]
    columns = [
        f"{ours:9.4f} {theirs:9.4f} {theirs / max(ours, 1e-9):6.2f}"
        for ours, theirs in zip(files, rocksdb, strict=True)
    ]
    print(f"{title:26}  {'   '.join(columns)}", flush=True)


def reopen(directory: Path, rounds: int) -> dict[str, Cost]:
    """Opening a store and reading its first key."""
    walls: dict[str, list[float]] = {name: [] for name in ENGINES}
    cpu = dict.fromkeys(ENGINES, 0.0)
    for _ in range(rounds):
        for name in ENGINES:
            used, began = time.process_time(), time.perf_counter()
            engine = open_engine(name, directory / name)
            engine.keys(Table.RECORD, limit=1)
            walls[name].append((time.perf_counter() - began) * 1000)
            cpu[name] += time.process_time() - used
            engine.close()
    return {
        name: Cost(
            statistics.median(walls[name]), statistics.fmean(walls[name]), cpu[name] * 1000 / rounds
        )
        for name in ENGINES
    }


def run(directory: Path, scale: float) -> None:
    """All measurements."""

    def times(count: int) -> int:
        return max(20, int(count * scale))

    engines = {name: open_engine(name, directory / name) for name in ENGINES}
    head = f"{'files':>9} {'rocksdb':>9} {'ratio':>6}"
    print(f"{'ms':26}  {'wall, median':^26}   {'wall, mean':^26}   {'CPU, mean':^26}")
    print(f"{'':26}  {head}   {head}   {head}")
    for rows, batches in ((1, 300), (32, 300), (256, 100)):
        steps = put_and_flush(1024, rows, times(batches), Table.RECORD)
        print_row(f"1 KiB x {rows} and flush", compare(steps, engines, 1))
    keys = engines["files"].keys(Table.RECORD, limit=1 << 30)
    print_row("get 1 KiB", compare(gets(Table.RECORD, keys, times(40_000)), engines, 20))
    for kib, flushes in ((88, 300), (350, 150)):
        steps = shards_and_removal(kib << 10, times(flushes))
        print_row(f"{kib} KiB shard, 4 per flush", compare(steps, engines, PER_FLUSH))
        names = engines["files"].keys(Table.SHARD)
        print_row(f"get {kib} KiB", compare(gets(Table.SHARD, names, times(1000)), engines, 20))
    sizes = {name: engine.usage().on_disk >> 20 for name, engine in engines.items()}
    for engine in engines.values():
        engine.close()
    print_row("reopen", reopen(directory, 5))
    print(f"MiB on disk at the end: files {sizes['files']}, rocksdb {sizes['rocksdb']}")
    print(f"({len(keys)} rows of 1 KiB and {LIVE_SHARDS} shards were live)")
    for name in ENGINES:
        shutil.rmtree(directory / name)


def main() -> None:
    parser = argparse.ArgumentParser(description="files against rocksdb, batch by batch in turn")
    parser.add_argument("--dir", type=Path, help="where to put the stores (default: a new one)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the work, 0.1 is quick")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as directory:
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
        run(Path(directory), options.scale)


if __name__ == "__main__":
    main()
