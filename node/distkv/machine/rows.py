"""Engine tables with this turn's changes on top.

`apply` must see its own changes before the caller has written them to the engine. Changes
are kept decoded, so a row that changes many times in one turn is encoded once, when it is
drained. After `drain` the caller writes the batch before anything else is read.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from distkv.machine.commands import KEY_BYTES_MAX
from distkv.storage.base import Delete, DeleteRange, Engine, Put, StorageOperation, Table

T = TypeVar("T")

HEAD_ROW = b"a"
"""Row of STATE with the applied slot, log time, counters and the barrier."""

END = b"\xff" * (KEY_BYTES_MAX + 64)
"""Above every key of every table."""


class Rows(Generic[T]):
    """One table. `kept`: about how many decoded rows are remembered besides the changed ones.

    They are remembered in two generations: when the young one is full it becomes the old
    one, and the old one is forgotten. This costs nothing for a key.
    """

    def __init__(
        self,
        engine: Engine,
        table: Table,
        encode: Callable[[T], bytes],
        decode: Callable[[bytes], T],
        kept: int = 0,
    ) -> None:
        self._engine = engine
        self._table = table
        self._encode = encode
        self._decode = decode
        self._kept = kept
        self.changed: dict[bytes, T | None] = {}
        self._young: dict[bytes, T | None] = {}
        self._old: dict[bytes, T | None] = {}
        self._cleared = False

    def get(self, key: bytes) -> T | None:
        """The row as of now. Raises CorruptRow."""
        changed = self.changed
        if key in changed:
            return changed[key]
        if self._cleared:
            return None
        if self._kept:
            return self._get_kept(key)
        raw = self._engine.get(self._table, key)
        return None if raw is None else self._decode(raw)

    def remembered(self, key: bytes) -> T | None:
        """The row, if it is in memory and the engine has it so; for mending what rotted there."""
        if self._cleared or key in self.changed:
            return None
        return self._young[key] if key in self._young else self._old.get(key)

    def _get_kept(self, key: bytes) -> T | None:
        if key in self._young:
            return self._young[key]
        if key in self._old:
            value = self._old[key]
        else:
            raw = self._engine.get(self._table, key)
            value = None if raw is None else self._decode(raw)
        self._young[key] = value
        if len(self._young) * 2 >= self._kept:
            self._grow_old()
        return value

    def _grow_old(self) -> None:
        self._old = self._young
        self._young = {}

    def put(self, key: bytes, value: T) -> None:
        """Set a row."""
        self.changed[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a row; no error if it is absent."""
        self.changed[key] = None

    def clear(self) -> None:
        """Remove every row of the table."""
        self.changed.clear()
        self._young.clear()
        self._old.clear()
        self._cleared = True

    def scan(self, start: bytes, end: bytes | None, limit: int) -> list[tuple[bytes, T]]:
        """Up to `limit` rows in order with start <= key < end, as of now. Raises CorruptRow."""
        changes = self._changes_within(start, end)
        # Each change hides at most one row of the engine: with that many more asked for,
        # `limit` unchanged rows come before whatever the engine was not asked for.
        found: list[tuple[bytes, bytes]] = []
        if not self._cleared:
            found = self._engine.scan(self._table, start, end, limit + len(changes))
        if not changes:
            return [(key, self._decode(raw)) for key, raw in found]
        rows = {key: self._decode(raw) for key, raw in found if key not in changes}
        rows.update((key, value) for key, value in changes.items() if value is not None)
        return [(key, rows[key]) for key in sorted(rows)[:limit]]

    def keys(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """Like `scan`, keys only."""
        changes = self._changes_within(start, end)
        found: list[bytes] = []
        if not self._cleared:
            found = self._engine.keys(self._table, start, end, limit + len(changes))
        if not changes:
            return found
        rows = [key for key in found if key not in changes]
        rows += [key for key, value in changes.items() if value is not None]
        return sorted(rows)[:limit]

    def _changes_within(self, start: bytes, end: bytes | None) -> dict[bytes, T | None]:
        return {
            key: value
            for key, value in self.changed.items()
            if key >= start and (end is None or key < end)
        }

    def drain(self, into: list[StorageOperation]) -> None:
        """Append what changed to `into`; from here on it counts as written."""
        table, changed = self._table, self.changed
        if self._cleared:
            into.append(DeleteRange(table, b"", END))
            self._cleared = False
        if not changed:
            return
        encode = self._encode
        for key, value in changed.items():
            if value is None:
                into.append(Delete(table, key))
            else:
                into.append(Put(table, key, encode(value)))
        if self._kept:
            self._young.update(changed)
            if len(self._young) * 2 >= self._kept:
                self._grow_old()
        self.changed = {}
