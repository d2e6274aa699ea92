"""Engine without files, with the crash model that the simulator drives.

What a crash may leave is exactly what the contract of `base.Engine` allows: all batches up
to the last completed flush, and any number of the later ones from the front. To get there,
each batch that is not durable keeps the rows it replaced, and a crash takes batches back.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

from distkv.storage.base import (
    CorruptRow,
    Delete,
    DeleteRange,
    Framing,
    Put,
    StorageError,
    StorageFull,
    StorageOperation,
    Table,
    Usage,
)
from distkv.storage.sortedkeys import SortedKeys

_Undo = list[tuple[Table, bytes, bytes | None]]


class _Rows:
    """One table: rows by key, and the keys in order once somebody asked for an order."""

    __slots__ = ("live", "order", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.order: SortedKeys | None = None
        self.live = 0

    def put(self, key: bytes, value: bytes) -> bytes | None:
        old = self.rows.get(key)
        self.rows[key] = value
        if old is not None:
            self.live += len(value) - len(old)
        else:
            self.live += len(key) + len(value)
            if self.order is not None:
                self.order.add(key)
        return old

    def remove(self, key: bytes) -> bytes | None:
        old = self.rows.pop(key, None)
        if old is not None:
            self.live -= len(key) + len(old)
            if self.order is not None:
                self.order.remove(key)
        return old

    def ordered(self) -> SortedKeys:
        if self.order is None:
            self.order = SortedKeys(self.rows)
        return self.order


class MemoryView:
    """See base.View. Copies the tables: meant for small ones."""

    def __init__(self, tables: dict[Table, _Rows], rotten: set[tuple[Table, bytes]]) -> None:
        self._tables: dict[Table, _Rows] = {}
        for table, rows in tables.items():
            copy = self._tables[table] = _Rows()
            copy.rows = rows.rows.copy()
        self._rotten = frozenset(rotten)

    def _open(self, table: Table) -> _Rows:
        if not self._tables:
            raise StorageError("this view is closed")
        return self._tables[table]

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""
        if (table, key) in self._rotten:
            raise CorruptRow(table, key)
        return self._open(table).rows.get(key)

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        """Up to `limit` keys in order with start <= key < end."""
        return self._open(table).ordered().range(start, end, limit)

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows in key order with start <= key < end. Raises CorruptRow."""
        rows: list[tuple[bytes, bytes]] = []
        for key in self.keys(table, start, end, limit):
            value = self.get(table, key)
            assert value is not None
            rows.append((key, value))
        return rows

    def close(self) -> None:
        """Release it; reading afterwards is an error."""
        self._tables = {}


class MemoryEngine:
    """See base.Engine. `written` counts batches; `full` makes every write raise StorageFull.

    `flush` is complete at once. A simulator that models a flush that takes time notes
    `mark = engine.written` when it starts and calls `flush_to(mark)` when it ends.
    """

    name = "memory"
    framed = False
    reserve_bytes = 0

    def __init__(self) -> None:
        self._tables: dict[Table, _Rows] = {table: _Rows() for table in Table}
        self._rotten: set[tuple[Table, bytes]] = set()
        self._pending: deque[_Undo] = deque()
        self._closed = False
        self.written = 0
        self.full = False

    def _check(self) -> None:
        if self._closed:
            raise StorageError("this memory engine is closed (or its machine crashed)")

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""
        self._check()
        if self._rotten and (table, key) in self._rotten:
            raise CorruptRow(table, key)
        return self._tables[table].rows.get(key)

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        """Up to `limit` keys in order with start <= key < end."""
        self._check()
        return self._tables[table].ordered().range(start, end, limit)

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows in key order with start <= key < end. Raises CorruptRow."""
        rows = self._tables[table].rows
        keys = self.keys(table, start, end, limit)
        if self._rotten:
            for key in keys:
                if (table, key) in self._rotten:
                    raise CorruptRow(table, key)
        return [(key, rows[key]) for key in keys]

    def reread(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""
        return self.get(table, key)

    def count(self, table: Table) -> int:
        """Number of live rows."""
        return len(self._tables[table].rows)

    def write(self, batch: Sequence[StorageOperation]) -> int:
        """Apply atomically, in order; see base.Engine."""
        self._check()
        if self.full:
            raise StorageFull("the simulated disk is full")
        undo: _Undo = []
        size = 0
        for operation in batch:
            table = operation[0]
            rows = self._tables[table]
            if isinstance(operation, Put):
                undo.append((table, operation.key, rows.put(operation.key, operation.value)))
                size += len(operation.value)
                if self._rotten:
                    self._rotten.discard((table, operation.key))
            elif isinstance(operation, Delete):
                self._remove(table, operation.key, undo)
            else:
                assert isinstance(operation, DeleteRange)
                found = rows.ordered().range(operation.start, operation.end, len(rows.rows))
                for key in found:
                    self._remove(table, key, undo)
        self._pending.append(undo)
        self.written += 1
        return size

    def _remove(self, table: Table, key: bytes, undo: _Undo) -> None:
        old = self._tables[table].remove(key)
        if old is not None:
            undo.append((table, key, old))
            self._rotten.discard((table, key))

    def flush(self) -> None:
        """Everything written so far survives `crash`."""
        self.flush_to(self.written)

    def flush_to(self, mark: int) -> None:
        """Batches up to number `mark` (see `written`) survive `crash`; later ones may not."""
        self._check()
        while self._pending and self.written - len(self._pending) < mark:
            self._pending.popleft()

    def replaced(self) -> dict[tuple[Table, bytes], bytes | None]:
        """What every row changed since the last flush was at that flush (None: absent)."""
        before: dict[tuple[Table, bytes], bytes | None] = {}
        for undo in self._pending:
            for table, key, old in undo:
                before.setdefault((table, key), old)
        return before

    def unflushed(self) -> int:
        """Number of batches that a crash may lose."""
        return len(self._pending)

    def crash(self, rng: random.Random, torn: bool = True) -> MemoryEngine:
        """The engine as it is reopened after the machine crashed; this one is then closed.

        `torn`: some number, drawn from `rng`, of the batches since the last flush survive,
        always the first ones; otherwise all of them are lost. A row that was rotten before
        one of the lost batches replaced it comes back sound: rot is drawn anew.
        """
        self._check()
        lost = rng.randint(0, len(self._pending)) if torn else len(self._pending)
        for _ in range(lost):
            for table, key, old in reversed(self._pending.pop()):
                if old is None:
                    self._tables[table].remove(key)
                    self._rotten.discard((table, key))
                else:
                    self._tables[table].put(key, old)
        found = MemoryEngine()
        found._tables, found._rotten, found.full = self._tables, self._rotten, self.full
        found.written = self.written - lost
        self._tables, self._rotten = {table: _Rows() for table in Table}, set()
        self._pending.clear()
        self._closed = True
        return found

    def wipe(self) -> None:
        """Lose everything, as by a new disk. Only between a crash and the next start."""
        self._check()
        self._tables = {table: _Rows() for table in Table}
        self._rotten.clear()
        self._pending.clear()

    def rot(self, table: Table, key: bytes) -> bool:
        """Make the row raise CorruptRow until it is replaced or removed; False if absent."""
        self._check()
        if key not in self._tables[table].rows:
            return False
        self._rotten.add((table, key))
        return True

    def compact_step(self, budget_bytes: int = 0) -> bool:
        """Nothing to compact."""
        return False

    def make_room(self) -> None:
        """Nothing to give back."""

    def check_framing(self, position: int, budget_bytes: int) -> Framing:
        """Nothing to look at."""
        return Framing(0, 0, 0, 0)

    def view(self) -> MemoryView:
        """A consistent picture of all tables as of now."""
        self._check()
        return MemoryView(self._tables, self._rotten)

    def usage(self) -> Usage:
        """Sizes in bytes; `free` is 0 when `full`."""
        live = sum(rows.live for rows in self._tables.values())
        return Usage(live, live, 0 if self.full else 1 << 40)

    def close(self) -> None:
        """Nothing survives a memory engine."""
        self._closed = True
