"""Shards at rest: their rows in the engine, and in memory those that are still changing.

In memory are only shards that something may still happen to: not yet named by a record, or
incomplete, in their grace, changed and not yet flushed. Others are found by their header row.
Whether a shard may come or go is decided elsewhere (`data.shards`); here it is only done.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from distkv.coding.checksum import checksum
from distkv.data import rows
from distkv.data.messages import Found, ShardPiece
from distkv.data.rows import Header, Piece
from distkv.ids import VALUE_ID_BYTES, ValueId
from distkv.storage.base import (
    CorruptRow,
    Delete,
    DeleteRange,
    Engine,
    Put,
    StorageOperation,
    Table,
)

_PAGE = 512
_POINT_DELETES = 16
"""Up to this many stripes are deleted one by one: range tombstones slow every later read."""


@dataclass(slots=True)
class Counters:
    """Since the start, but `held`, `standing`, `piece_bytes`: what is there now."""

    held: int = 0
    standing: int = 0
    """Complete shards of values that a record names, or named until a moment ago (Grace.new)."""
    piece_bytes: int = 0
    corrupt: int = 0
    wrong: int = 0
    """Pieces that arrived with a wrong checksum or shape, or from the wrong sender."""
    refused: int = 0
    dropped: int = 0
    misplaced: int = 0
    """Shards found under another number or code than their record says, and dropped for it."""


@dataclass(slots=True)
class Shard:
    """What is known of a shard in memory."""

    header: Header
    present: int
    """Bit s: stripe s is stored."""
    named: bool
    superseded: bool = False
    changed: int = -1
    """Number of the last turn that wrote rows of it, until flushed; -1: none."""

    @property
    def standing(self) -> bool:
        """See Counters."""
        return self.header.complete and self.named and not self.superseded


class Shelf:
    """See the module. `is_named(value_id)`: whether a record of the applied state names it, or
    did until a moment ago."""

    def __init__(self, engine: Engine, is_named: Callable[[ValueId], bool]) -> None:
        self._engine = engine
        self._is_named = is_named
        self.counters = Counters()
        self.on_rotten: Callable[[ValueId], None] | None = None
        """Called for each value of which a piece was found rotten."""
        self.shards: dict[ValueId, Shard] = {}
        self.gone: dict[ValueId, int] = {}
        """Dropped, but the engine may still show it: turn that deletes it."""
        self.pending = 0
        """Shards that no record names (not yet, or no longer)."""
        self.writes: list[StorageOperation] = []
        self.turn = 0
        self._unflushed: deque[tuple[int, list[ValueId]]] = deque()
        self._touched: list[ValueId] = []

    # -- start

    def load(self, take: Callable[[ValueId, Header], None]) -> dict[ValueId, Shard]:
        """Forget the table and walk all headers; `take` keeps what matters, by `add`.

        Returns what was in memory before: its rows may not be in the engine yet.
        """
        known, self.shards, self.pending = self.shards, {}, 0
        self.counters.held = self.counters.standing = self.counters.piece_bytes = 0
        start: bytes | None = rows.HEADERS
        while start is not None:
            start = self._load_page(start, known, take)
        return known

    def _load_page(
        self,
        start: bytes,
        known: dict[ValueId, Shard],
        take: Callable[[ValueId, Header], None],
    ) -> bytes | None:
        """One page of headers; where the next begins. A shard with a rotten header is dropped."""
        keys = self._engine.keys(Table.SHARD, start, None, _PAGE)
        for key in keys:
            value_id = rows.value_of(key)
            if value_id in known or value_id in self.gone:
                continue
            try:
                row = self._engine.get(Table.SHARD, key)
            except CorruptRow:
                self.counters.corrupt += 1
                self.delete_rows(value_id, 0)
                continue
            if row is not None:
                take(value_id, rows.unpack_header(row))
        return keys[-1] + b"\0" if len(keys) == _PAGE else None

    def count(self, header: Header, named: bool) -> None:
        """A shard that is there, whose grace has not begun."""
        self.counters.held += header.complete
        self.counters.standing += header.complete and named
        self.counters.piece_bytes += header.piece_bytes

    def add(self, value_id: ValueId, header: Header, named: bool) -> None:
        """Keep a shard of the engine in memory."""
        self.keep(value_id, self._shard_of(value_id, header, named))

    def _shard_of(self, value_id: ValueId, header: Header, named: bool) -> Shard:
        if header.complete:
            return Shard(header, (1 << header.stripes) - 1, named)
        present = 0
        start, end = rows.piece_range(value_id)
        while keys := self._engine.keys(Table.SHARD, start, end, _PAGE):
            for key in keys:
                present |= 1 << rows.stripe_of(key)
            start = keys[-1] + b"\0"
        return Shard(header, present, named)

    # -- tables

    def find(self, value_id: ValueId) -> Shard | None:
        """The shard as of now, from memory or from its header row (then not kept)."""
        shard = self.shards.get(value_id)
        if shard is not None or value_id in self.gone:
            return shard
        try:
            row = self._engine.get(Table.SHARD, rows.header_key(value_id))
        except CorruptRow:
            self._lose_header(value_id)
            return None
        if row is None:
            return None
        return self._shard_of(value_id, rows.unpack_header(row), self._is_named(value_id))

    def _lose_header(self, value_id: ValueId) -> None:
        """The header of a shard that is not in memory, and so complete, is rotten."""
        self.counters.corrupt += 1
        self.counters.held -= 1
        self.counters.standing -= self._is_named(value_id)
        self.delete_rows(value_id, 0)

    def keep(self, value_id: ValueId, shard: Shard) -> Shard:
        """Have it in memory."""
        if value_id not in self.shards:
            self.shards[value_id] = shard
            self.pending += not shard.named
        self.gone.pop(value_id, None)
        return shard

    def forget(self, value_id: ValueId) -> None:
        """Out of memory; its rows stay."""
        shard = self.shards.pop(value_id, None)
        if shard is not None:
            self.pending -= not shard.named

    def name(self, value_id: ValueId, shard: Shard) -> None:
        """A record names it now."""
        shard.named = True
        self.pending -= 1
        self.counters.standing += shard.standing
        self.release(value_id, shard)

    def supersede(self, value_id: ValueId) -> int | None:
        """No record names it any more: its bytes; None if it is not here, or known for that."""
        shard = self.find(value_id)
        if shard is None or shard.superseded:
            return None
        self.counters.standing -= shard.standing
        shard.superseded = True
        return shard.header.piece_bytes

    def release(self, value_id: ValueId, shard: Shard) -> None:
        """Out of memory with a shard that nothing will happen to."""
        if shard.named and shard.header.complete and shard.changed < 0:
            self.forget(value_id)

    def _touch(self, value_id: ValueId, shard: Shard) -> None:
        self.keep(value_id, shard)
        if shard.changed != self.turn:
            shard.changed = self.turn
            self._touched.append(value_id)

    def _put(self, key: bytes, row: bytes) -> None:
        self.writes.append(Put(Table.SHARD, key, row))

    # -- storing and removing

    def begin(self, piece: ShardPiece, named: bool) -> Shard:
        """A shard of which this is the first piece; nothing is stored yet."""
        header = Header(
            False, piece.shard, piece.code, 0, piece.epoch, piece.repair_slot, piece.stamp, 0
        )
        return self.keep(piece.value_id, Shard(header, 0, named))

    def store(self, value_id: ValueId, shard: Shard, piece: ShardPiece) -> None:
        """Write what is new of the piece. A duplicate writes nothing, and is acknowledged."""
        header, first, stood = shard.header, not shard.present, shard.standing
        if piece.last and not header.stripes:
            header = header._replace(stripes=piece.last)
        if not shard.present >> piece.stripe & 1:
            shard.present |= 1 << piece.stripe
            header = header._replace(piece_bytes=header.piece_bytes + len(piece.piece))
            self.counters.piece_bytes += len(piece.piece)
            row = rows.pack_piece(
                header.code, Piece(piece.shard, piece.length, piece.crc, piece.piece)
            )
            self._put(rows.piece_key(value_id, piece.stripe), row)
        complete = bool(header.stripes) and shard.present == (1 << header.stripes) - 1
        if complete and not header.complete:
            self.counters.held += 1
            header = header._replace(complete=True)
        if first or (header.complete and not shard.header.complete):
            self._put(rows.header_key(value_id), rows.pack_header(header))
        shard.header = header
        self.counters.standing += shard.standing - stood
        self._touch(value_id, shard)

    def remove(self, value_id: ValueId, shard: Shard) -> None:
        """Delete all its rows."""
        self.counters.held -= shard.header.complete
        self.counters.standing -= shard.standing
        self.counters.piece_bytes -= shard.header.piece_bytes
        self.forget(value_id)
        self.delete_rows(value_id, shard.header.stripes)

    def delete_rows(self, value_id: ValueId, stripes: int) -> None:
        """`stripes` 0: not known how many."""
        if 0 < stripes <= _POINT_DELETES:
            for stripe in range(stripes):
                self.writes.append(Delete(Table.SHARD, rows.piece_key(value_id, stripe)))
        else:
            self.writes.append(DeleteRange(Table.SHARD, *rows.piece_range(value_id)))
        self.writes.append(Delete(Table.SHARD, rows.header_key(value_id)))
        self.gone[value_id] = self.turn
        self._touched.append(value_id)

    # -- reading

    def read(self, value_id: ValueId, stripe: int) -> Piece | Found:
        """The stored piece, or GONE, or CORRUPT: then it was dropped for repair to refill."""
        shard = self.shards.get(value_id)
        if value_id in self.gone or (shard is not None and not shard.present >> stripe & 1):
            return Found.GONE
        try:
            row = self._engine.get(Table.SHARD, rows.piece_key(value_id, stripe))
            if row is None:
                return Found.GONE
            piece = rows.unpack_piece(row)
            if checksum(piece.piece) == piece.crc:
                return piece
        except (CorruptRow, struct.error):
            pass
        self.lose(value_id, stripe)
        return Found.CORRUPT

    def lose(self, value_id: ValueId, stripe: int) -> None:
        """A piece is rotten: the shard is incomplete from here on."""
        self.counters.corrupt += 1
        shard = self.find(value_id)
        self.writes.append(Delete(Table.SHARD, rows.piece_key(value_id, stripe)))
        if shard is None or not shard.present >> stripe & 1:
            return
        self.counters.held -= shard.header.complete
        self.counters.standing -= shard.standing
        shard.present &= ~(1 << stripe)
        shard.header = shard.header._replace(complete=False)
        self._put(rows.header_key(value_id), rows.pack_header(shard.header))
        self._touch(value_id, shard)
        if self.on_rotten is not None:
            self.on_rotten(value_id)

    def rotten(self, key: bytes) -> None:
        """A row was found rotten by reading it again: mend it, or let repair do so."""
        if key[:1] != rows.HEADERS:
            self.lose(ValueId.unpack(key[:VALUE_ID_BYTES]), rows.stripe_of(key))
            return
        value_id = rows.value_of(key)
        shard = self.shards.get(value_id)
        if shard is not None:
            self.counters.corrupt += 1
            self._put(key, rows.pack_header(shard.header))
            self._touch(value_id, shard)
            return
        if value_id in self.gone:
            self.counters.corrupt += 1
        else:
            self._lose_header(value_id)
        if self.on_rotten is not None:
            self.on_rotten(value_id)

    # -- turns

    def drain_writes(self) -> list[StorageOperation]:
        """Rows for the member's atomic batch of this turn."""
        self.writes, writes = [], self.writes
        return writes

    def end_turn(self, turn: int) -> None:
        """What was written since the last call goes into the batch of `turn`."""
        assert turn > self.turn, "turns are numbered upwards"
        if self._touched:
            self._unflushed.append((self.turn, self._touched))
            self._touched = []
        self.turn = turn

    def flushed(self, turn: int) -> None:
        """Everything up to the batch of `turn` is durable."""
        while self._unflushed and self._unflushed[0][0] < turn:
            changed, value_ids = self._unflushed.popleft()
            for value_id in value_ids:
                if self.gone.get(value_id) == changed:
                    del self.gone[value_id]
                shard = self.shards.get(value_id)
                if shard is not None and shard.changed == changed:
                    shard.changed = -1
                    self.release(value_id, shard)
