"""The shards of this node: taken, judged, kept durable, given back, dropped when garbage.

In memory are only shards that something may still happen to: not yet named by a record, or
incomplete, in their grace, changed and not yet flushed. Others are found by their header row.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from distkv.coding.checksum import checksum
from distkv.data import rows
from distkv.data.grace import Grace
from distkv.data.judge import Verdict, is_member, judge, well_formed
from distkv.data.messages import (
    Found,
    Refusal,
    ShardDropped,
    ShardPiece,
    ShardRefused,
    ShardStored,
)
from distkv.data.ports import Addressed, Applied, stream_of
from distkv.data.rows import Header, Piece
from distkv.ids import Member, ValueId
from distkv.kernel import Kernel
from distkv.machine.interface import (
    BarrierRaised,
    Booted,
    ConfigurationChanged,
    Event,
    Named,
    Settled,
    Superseded,
)
from distkv.storage.base import (
    CorruptRow,
    Delete,
    DeleteRange,
    Engine,
    Put,
    StorageOperation,
    Table,
)

HELD_BACK_MAX = 1024
"""Repair pieces that wait for their slot, whatever their size."""

_PAGE = 512
_POINT_DELETES = 16
"""Up to this many stripes are deleted one by one: range tombstones slow every later read."""


@dataclass(slots=True)
class KeeperLimits:
    """Bounds; going past one is an answer, never a wait."""

    grace_seconds: float = 30.0
    """How long a superseded shard stays for reads under way: at least the read deadline."""
    grace_bytes: int = 256 << 20
    pending: int = 1 << 16
    """Shards not (yet) named by a record."""
    held_back_bytes: int = 16 << 20
    """Repair pieces that wait for their slot."""


@dataclass(slots=True)
class Counters:
    """Since the start, but `held`, `pieces_bytes`: what is there now."""

    held: int = 0
    piece_bytes: int = 0
    corrupt: int = 0
    wrong: int = 0
    """Pieces that arrived with a wrong checksum or shape, or from the wrong sender."""
    refused: int = 0
    dropped: int = 0


@dataclass(slots=True)
class _Shard:
    header: Header
    present: int
    """Bit s: stripe s is stored."""
    named: bool
    superseded: bool = False
    changed: int = -1
    """Number of the last turn that wrote rows of it, until flushed; -1: none."""


class ShardKeeper:
    """See the module. One for each member; `load` before anything else."""

    def __init__(
        self,
        kernel: Kernel,
        engine: Engine,
        applied: Applied,
        own: Member,
        limits: KeeperLimits | None = None,
    ) -> None:
        self._engine = engine
        self._applied = applied
        self._own = own
        self.limits = limits or KeeperLimits()
        self.counters = Counters()
        self.disk_full = False
        """Set by the member: new pieces are refused."""
        self.on_named: Callable[[ValueId, bytes], None] | None = None
        """Called for each value that a record now names (for repair)."""
        self.on_rotten: Callable[[ValueId], None] | None = None
        """Called for each value of which a piece was found rotten."""
        self._shards: dict[ValueId, _Shard] = {}
        self._gone: dict[ValueId, int] = {}
        """Dropped, but the engine may still show it: turn that deletes it."""
        self._pending = 0
        self._grace = Grace(
            kernel,
            self.limits.grace_seconds,
            self.limits.grace_bytes,
            self._begin_grace,
            self._drop,
        )
        self._held_back: list[tuple[Member, ShardPiece]] = []
        self._held_back_bytes = 0
        self._writes: list[StorageOperation] = []
        self._replies: list[Addressed] = []
        self._stored: list[tuple[int, ValueId]] = []
        self._turn = 0
        self._flushed = 0
        self._unflushed: deque[tuple[int, list[ValueId]]] = deque()
        self._touched: list[ValueId] = []

    # -- start

    def load(self) -> None:
        """Rebuild the tables from headers and from the applied state.

        A value that is ruled out but not named may have been superseded just before the
        stop, so it gets its grace anew. One that is still possible waits for its barrier,
        boot, settled or removal entry like before. Called again when the applied state has
        jumped (a snapshot was installed).
        """
        known, self._shards, self._pending = self._shards, {}, 0
        self.counters.held = self.counters.piece_bytes = 0
        start: bytes | None = rows.HEADERS
        while start is not None:
            start = self._load_page(start, known)
        for value_id, shard in known.items():
            self._count(shard.header)
            verdict = judge(self._applied, value_id, shard.header.stamp)
            shard.named = verdict is Verdict.NAMED
            self._keep(value_id, shard)
            if verdict is Verdict.RULED_OUT and not shard.superseded:
                self._grace.add(value_id)

    def _load_page(self, start: bytes, known: dict[ValueId, _Shard]) -> bytes | None:
        """One page of headers; where the next begins. A shard with a rotten header is dropped."""
        keys = self._engine.keys(Table.SHARD, start, None, _PAGE)
        for key in keys:
            value_id = rows.value_of(key)
            if value_id in known or value_id in self._gone:
                continue
            try:
                row = self._engine.get(Table.SHARD, key)
            except CorruptRow:
                self.counters.corrupt += 1
                self._delete_rows(value_id, 0)
                continue
            if row is not None:
                self._load_one(value_id, row)
        return keys[-1] + b"\0" if len(keys) == _PAGE else None

    def _count(self, header: Header) -> None:
        self.counters.held += header.complete
        self.counters.piece_bytes += header.piece_bytes

    def _load_one(self, value_id: ValueId, row: bytes) -> None:
        header = rows.unpack_header(row)
        self._count(header)
        verdict = judge(self._applied, value_id, header.stamp)
        if verdict is Verdict.NAMED and header.complete:
            return
        self._keep(value_id, self._shard_of(value_id, header, verdict is Verdict.NAMED))
        if verdict is Verdict.RULED_OUT:
            self._grace.add(value_id)

    def _shard_of(self, value_id: ValueId, header: Header, named: bool) -> _Shard:
        if header.complete:
            return _Shard(header, (1 << header.stripes) - 1, named)
        present = 0
        start, end = rows.piece_range(value_id)
        while keys := self._engine.keys(Table.SHARD, start, end, _PAGE):
            for key in keys:
                present |= 1 << rows.stripe_of(key)
            start = keys[-1] + b"\0"
        return _Shard(header, present, named)

    # -- arriving pieces

    def receive(self, sender: Member, piece: ShardPiece, stripes: int = 0) -> None:
        """Take, hold back or refuse a piece; the answer comes out of a `drain_...`.

        `stripes`: how many the value has, if known (a shard may lack only its first ones).
        """
        if stripes and (shard := self._shards.get(piece.value_id)) is not None:
            shard.header = shard.header._replace(stripes=stripes)
        if self.disk_full:
            self._refuse(sender, piece, Refusal.DISK_FULL)
        elif piece.repair_slot:
            self._receive_repair(sender, piece)
        elif sender.incarnation != piece.value_id.incarnation:
            self.counters.wrong += 1
            self._refuse(sender, piece, Refusal.NOT_MEMBER)
        else:
            verdict = judge(self._applied, piece.value_id, piece.stamp)
            if verdict is not Verdict.RULED_OUT:
                self._take(sender, piece, verdict is Verdict.NAMED)
            elif is_member(self._applied, sender.incarnation):
                self._refuse(sender, piece, Refusal.STALE)
            else:
                self._refuse(sender, piece, Refusal.NOT_MEMBER)

    def _receive_repair(self, sender: Member, piece: ShardPiece) -> None:
        if self._applied.key_of(piece.value_id) is not None:
            self._take(sender, piece, named=True)
        elif self._applied.applied >= piece.repair_slot:
            self._refuse(sender, piece, Refusal.STALE)
        elif (
            self._held_back_bytes + len(piece.piece) > self.limits.held_back_bytes
            or len(self._held_back) >= HELD_BACK_MAX
        ):
            self._refuse(sender, piece, Refusal.BUSY)
        else:
            self._held_back.append((sender, piece))
            self._held_back_bytes += len(piece.piece)

    def _refuse(self, sender: Member, piece: ShardPiece, reason: Refusal) -> None:
        self.counters.refused += 1
        answer = ShardRefused(piece.value_id, piece.shard, reason)
        self._replies.append(Addressed(sender.ordinal, stream_of(piece.value_id), answer))

    def _take(self, sender: Member, piece: ShardPiece, named: bool) -> None:
        value_id = piece.value_id
        if not well_formed(piece):
            self.counters.wrong += 1
            self._refuse(sender, piece, Refusal.BUSY)
            return
        shard = self._find(value_id)
        if shard is None:
            if not named and self._pending >= self.limits.pending:
                self._refuse(sender, piece, Refusal.BUSY)
                return
            header = Header(
                False, piece.shard, piece.code, 0, piece.epoch, piece.repair_slot, piece.stamp, 0
            )
            shard = self._keep(value_id, _Shard(header, 0, named))
        elif shard.header.shard != piece.shard or shard.header.code != piece.code:
            self.counters.wrong += 1
            self._refuse(sender, piece, Refusal.BUSY)
            return
        self._store(value_id, shard, piece)
        if shard.header.complete:
            self._stored.append((sender.ordinal, value_id))

    def _store(self, value_id: ValueId, shard: _Shard, piece: ShardPiece) -> None:
        """Write what is new of the piece. A duplicate writes nothing, and is acknowledged."""
        header, first = shard.header, not shard.present
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
        self._touch(value_id, shard)

    # -- tables

    def _find(self, value_id: ValueId) -> _Shard | None:
        """The shard as of now, from memory or from its header row (then not kept)."""
        shard = self._shards.get(value_id)
        if shard is not None or value_id in self._gone:
            return shard
        try:
            row = self._engine.get(Table.SHARD, rows.header_key(value_id))
        except CorruptRow:
            self.counters.corrupt += 1
            self._delete_rows(value_id, 0)
            return None
        if row is None:
            return None
        named = self._applied.key_of(value_id) is not None
        return self._shard_of(value_id, rows.unpack_header(row), named)

    def _keep(self, value_id: ValueId, shard: _Shard) -> _Shard:
        if value_id not in self._shards:
            self._shards[value_id] = shard
            self._pending += not shard.named
        self._gone.pop(value_id, None)
        return shard

    def _forget(self, value_id: ValueId) -> None:
        shard = self._shards.pop(value_id, None)
        if shard is not None:
            self._pending -= not shard.named

    def _touch(self, value_id: ValueId, shard: _Shard) -> None:
        self._keep(value_id, shard)
        if shard.changed != self._turn:
            shard.changed = self._turn
            self._touched.append(value_id)

    def _put(self, key: bytes, row: bytes) -> None:
        self._writes.append(Put(Table.SHARD, key, row))

    def _drop(self, value_id: ValueId) -> None:
        shard = self._find(value_id)
        if shard is None:
            return
        assert self._applied.key_of(value_id) is None, "a named shard is never dropped"
        self.counters.held -= shard.header.complete
        self.counters.piece_bytes -= shard.header.piece_bytes
        self.counters.dropped += 1
        self._forget(value_id)
        self._delete_rows(value_id, shard.header.stripes)

    def _delete_rows(self, value_id: ValueId, stripes: int) -> None:
        if 0 < stripes <= _POINT_DELETES:
            for stripe in range(stripes):
                self._writes.append(Delete(Table.SHARD, rows.piece_key(value_id, stripe)))
        else:
            self._writes.append(DeleteRange(Table.SHARD, *rows.piece_range(value_id)))
        self._writes.append(Delete(Table.SHARD, rows.header_key(value_id)))
        self._gone[value_id] = self._turn
        self._touched.append(value_id)

    # -- what the log and coordinators say

    def on_events(self, events: Iterable[Event]) -> None:
        """Events of entries that were applied, in log order; the state is already after them."""
        sweep = False
        for event in events:
            if isinstance(event, Named):
                self._on_named(event)
            elif isinstance(event, Superseded):
                self._grace.add(event.value_id)
            elif isinstance(event, BarrierRaised | Booted | Settled | ConfigurationChanged):
                sweep = True
        if sweep:
            self._sweep()
        if self._held_back:
            waiting, self._held_back, self._held_back_bytes = self._held_back, [], 0
            for sender, piece in waiting:
                self._receive_repair(sender, piece)

    def _on_named(self, event: Named) -> None:
        shard = self._shards.get(event.value_id)
        if shard is not None and not shard.named:
            shard.named = True
            self._pending -= 1
            self._release(event.value_id, shard)
        if self.on_named is not None:
            self.on_named(event.value_id, event.key)

    def _sweep(self) -> None:
        """Drop what the applied state now rules out."""
        for value_id, shard in list(self._shards.items()):
            if shard.named or shard.superseded:
                continue
            if judge(self._applied, value_id, shard.header.stamp) is Verdict.RULED_OUT:
                self._drop(value_id)

    def on_dropped(self, sender: Member, message: ShardDropped) -> None:
        """A coordinator gives up values of its own that it never submitted."""
        for value_id in message.value_ids:
            foreign = sender.incarnation != value_id.incarnation
            if foreign or self._applied.key_of(value_id) is not None:
                self.counters.wrong += 1
            else:
                shard = self._shards.get(value_id)
                if shard is not None and not shard.superseded:
                    self._drop(value_id)

    def _begin_grace(self, value_id: ValueId) -> int | None:
        shard = self._find(value_id)
        if shard is None or shard.superseded:
            return None
        shard.superseded = True
        return shard.header.piece_bytes

    # -- reading

    def read(self, value_id: ValueId, stripe: int) -> Piece | Found:
        """The stored piece, or GONE, or CORRUPT: then it was dropped for repair to refill."""
        shard = self._shards.get(value_id)
        if value_id in self._gone or (shard is not None and not shard.present >> stripe & 1):
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
        self._lose(value_id, stripe)
        return Found.CORRUPT

    def _lose(self, value_id: ValueId, stripe: int) -> None:
        """A piece is rotten: the shard is incomplete from here on."""
        self.counters.corrupt += 1
        shard = self._find(value_id)
        self._writes.append(Delete(Table.SHARD, rows.piece_key(value_id, stripe)))
        if shard is None or not shard.present >> stripe & 1:
            return
        self.counters.held -= shard.header.complete
        shard.present &= ~(1 << stripe)
        shard.header = shard.header._replace(complete=False)
        self._put(rows.header_key(value_id), rows.pack_header(shard.header))
        self._touch(value_id, shard)
        if self.on_rotten is not None:
            self.on_rotten(value_id)

    def missing(self, value_id: ValueId, shard_number: int, stripes: int) -> list[int]:
        """Stripes that this node lacks of its shard; all of them if it holds another shard."""
        shard = self._find(value_id)
        if shard is None or shard.header.shard != shard_number:
            return list(range(stripes))
        if shard.header.complete:
            return []
        return [stripe for stripe in range(stripes) if not shard.present >> stripe & 1]

    @property
    def pending(self) -> int:
        """Shards that no record names (not yet, or no longer)."""
        return self._pending

    # -- turns

    def _release(self, value_id: ValueId, shard: _Shard) -> None:
        """Out of memory with a shard that nothing will happen to."""
        if shard.named and shard.header.complete and shard.changed < 0:
            self._forget(value_id)

    @property
    def has_output(self) -> bool:
        """Whether the `drain_...` functions would give anything."""
        return bool(self._writes or self._replies or self._stored)

    def drain_writes(self) -> list[StorageOperation]:
        """Rows for the member's atomic batch of this turn."""
        self._writes, writes = [], self._writes
        return writes

    def drain_replies(self) -> list[Addressed]:
        """Refusals; they promise nothing, so they may leave at once."""
        replies, self._replies = self._replies, []
        return replies

    def drain_stored(self, turn: int) -> list[Addressed]:
        """Acknowledgements that may leave once `turn` is durable. Ends the turn."""
        assert turn > self._turn, "turns are numbered upwards"
        if self._touched:
            self._unflushed.append((self._turn, self._touched))
            self._touched = []
        self._turn = turn
        stored, self._stored = self._stored, []
        found = [(ordinal, value_id, self._shards.get(value_id)) for ordinal, value_id in stored]
        return [
            Addressed(ordinal, stream_of(value_id), ShardStored(value_id, shard.header.shard))
            for ordinal, value_id, shard in found
            if shard is not None and shard.header.complete
        ]

    def flushed(self, turn: int) -> None:
        """Everything up to the batch of `turn` is durable."""
        while self._unflushed and self._unflushed[0][0] < turn:
            changed, value_ids = self._unflushed.popleft()
            for value_id in value_ids:
                if self._gone.get(value_id) == changed:
                    del self._gone[value_id]
                shard = self._shards.get(value_id)
                if shard is not None and shard.changed == changed:
                    shard.changed = -1
                    self._release(value_id, shard)
