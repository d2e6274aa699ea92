"""An engine of dicts that loses at a crash what was not flushed, and whose rows can rot."""

from __future__ import annotations

from typing import Any

from distkv.storage.base import (
    CorruptRow,
    Delete,
    DeleteRange,
    Framing,
    Put,
    StorageOperation,
    Table,
    Usage,
    View,
)


class DictEngine:
    """Ordered tables in dicts; a crash keeps what was flushed."""

    name = "dict"
    framed = False
    reserve_bytes = 0

    def __init__(self) -> None:
        self.tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}
        self.durable = {table: dict(rows) for table, rows in self.tables.items()}
        self._unflushed: list[StorageOperation] = []
        self.rotten: dict[tuple[Table, bytes], None] = {}
        self.gets = 0

    def get(self, table: Table, key: bytes) -> bytes | None:
        self.gets += 1
        if (table, key) in self.rotten and key in self.tables[table]:
            raise CorruptRow(table, key)
        return self.tables[table].get(key)

    def reread(self, table: Table, key: bytes) -> bytes | None:
        return self.get(table, key)

    def check_framing(self, position: int, budget_bytes: int) -> Framing:
        return Framing(0, 0, 0, 0)

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        rows = []
        for key in self.keys(table, start, end, limit):
            row = self.get(table, key)
            assert row is not None
            rows.append((key, row))
        return rows

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        found = sorted(k for k in self.tables[table] if k >= start and (end is None or k < end))
        return found[:limit]

    def count(self, table: Table) -> int:
        return len(self.tables[table])

    @staticmethod
    def _apply(tables: dict[Table, dict[bytes, bytes]], operation: StorageOperation) -> None:
        rows = tables[operation.table]
        if isinstance(operation, Put):
            assert type(operation.value) is bytes
            rows[operation.key] = operation.value
        elif isinstance(operation, Delete):
            rows.pop(operation.key, None)
        else:
            assert isinstance(operation, DeleteRange)
            for key in [k for k in rows if operation.start <= k < operation.end]:
                del rows[key]

    def write(self, batch: Any) -> int:
        size = 0
        for operation in batch:
            self._apply(self.tables, operation)
            if isinstance(operation, Put):
                self.rotten.pop((operation.table, operation.key), None)
                size += len(operation.value)
        self._unflushed.extend(batch)
        return size

    def settle(self, operation: StorageOperation) -> None:
        """A row of the applied state, which this world keeps over crashes."""
        self._apply(self.tables, operation)
        self._apply(self.durable, operation)

    def flush(self) -> None:
        for operation in self._unflushed:
            self._apply(self.durable, operation)
        self._unflushed = []

    def crash(self) -> None:
        self._unflushed = []
        self.tables = {table: dict(rows) for table, rows in self.durable.items()}

    def view(self) -> View:
        raise NotImplementedError

    def usage(self) -> Usage:
        live = sum(len(k) + len(v) for rows in self.tables.values() for k, v in rows.items())
        return Usage(live, live, 1 << 40)

    def close(self) -> None:
        self.flush()
