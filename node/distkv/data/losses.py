"""Values of which more shards are gone than their code bears: known, listed, never hidden.

Gone means that every member which may hold a shard has answered that it does not, or was
removed from the cluster; a silent member may still hold one, so its silence is not loss. What
is listed stays, over restarts too, until the value is overwritten, deleted, or found again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgpack

from distkv.data.ports import Applied
from distkv.ids import ValueId
from distkv.storage.base import CorruptRow, Delete, Engine, Put, StorageOperation, Table

LISTED_MAX = 100_000
"""Beyond it losses are counted, and not listed."""

FORMAT = 1
_ROW = b"lost."
_PAGE = 1000


class Lost(NamedTuple):
    """`shards`: known to exist, of the stripe that has the fewest. `since_ms`: since 1970, by
    the clock of the node that found out."""

    key: bytes
    value_id: ValueId
    shards: int
    data_shards: int
    since_ms: int


class Losses:
    """The list of one node. Rows in META: b"lost." + value id."""

    def __init__(self, engine: Engine, applied: Applied, wall_ms: Callable[[], int]) -> None:
        self._engine = engine
        self._applied = applied
        self._wall_ms = wall_ms
        self._known: dict[ValueId, Lost] = {}
        self.unlisted = 0
        """Losses found while the list was full."""
        self.writes: list[StorageOperation] = []

    def load(self) -> None:
        """Read the list; what no record names any more is taken off it."""
        start, self._known = _ROW, {v: x for v, x in self._known.items() if self._named(v)}
        while True:
            keys = self._engine.keys(Table.META, start, _ROW + b"\xff" * 21, _PAGE)
            for key in keys:
                self._load_one(key)
            if len(keys) < _PAGE:
                return
            start = keys[-1] + b"\0"

    def _named(self, value_id: ValueId) -> bool:
        return self._applied.key_of(value_id) is not None

    def _load_one(self, key: bytes) -> None:
        value_id = ValueId.unpack(key[len(_ROW) :])
        try:
            raw = self._engine.get(Table.META, key)
        except CorruptRow:
            raw = None
        if raw is None or self._applied.key_of(value_id) is None:
            self.writes.append(Delete(Table.META, key))
            return
        version, *fields = msgpack.unpackb(raw)
        if version == FORMAT:
            name, shards, data_shards, since_ms = fields
            self._known[value_id] = Lost(name, value_id, shards, data_shards, since_ms)

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, value_id: ValueId) -> bool:
        return value_id in self._known

    def listing(self, limit: int) -> list[Lost]:
        """The first `limit`, in the order they were found."""
        return [lost for lost, _ in zip(self._known.values(), range(limit), strict=False)]

    def note(self, value_id: ValueId, shards: int, data_shards: int) -> None:
        """Everybody has answered, and the value that a record still names cannot be rebuilt."""
        key = self._applied.key_of(value_id)
        known = self._known.get(value_id)
        if key is None or (known is not None and known.shards == shards):
            return
        if known is None and len(self._known) >= LISTED_MAX:
            self.unlisted += 1
            return
        since = self._wall_ms() if known is None else known.since_ms
        lost = self._known[value_id] = Lost(key, value_id, shards, data_shards, since)
        row = msgpack.packb((FORMAT, key, shards, data_shards, lost.since_ms))
        self.writes.append(Put(Table.META, _ROW + value_id.pack(), row))

    def off(self, value_id: ValueId) -> None:
        """It was overwritten, deleted, or found again."""
        if self._known and self._known.pop(value_id, None) is not None:
            self.writes.append(Delete(Table.META, _ROW + value_id.pack()))

    def drain_writes(self) -> list[StorageOperation]:
        """Rows for the batch of this turn."""
        writes, self.writes = self.writes, []
        return writes
