"""Scrubbing: every row on disk is read again and its checksum verified, within a period.

Disks lose bits without saying so, and what nobody reads nobody misses until the other shards
are gone as well. So all tables are walked in order, row by row, past every cache, and then
whatever else the engine has in its files, as evenly over the period as their bytes allow. Where a
walk fails (RocksDB, at a damaged block) it goes on at the next place from which one succeeds. How
far a round has come is written down now and then; after a restart it goes on from there, and
the time that was lost is caught up with.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import msgpack

from distkv.data import rows
from distkv.data.pace import Pace
from distkv.data.ports import Coordinator
from distkv.kernel import Kernel, Task
from distkv.storage.base import CorruptRow, Engine, Put, StorageFull, Table

TABLES = (
    Table.META,
    Table.LOG,
    Table.STATE,
    Table.RECORD,
    Table.NAME,
    Table.EXPIRY,
    Table.SHARD,
)
FRAMING = len(TABLES)
"""Index after the last table: what is on disk besides rows, if the engine has such things."""
FORMAT = 1
PLACE_BYTES = 32
"""Places behind a damaged one are looked for with so many bytes, or one more than the row has."""
GROWTHS_MAX = HALVES_MAX = 256
"""Of the distance at which they are looked for."""
ROW = b"scrub"
"""Row of META: (format, rounds, began ms, index of the table, key or position, bytes of this
round)."""


@dataclass(slots=True)
class ScrubLimits:
    """Seconds, bytes."""

    period: float = 7 * 86400.0
    """Within this time every row is read again."""
    step_bytes: int = 256 << 10
    """Read in one go, before requests get their turn."""
    step_rows: int = 64
    save_seconds: float = 30.0
    """How often the position is written down."""
    pause_seconds: float = 1.0
    """Longest pause between two steps, and until a round of few bytes is looked at again."""


@dataclass(slots=True)
class ScrubProgress:
    """Of the round under way, and since the start."""

    rounds: int = 0
    """Complete ones, also of earlier starts."""
    began_ms: int = 0
    """When this round began, by the clock of this node."""
    done_bytes: int = 0
    total_bytes: int = 0
    """Of all that is to be read in this round, now."""
    rows: int = 0
    rotten: dict[str, int] = field(default_factory=dict)
    """Rows found rotten since the start, by table; FRAMING: damaged places besides rows."""
    mended: int = 0
    """Of the latter, written again."""

    @property
    def share(self) -> float:
        """0..1 of the round."""
        return min(1.0, self.done_bytes / self.total_bytes) if self.total_bytes else 0.0


class Scrubber:
    """`on_rot(table, key, unreadable)`: called for each rotten row, which somebody else mends.
    Not unreadable: the engine finds it sound, and its own checksum does not.
    `on_lost_framing(places)`: damage besides rows that the engine cannot mend."""

    def __init__(
        self,
        kernel: Kernel,
        engine: Engine,
        coordinator: Coordinator,
        pace: Pace,
        on_rot: Callable[[Table, bytes, bool], None],
        on_lost_framing: Callable[[int], None],
        limits: ScrubLimits | None = None,
    ) -> None:
        self.limits = limits or ScrubLimits()
        self.progress = ScrubProgress()
        self._kernel = kernel
        self._engine = engine
        self._coordinator = coordinator
        self._pace = pace
        self._on_rot = on_rot
        self._on_lost_framing = on_lost_framing
        self._table = 0
        self._start = b""
        self._behind: bytes | None = None
        """The last place found behind a damaged one."""
        self._saved_at = 0.0
        self.tasks: list[Task[None]] = []

    def start(self) -> None:
        """Begin where the last process stopped; runs until `stop`."""
        if not self.tasks:
            self._load()
            self.tasks = [self._kernel.spawn(self._run())]

    def stop(self) -> None:
        """End; the position of the last save counts."""
        for task in self.tasks:
            task.cancel()

    def _load(self) -> None:
        progress = self.progress
        progress.began_ms = self._coordinator.wall_ms()
        try:
            raw = self._engine.get(Table.META, ROW)
        except CorruptRow:
            raw = None
        if raw is None:
            return
        version, *fields = msgpack.unpackb(raw)
        if version == FORMAT and 0 <= fields[2] <= FRAMING:
            progress.rounds, began, self._table, self._start, progress.done_bytes = fields
            # A clock that was set back must not let a round last longer than its period.
            progress.began_ms = min(began, progress.began_ms)

    def _save(self) -> None:
        progress = self.progress
        self._saved_at = self._kernel.now
        row = msgpack.packb(
            (
                FORMAT,
                progress.rounds,
                progress.began_ms,
                self._table,
                self._start,
                progress.done_bytes,
            )
        )
        try:
            self._engine.write([Put(Table.META, ROW, row)])
        except StorageFull:
            return  # an older position is read again, that is all

    # -- rounds

    async def _run(self) -> None:
        while True:
            size = self._step()
            if self._kernel.now - self._saved_at >= self.limits.save_seconds:
                self._save()
            await self._pace.spend(size)
            await self._kernel.sleep(self._pause(size))

    def _pause(self, size: int) -> float:
        """So long that the rest of the round fills the rest of the period."""
        progress, limits = self.progress, self.limits
        usage = self._engine.usage()
        framing = usage.on_disk if self._engine.framed else 0
        progress.total_bytes = max(usage.live + framing, 1)
        elapsed = (self._coordinator.wall_ms() - progress.began_ms) / 1000
        remaining = max(limits.period - max(0.0, elapsed), limits.period / 1000)
        # What is live changes meanwhile, so the rest is an estimate; never a tiny one.
        least = min(limits.step_bytes, progress.total_bytes / 8)
        left = max(progress.total_bytes - progress.done_bytes, least)
        return min(limits.pause_seconds * 60, remaining * size / left)

    def _step(self) -> int:
        """Read some rows; how many bytes."""
        if self._table == FRAMING:
            return self._check_framing()
        table, damaged, size = TABLES[self._table], None, 0
        try:
            keys = self._engine.keys(table, self._start, None, self.limits.step_rows)
            last = len(keys) < self.limits.step_rows
        except CorruptRow as rot:
            damaged, last = max(rot.key, self._start), False
            keys = self._before(table, damaged)
        for key in keys:
            self._start = key + b"\0"
            size += self._look(table, key)
            if size >= self.limits.step_bytes and key != keys[-1]:
                last, damaged = False, None  # what is damaged is met again
                break
        self.progress.done_bytes += size
        if damaged is not None:
            size += self._skip(table, damaged, bool(keys))
        elif last:
            self._next_table()
        return max(size, 1)

    def _before(self, table: Table, key: bytes) -> list[bytes]:
        """The last keys that a walk reaches, when it fails behind `key`."""
        if key <= self._start:
            return []
        try:
            return [*self._engine.keys(table, self._start, key, self.limits.step_rows), key]
        except CorruptRow:
            return []

    def _skip(self, table: Table, key: bytes, gained: bool) -> int:
        """A walk does not get past this row, which may be sound itself: on behind what is damaged.
        The rows of a damaged block are left out, and what `place_behind` passes over; all others of
        the table, if the place found behind the last one lets no walk go on (not `gained`)."""
        if table is Table.SHARD:
            self._on_lost_framing(1)
        else:
            self._rotten(table, key, False)
        behind = None
        if gained or self._start != self._behind:
            behind = place_behind(self._start, lambda place: self._walks_from(table, place))
        if behind is None:
            self._next_table()
        else:
            self._start = self._behind = behind
        return len(key) + 1

    def _walks_from(self, table: Table, place: bytes) -> bool:
        try:
            self._engine.keys(table, place, None, 1)
        except CorruptRow:
            return False
        return True

    def _check_framing(self) -> int:
        position = int.from_bytes(self._start, "big")
        found = self._engine.check_framing(position, self.limits.step_bytes)
        progress = self.progress
        if found.damaged:
            progress.rotten["FRAMING"] = progress.rotten.get("FRAMING", 0) + found.damaged
            progress.mended += found.mended
        if found.damaged > found.mended:
            self._on_lost_framing(found.damaged - found.mended)
        progress.done_bytes += found.read
        self._start = found.next.to_bytes(8, "big")
        if not found.next:
            self._next_table()
        return max(found.read, 1)

    def _look(self, table: Table, key: bytes) -> int:
        self.progress.rows += 1
        try:
            row = self._engine.reread(table, key)
        except CorruptRow:
            self._rotten(table, key, True)
            return len(key)
        if row is None:
            return len(key)
        if table is Table.SHARD and not _sound(key, row):
            self._rotten(table, key, False)
        return len(key) + len(row)

    def _rotten(self, table: Table, key: bytes, unreadable: bool) -> None:
        rotten = self.progress.rotten
        rotten[table.name] = rotten.get(table.name, 0) + 1
        self._on_rot(table, key, unreadable)

    def _next_table(self) -> None:
        self._start = b""
        self._table += 1
        if self._table == FRAMING and self._engine.framed:
            return
        if self._table >= FRAMING:
            self._table = 0
            self.progress.rounds += 1
            self.progress.began_ms = self._coordinator.wall_ms()
            self.progress.done_bytes = 0
            self._save()


def place_behind(start: bytes, walks_from: Callable[[bytes], bool]) -> bytes | None:
    """A place above `start`, where `walks_from` does not hold, at which it does; None: none was
    found. The nearest, unless damage follows on damage: then what lies between may be left out,
    however much that is, until the first is mended. Asks for 512 places at most."""
    width = max(len(start) + 1, PLACE_BYTES)
    first, end = int.from_bytes(start.ljust(width, b"\0"), "big"), 1 << 8 * width

    def holds(place: int) -> bool:
        return walks_from(place.to_bytes(width, "big").rstrip(b"\0"))

    # From the nearest on, because there may be other damage further away ...
    leap = max(1, 8 * width // GROWTHS_MAX)
    low, high, distance = first, min(first + 1, end - 1), 1
    while not holds(high):
        if high == end - 1:
            return None
        distance <<= leap
        low, high = high, min(first + distance, end - 1)
    # ... and then by halves back to where it begins.
    for _ in range(HALVES_MAX):
        middle = (low + high) // 2
        if middle == low:
            break
        if holds(middle):
            high = middle
        else:
            low = middle
    return high.to_bytes(width, "big").rstrip(b"\0")


def _sound(key: bytes, row: bytes) -> bool:
    """Whether a row of a shard is what the checksum inside it says."""
    try:
        if key[:1] == rows.HEADERS:
            rows.unpack_header(row)
            return True
        return rows.is_sound(rows.unpack_piece(row))
    except rows.UnknownFormat:
        return True  # a later version's, and for it to judge
    except struct.error:
        return False
