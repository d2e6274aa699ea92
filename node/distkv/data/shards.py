"""The shards of this node: taken, judged, kept durable, given back, dropped when garbage."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from distkv.coding.checksum import checksum
from distkv.data.grace import STEP, Grace
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
from distkv.data.shelf import Counters, Shelf
from distkv.ids import Member, ValueId
from distkv.kernel import Kernel
from distkv.machine.interface import (
    BarrierRaised,
    Booted,
    ConfigurationChanged,
    Event,
    Named,
    Record,
    Settled,
    Superseded,
)
from distkv.storage.base import Engine, StorageOperation

HELD_BACK_MAX = 1024
"""Repair pieces that wait for their slot, whatever their size."""


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
        self._applied = applied
        self._own = own
        self.limits = limits or KeeperLimits()
        self.shelf = Shelf(engine, self._is_named)
        self.disk_full = False
        """Set by the member: new pieces are refused."""
        self.on_doubt: Callable[[Member, str, str], None] | None = None
        """on_doubt(sender, kind of member.suspicions, detail): what no sound peer sends."""
        self._grace = Grace(
            kernel,
            self.limits.grace_seconds,
            self.limits.grace_bytes,
            self.shelf.supersede,
            self._drop,
        )
        self._held_back: list[tuple[Member, ShardPiece]] = []
        self._held_back_bytes = 0
        self._replies: list[Addressed] = []
        self._stored: list[tuple[int, ValueId]] = []

    def _is_named(self, value_id: ValueId) -> bool:
        return value_id in self._grace.new or self._applied.key_of(value_id) is not None

    @property
    def counters(self) -> Counters:
        """For status and metrics."""
        return self.shelf.counters

    def holds(self, value_id: ValueId) -> bool:
        """Whether the shard here is complete."""
        shard = self.shelf.find(value_id)
        return shard is not None and shard.header.complete

    def standing(self) -> int | None:
        """Complete shards of values that a record names; None while more values were just
        superseded than can be looked at in one go."""
        new = self._grace.new
        if len(new) > STEP:
            return None
        found = [self.shelf.find(value_id) for value_id in list(new)]  # may find rot, and count it
        return self.counters.standing - sum(s is not None and s.standing for s in found)

    # -- start

    def load(self) -> None:
        """Rebuild the tables from headers and from the applied state.

        A value that is ruled out but not named may have been superseded just before the
        stop, so it gets its grace anew. One that is still possible waits for its barrier,
        boot, settled or removal entry like before. Called again when the applied state has
        jumped (a snapshot was installed).
        """
        for value_id, shard in self.shelf.load(self._load_one).items():
            verdict = self._judge(value_id, shard.header)
            shard.named = verdict is Verdict.NAMED
            self.shelf.count(shard.header, shard.named)
            self.shelf.keep(value_id, shard)
            if verdict is Verdict.RULED_OUT and not shard.superseded:
                self._grace.add(value_id)

    def _load_one(self, value_id: ValueId, header: Header) -> None:
        verdict = self._judge(value_id, header)
        self.shelf.count(header, verdict is Verdict.NAMED)
        if verdict is Verdict.NAMED and header.complete:
            return
        self.shelf.add(value_id, header, verdict is Verdict.NAMED)
        if verdict is Verdict.RULED_OUT:
            self._grace.add(value_id)

    def _judge(self, value_id: ValueId, header: Header) -> Verdict:
        return judge(self._applied, value_id, header.stamp, header.epoch)

    # -- arriving pieces

    def receive(self, sender: Member, piece: ShardPiece, stripes: int = 0) -> None:
        """Take, hold back or refuse a piece; the answer comes out of a `drain_...`.

        `stripes`: how many the value has, if known (a shard may lack only its first ones).
        """
        if stripes and (shard := self.shelf.shards.get(piece.value_id)) is not None:
            shard.header = shard.header._replace(stripes=stripes)
        if self.disk_full:
            self._refuse(sender, piece, Refusal.DISK_FULL)
        elif piece.repair_slot:
            self._receive_repair(sender, piece)
        elif sender.incarnation != piece.value_id.incarnation:
            self._doubt(sender, "foreign_value", f"a piece of {piece.value_id}")
            self._refuse(sender, piece, Refusal.NOT_MEMBER)
        else:
            verdict = judge(self._applied, piece.value_id, piece.stamp, piece.epoch)
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

    def _doubt(self, sender: Member, kind: str, detail: str) -> None:
        self.counters.wrong += 1
        if self.on_doubt is not None and sender != self._own:
            self.on_doubt(sender, kind, detail)

    def _refuse(self, sender: Member, piece: ShardPiece, reason: Refusal) -> None:
        self.counters.refused += 1
        answer = ShardRefused(piece.value_id, piece.shard, reason)
        self._replies.append(Addressed(sender.ordinal, stream_of(piece.value_id), answer))

    def _take(self, sender: Member, piece: ShardPiece, named: bool) -> None:
        value_id = piece.value_id
        if not well_formed(piece):
            kind = "malformed_piece" if checksum(piece.piece) == piece.crc else "bad_checksum"
            self._doubt(sender, kind, f"stripe {piece.stripe} of {value_id}")
            self._refuse(sender, piece, Refusal.BUSY)
            return
        shelf, shard = self.shelf, self.shelf.find(value_id)
        if shard is None:
            if not named and shelf.pending >= self.limits.pending:
                self._refuse(sender, piece, Refusal.BUSY)
                return
            shard = shelf.begin(piece, named)
        elif shard.header.shard != piece.shard or shard.header.code != piece.code:
            self._doubt(sender, "equivocation", f"two shards of {value_id} for this node")
            self._refuse(sender, piece, Refusal.BUSY)
            return
        shelf.store(value_id, shard, piece)
        if shard.header.complete:
            self._stored.append((sender.ordinal, value_id))

    def _drop(self, value_id: ValueId) -> None:
        shard = self.shelf.find(value_id)
        if shard is None:
            return
        assert self._applied.key_of(value_id) is None, "a named shard is never dropped"
        self.counters.dropped += 1
        self.shelf.remove(value_id, shard)

    def drop_misplaced(self, value_id: ValueId, shard_number: int, record: Record) -> bool:
        """Drop a shard that is not the one its record puts here: nobody would ask for it."""
        shard = self.shelf.find(value_id)
        if shard is None:
            return False
        code = shard.header.code
        right = (record.data_shards, record.size, record.stripe_bytes)
        if shard.header.shard == shard_number and tuple(code) == right:
            return False
        self.counters.misplaced += 1
        self.shelf.remove(value_id, shard)
        return True

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
        shard = self.shelf.shards.get(event.value_id)
        if shard is not None and not shard.named:
            self.shelf.name(event.value_id, shard)

    def _sweep(self) -> None:
        """Drop what the applied state now rules out."""
        for value_id, shard in list(self.shelf.shards.items()):
            if shard.named or shard.superseded:
                continue
            if self._judge(value_id, shard.header) is Verdict.RULED_OUT:
                self._drop(value_id)

    def on_dropped(self, sender: Member, message: ShardDropped) -> None:
        """A coordinator gives up values of its own that it never submitted."""
        for value_id in message.value_ids:
            foreign = sender.incarnation != value_id.incarnation
            if foreign or self._applied.key_of(value_id) is not None:
                kind = "foreign_value" if foreign else "impossible_drop"
                self._doubt(sender, kind, f"it gives up {value_id}")
            else:
                shard = self.shelf.shards.get(value_id)
                if shard is not None and not shard.superseded:
                    self._drop(value_id)

    # -- reading

    def read(self, value_id: ValueId, stripe: int) -> Piece | Found:
        """The stored piece, or GONE, or CORRUPT: then it was dropped for repair to refill."""
        return self.shelf.read(value_id, stripe)

    def missing(self, value_id: ValueId, shard_number: int, stripes: int) -> list[int]:
        """Stripes that this node lacks of its shard; all of them if it holds another shard."""
        shard = self.shelf.find(value_id)
        if shard is None or shard.header.shard != shard_number:
            return list(range(stripes))
        if shard.header.complete:
            return []
        return [stripe for stripe in range(stripes) if not shard.present >> stripe & 1]

    @property
    def pending(self) -> int:
        """Shards that no record names (not yet, or no longer)."""
        return self.shelf.pending

    # -- turns

    @property
    def has_output(self) -> bool:
        """Whether the `drain_...` functions would give anything."""
        return bool(self.shelf.writes or self._replies or self._stored)

    def drain_writes(self) -> list[StorageOperation]:
        """Rows for the member's atomic batch of this turn."""
        return self.shelf.drain_writes()

    def drain_replies(self) -> list[Addressed]:
        """Refusals; they promise nothing, so they may leave at once."""
        replies, self._replies = self._replies, []
        return replies

    def drain_stored(self, turn: int) -> list[Addressed]:
        """Acknowledgements that may leave once `turn` is durable. Ends the turn."""
        self.end_turn(turn)
        stored, self._stored = self._stored, []
        shards = self.shelf.shards
        found = [(ordinal, value_id, shards.get(value_id)) for ordinal, value_id in stored]
        return [
            Addressed(ordinal, stream_of(value_id), ShardStored(value_id, shard.header.shard))
            for ordinal, value_id, shard in found
            if shard is not None and shard.header.complete
        ]

    def end_turn(self, turn: int) -> None:
        """What is stored from now on is of a later turn."""
        self.shelf.end_turn(turn)

    def flushed(self, turn: int) -> None:
        """Everything up to the batch of `turn` is durable."""
        self.shelf.flushed(turn)
