"""The naive model that every engine is compared with, and ways to open and watch engines."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from distkv.storage.base import (
    Delete,
    DeleteRange,
    Engine,
    Put,
    StorageOperation,
    Table,
    View,
)
from distkv.storage.files import FilesEngine
from distkv.storage.memory import MemoryEngine
from distkv.storage.rocksdb import RocksEngine

Rows = dict[Table, dict[bytes, bytes]]
ENGINES = ("memory", "files", "rocksdb")
DISK_ENGINES = ("files", "rocksdb")
SMALL_SEGMENT = 4096


def make(kind: str, directory: Path) -> Engine:
    """An engine with limits so small that tests reach rotation and compaction."""
    if kind == "memory":
        return MemoryEngine()
    if kind == "files":
        return FilesEngine(directory, segment_bytes=SMALL_SEGMENT, reserve_bytes=0)
    return RocksEngine(directory, reserve_bytes=0)


def empty() -> Rows:
    """A model without rows."""
    return {table: {} for table in Table}


def apply(rows: Rows, batch: Sequence[StorageOperation]) -> Rows:
    """The model after a batch (a new one)."""
    after = {table: content.copy() for table, content in rows.items()}
    for operation in batch:
        content = after[operation.table]
        if isinstance(operation, Put):
            content[operation.key] = operation.value
        elif isinstance(operation, Delete):
            content.pop(operation.key, None)
        else:
            for key in [k for k in content if operation.start <= k < operation.end]:
                del content[key]
    return after


def contents(source: Engine | View) -> Rows:
    """All rows of an engine or a view, read in small pages."""
    found = empty()
    for table in Table:
        start = b""
        while True:
            page = source.scan(table, start, None, 7)
            if not page:
                break
            found[table].update(page)
            start = page[-1][0] + b"\x00"
    return found


def random_batch(rng: random.Random, size: int = 6) -> list[StorageOperation]:
    """Operations on few keys of three tables, so that they meet."""
    batch: list[StorageOperation] = []
    for _ in range(rng.randrange(size + 1)):
        table = rng.choice([Table.META, Table.LOG, Table.RECORD])
        key = b"%02d" % rng.randrange(50)
        chance = rng.random()
        if chance < 0.65:
            value = rng.randbytes(rng.choice([0, 1, 40, 256, 257, 900]))
            batch.append(Put(table, key, value))
        elif chance < 0.85:
            batch.append(Delete(table, key))
        else:
            batch.append(DeleteRange(table, key, b"%02d" % rng.randrange(50)))
    return batch
