"""Pull repair: every node rebuilds what it lacks of its own shards, from k others.

One rule covers a wiped disk, a node that was away during a write, and a rotten piece: the
record says which shard this seat should hold; what is missing of it is fetched and coded.
Everything is idempotent: pieces rebuilt before a crash are found again by the next pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from distkv.coding.checksum import checksum
from distkv.coding.codec import CodingError
from distkv.coding.layout import shard_of, stripe_count, stripe_length
from distkv.data.census import record_of
from distkv.data.gather import Gather, ShardsGone, rebuilder
from distkv.data.messages import Code, ShardPiece
from distkv.data.meter import Meter
from distkv.data.pace import Pace
from distkv.data.ports import Applied
from distkv.data.reader import Reader
from distkv.data.shards import ShardKeeper
from distkv.ids import ZERO_BALLOT, Member, ValueId
from distkv.kernel import Future, Kernel, Task, TimedOut
from distkv.machine.interface import Named, Record

PATIENCE = 8.0
"""Nobody waits for a rebuilt shard, and a second question costs its bytes again."""


@dataclass(slots=True)
class RepairLimits:
    """How fast, and how patient. Rates in bytes per second, read and written."""

    bytes_per_second: float = 64e6
    """To begin with: `Pace.limit` changes it."""
    settle_seconds: float = 2.0
    """A value named this recently may still be on its way here; it is not missing yet."""
    pass_seconds: float = 60.0
    """Pause between two passes over all records."""
    records_per_step: int = 256
    step_seconds: float = 0.01
    """Pause between two steps of a pass, so that requests go in between."""
    patience_seconds: float = 30.0
    """A value is put off to the next pass when nothing of it came for this long."""
    queue: int = 4096


@dataclass(slots=True)
class RepairProgress:
    """For status and metrics, since the start."""

    passes: int = 0
    scanned: int = 0
    """Records looked at in the pass under way."""
    rebuilt: int = 0
    rebuilt_bytes: int = 0
    fetched_bytes: int = 0
    meter: Meter = field(default_factory=Meter)
    """Of rebuilt bytes."""
    unrepairable: int = 0
    """Values that could not be rebuilt at the last try: too few shards answered."""


class Repairer:
    """See the module. `start` once the node serves; `hurry` when what failed may succeed."""

    def __init__(
        self,
        kernel: Kernel,
        applied: Applied,
        own: Member,
        keeper: ShardKeeper,
        reader: Reader,
        pace: Pace,
        limits: RepairLimits | None = None,
    ) -> None:
        self.limits = limits or RepairLimits()
        self.progress = RepairProgress()
        self.on_lost: Callable[[ValueId, ShardsGone, int], None] | None = None
        """Too few shards of a value answered: on_lost(value id, what is missing, k_e)."""
        self._kernel = kernel
        self._applied = applied
        self._own = own
        self._keeper = keeper
        self._reader = reader
        self._pace = pace
        self._first: deque[ValueId] = deque()
        self._queued: dict[ValueId, None] = {}
        self._recent: deque[tuple[float, int, ValueId]] = deque()
        self._settling: dict[ValueId, None] = {}
        """Named a moment ago, and this seat is due a shard that may still be on its way."""
        self._recent_armed = False
        self._wakeup: Future[None] = Future()
        self._hurry: Future[None] = Future()
        self.tasks: list[Task[None]] = []

    def start(self) -> None:
        """Begin; runs until `stop`."""
        self.tasks = [self._kernel.spawn(self._serve()), self._kernel.spawn(self._scan())]

    def stop(self) -> None:
        """End both loops; nothing needs to be saved."""
        for task in self.tasks:
            task.cancel()

    @property
    def missing(self) -> int | None:
        """Shards that should be here and are not, but for those that may still be on their way.

        Counted, not searched for: so many records name a shard of this seat (`Applied.due`), so
        many of those are complete. None: a flood of records was just superseded, or this node
        is in no layout yet, as far as it knows: others may know better, and count on it.
        """
        standing = self._keeper.standing()
        if standing is None or self._own not in self._applied.members:
            return None
        due, _ = self._applied.due(self._own)
        if due > standing:
            due -= sum(not self._keeper.holds(value_id) for value_id in self._settling)
            standing = self._keeper.standing() or 0  # looking may have found rot, and counted it
        return max(0, due - standing)

    @property
    def missing_bytes(self) -> int | None:
        """About how many bytes those have."""
        missing = self.missing
        due, size = self._applied.due(self._own)
        return missing and size * missing // max(1, due)

    def counted(self, applied: int) -> int:
        """The slot up to which `missing` counts what was named; later values may still be on
        their way here. `applied`: the newest of which the events were handed over."""
        return min(applied, self._recent[0][1] - 1) if self._recent else applied

    @property
    def seconds_left(self) -> float | None:
        """Until nothing is missing, at the present rate; None: not known."""
        left = self.missing_bytes
        return None if left is None else self.progress.meter.seconds_left(self._kernel.now, left)

    # -- what to look at

    def want(self, value_id: ValueId) -> None:
        """A read missed this shard, or it was found rotten: before all others."""
        if value_id not in self._queued and len(self._queued) < self.limits.queue:
            self._queued[value_id] = None
            self._first.append(value_id)
            self._wakeup.set_result(None)

    def named(self, event: Named) -> None:
        """A record names a value: look after a while whether its shard arrived here.

        What is named before the start is being caught up with: the first pass looks at it. So
        it does at what the queue has no room for.
        """
        if not self.tasks or len(self._recent) >= self.limits.queue:
            return
        when = self._kernel.now + self.limits.settle_seconds
        self._recent.append((when, event.slot, event.value_id))
        layout = None if event.record is None else self._applied.layout(event.record.epoch)
        if layout is not None and layout.is_voter(self._own):
            self._settling[event.value_id] = None
        self._arm()

    def superseded(self, value_id: ValueId) -> None:
        """Its shard is not waited for any more."""
        self._settling.pop(value_id, None)

    def reloaded(self) -> None:
        """The applied state has jumped, and no events said what became of these."""
        key_of = self._applied.key_of
        self._settling = {v: None for v in self._settling if key_of(v) is not None}

    def _arm(self) -> None:
        if self._recent and not self._recent_armed:
            self._recent_armed = True
            self._kernel.call_at(self._recent[0][0], self._look_at_recent)

    def _look_at_recent(self) -> None:
        self._recent_armed = False
        while self._recent and self._recent[0][0] <= self._kernel.now:
            _, _, value_id = self._recent.popleft()
            self._settling.pop(value_id, None)
            record = self._record(value_id)[1]
            if record is not None and self.lacking(value_id, record):
                self.want(value_id)
        self._arm()

    def lacking(self, value_id: ValueId, record: Record) -> list[int]:
        """Stripes of this seat's shard that are not here. Nothing, if the seat has no shard."""
        ordinal = self._own.ordinal
        if record.value_id != value_id or not 0 <= ordinal < record.size:
            return []
        layout = self._applied.layout(record.epoch)
        if layout is None or not layout.is_voter(self._own):
            return []
        shard = shard_of(ordinal, value_id, record.size)
        count = stripe_count(record.length, record.stripe_bytes)
        return self._keeper.missing(value_id, shard, count)

    # -- the loops

    async def _serve(self) -> None:
        """Values that somebody waits for, or that are known to be missing."""
        while True:
            while self._first:
                value_id = self._first.popleft()
                await self.repair(value_id)  # if it fails, the next pass tries again
                self._queued.pop(value_id, None)
            self._wakeup = Future()
            await self._wakeup

    async def _scan(self) -> None:
        """All records, again and again."""
        while True:
            self._hurry = Future()
            await self.scan_once()
            with suppress(TimedOut):
                await self._kernel.within(self._kernel.now + self.limits.pass_seconds, self._hurry)

    def hurry(self) -> None:
        """A member came up, or the disk has room: begin the next pass now."""
        self._hurry.set_result(None)

    async def scan_once(self) -> None:
        """One pass over the records of the engine, in the order of value ids."""
        progress, limits = self.progress, self.limits
        progress.scanned = 0
        start = b""
        while True:
            packed = self._applied.values(start, limits.records_per_step)
            for raw in packed:
                progress.scanned += 1
                value_id = ValueId.unpack(raw)
                if not self._is_recent(value_id):
                    await self.repair(value_id)
            if len(packed) < limits.records_per_step:
                break
            start = packed[-1] + b"\0"
            await self._kernel.sleep(limits.step_seconds)
        progress.passes += 1

    def _is_recent(self, value_id: ValueId) -> bool:
        """Named a moment ago: its last pieces may still be under way."""
        return value_id in self._settling

    # -- one value

    def _record(self, value_id: ValueId) -> tuple[bytes | None, Record | None]:
        """Key and record that name a value; no record if its row is rotten."""
        key, record = record_of(self._applied, value_id)
        if key is not None and record is None:
            self.progress.unrepairable += 1
        return key, record

    async def repair(self, value_id: ValueId) -> bool:
        """Rebuild what is lacking. False: it could not be done now (another pass will try)."""
        key, record = self._record(value_id)
        if key is None or record is None:
            return key is None
        stripes = self.lacking(value_id, record)
        if not stripes:
            return True
        shard = shard_of(self._own.ordinal, value_id, record.size)
        self._keeper.drop_misplaced(value_id, shard, record)
        gather = Gather(
            self._reader,
            record,
            rebuilder(record, shard),
            stripes,
            use_own=False,
            patience=PATIENCE,
        )
        try:
            for stripe in stripes:
                deadline = self._kernel.now + self.limits.patience_seconds
                piece = await self._kernel.within(deadline, gather.next())
                if not self._keep(key, record, shard, stripe, piece):
                    return self._applied.key_of(value_id) is None
                await self._pace.spend(len(piece) * (1 + record.data_shards))
        except (ShardsGone, CodingError, TimedOut) as error:
            self.progress.unrepairable += 1
            if isinstance(error, ShardsGone) and self.on_lost is not None:
                self.on_lost(value_id, error, record.data_shards)
            return self._applied.key_of(value_id) is None
        finally:
            gather.close()
            self.progress.fetched_bytes += gather.received_bytes
        self.progress.rebuilt += 1
        return True

    def _keep(self, key: bytes, record: Record, shard: int, stripe: int, piece: bytes) -> bool:
        value_id = record.value_id
        assert value_id is not None
        if self._keeper.disk_full or self._applied.key_of(value_id) != key:
            return False
        count = stripe_count(record.length, record.stripe_bytes)
        self.progress.rebuilt_bytes += len(piece)
        self.progress.meter.add(self._kernel.now, len(piece))
        self._keeper.receive(
            self._own,
            ShardPiece(
                value_id,
                shard,
                stripe,
                count if stripe == count - 1 else 0,
                Code(record.data_shards, record.size, record.stripe_bytes),
                record.epoch,
                ZERO_BALLOT,
                record.slot,
                key,
                stripe_length(record.length, record.stripe_bytes, stripe),
                checksum(piece),
                piece,
            ),
            stripes=count,
        )
        return True
