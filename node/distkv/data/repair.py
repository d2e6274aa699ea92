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
from distkv.coding.layout import shard_bytes, shard_of, stripe_count, stripe_length
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
from distkv.machine.interface import Record

PATIENCE = 8.0
"""Nobody waits for a rebuilt shard, and a second question costs its bytes again."""


@dataclass(slots=True)
class RepairLimits:
    """How fast, and how patient. Rates in bytes per second, read and written."""

    bytes_per_second: float = 64e6
    settle_seconds: float = 2.0
    """A value named this recently may still be on its way here; it is not missing yet."""
    pass_seconds: float = 60.0
    """Pause between two passes over all records."""
    records_per_step: int = 256
    step_seconds: float = 0.01
    """Pause between two steps of a pass, so that requests go in between."""
    value_seconds: float = 30.0
    """One value may take this long before it is put off to the next pass."""
    queue: int = 4096


@dataclass(slots=True)
class RepairProgress:
    """For status and metrics. `missing`: of the last complete pass, less what was rebuilt;
    it means nothing before `surveyed`."""

    passes: int = 0
    scanned: int = 0
    """Records looked at in the pass under way."""
    missing: int = 0
    surveyed: bool = False
    """All records were looked at once since the start: what is missing is known."""
    missing_bytes: int = 0
    """About how many bytes those lack here."""
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
        self.busy = False
        """The pass under way has found something missing."""
        self._kernel = kernel
        self._applied = applied
        self._own = own
        self._keeper = keeper
        self._reader = reader
        self._pace = pace
        self._first: deque[ValueId] = deque()
        self._queued: dict[ValueId, None] = {}
        self._unmended: dict[ValueId, None] = {}
        """Missing since the last pass, and could not be rebuilt at once: the next pass counts."""
        self._overlooked: int | None = None
        """Slot of the first value that no queue had room for, until a whole pass was made."""
        self._passing: int | None = None
        """The same of the pass under way, which will have looked at it."""
        self._recent: deque[tuple[float, int, ValueId]] = deque()
        self._settling: dict[ValueId, None] = {}
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
        """Shards known to be missing here; None: not counted yet."""
        if not self.progress.surveyed:
            return None
        return max(self.progress.missing, len(self._queued) + len(self._unmended))

    def counted(self, applied: int) -> int:
        """The slot up to which `missing` counts what was named; later values may still be on
        their way here. `applied`: the newest of which the events were handed over."""
        ends = [applied]
        if self._recent:
            ends.append(self._recent[0][1] - 1)
        ends += [slot - 1 for slot in (self._overlooked, self._passing) if slot is not None]
        return min(ends)

    @property
    def seconds_left(self) -> float | None:
        """Until nothing is missing, at the present rate; None: not known."""
        if not self.progress.surveyed:
            return None
        left = self.progress.missing_bytes if self.missing else 0
        return self.progress.meter.seconds_left(self._kernel.now, left)

    # -- what to look at

    def want(self, value_id: ValueId) -> None:
        """A read missed this shard, or it was found rotten: before all others."""
        if value_id not in self._queued and len(self._queued) < self.limits.queue:
            self._queued[value_id] = None
            self._first.append(value_id)
            self._wakeup.set_result(None)

    def named(self, value_id: ValueId, slot: int) -> None:
        """A record names a value: look after a while whether its shard arrived here.

        What is named before the start is being caught up with: the first pass looks at it.
        """
        if not self.tasks:
            return
        if len(self._recent) >= self.limits.queue:
            self._overlook(slot)
            return
        self._recent.append((self._kernel.now + self.limits.settle_seconds, slot, value_id))
        self._settling[value_id] = None
        self._arm()

    def _overlook(self, slot: int) -> None:
        """What is missing of this value, only a whole pass can tell."""
        self._overlooked = slot if self._overlooked is None else min(slot, self._overlooked)

    def _arm(self) -> None:
        if self._recent and not self._recent_armed:
            self._recent_armed = True
            self._kernel.call_at(self._recent[0][0], self._look_at_recent)

    def _look_at_recent(self) -> None:
        self._recent_armed = False
        while self._recent and self._recent[0][0] <= self._kernel.now:
            _, slot, value_id = self._recent.popleft()
            self._settling.pop(value_id, None)
            record = self._record(value_id)[1]
            if record is not None and self.lacking(value_id, record):
                self.want(value_id)
                if value_id not in self._queued:
                    self._overlook(slot)
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
                mended = await self.repair(value_id)
                self._queued.pop(value_id, None)
                if not mended:
                    self._put_off(value_id)
            self._wakeup = Future()
            await self._wakeup

    def _put_off(self, value_id: ValueId) -> None:
        """It stays missing until the next pass."""
        record = self._record(value_id)[1]
        if record is None:
            return
        if len(self._unmended) < self.limits.queue:
            self._unmended[value_id] = None
        else:
            self._overlook(record.slot)

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
        if not progress.surveyed:
            await self._survey()
        progress.scanned = 0
        self._passing, self._overlooked = self._overlooked, None
        before = list(self._unmended)
        missing, missing_bytes, start = 0, 0, b""
        while True:
            packed = self._applied.values(start, limits.records_per_step)
            for raw in packed:
                progress.scanned += 1
                value_id = ValueId.unpack(raw)
                if self._is_recent(value_id):
                    continue
                if not await self.repair(value_id):
                    missing += 1
                    missing_bytes += self._lacking_bytes(value_id)
                    progress.missing = max(progress.missing, missing)
                    progress.missing_bytes = max(progress.missing_bytes, missing_bytes)
            if len(packed) < limits.records_per_step:
                break
            start = packed[-1] + b"\0"
            await self._kernel.sleep(limits.step_seconds)
        progress.passes += 1
        self._passing = None
        for value_id in before:
            self._unmended.pop(value_id, None)
        progress.missing = missing
        progress.missing_bytes = missing_bytes
        self.busy = missing > 0

    async def _survey(self) -> None:
        """Count what is missing before the first pass, which may take hours, mends it."""
        limits, start = self.limits, b""
        while True:
            packed = self._applied.values(start, limits.records_per_step)
            for raw in packed:
                value_id = ValueId.unpack(raw)
                record = self._record(value_id)[1]
                if record is not None and not self._is_recent(value_id):
                    self.progress.missing += bool(self.lacking(value_id, record))
                    self.progress.missing_bytes += self._lacking_bytes(value_id)
            if len(packed) < limits.records_per_step:
                break
            start = packed[-1] + b"\0"
            await self._kernel.sleep(limits.step_seconds)
        self.progress.surveyed = True

    def _lacking_bytes(self, value_id: ValueId) -> int:
        """About how many bytes of the own shard are not here."""
        record = record_of(self._applied, value_id)[1]
        if record is None:
            return 0
        stripes = len(self.lacking(value_id, record))
        whole = shard_bytes(record.length, record.stripe_bytes, record.data_shards)
        return whole * stripes // stripe_count(record.length, record.stripe_bytes)

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
        deadline = self._kernel.now + self.limits.value_seconds
        try:
            for stripe in stripes:
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
        self.progress.missing = max(0, self.progress.missing - 1)
        return True

    def _keep(self, key: bytes, record: Record, shard: int, stripe: int, piece: bytes) -> bool:
        value_id = record.value_id
        assert value_id is not None
        if self._keeper.disk_full or self._applied.key_of(value_id) != key:
            return False
        count = stripe_count(record.length, record.stripe_bytes)
        self.progress.rebuilt_bytes += len(piece)
        self.progress.missing_bytes = max(0, self.progress.missing_bytes - len(piece))
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
