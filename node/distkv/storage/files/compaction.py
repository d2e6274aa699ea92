"""Giving back the space of dead rows, a bounded piece at a time.

Policy: a sealed and flushed segment is a candidate when its live rows are at most half of it;
the one with the lowest live share goes first, of equals the oldest. Its live rows are copied
to the end of the log (as ordinary batches), and once the copies are flushed, by whoever
flushes next, the file is unlinked. A crash at any point leaves either both (the copy is later
and equal, so it counts) or the copy alone.

What else must survive the segment: its entries also say which row in which older segment is
dead. An entry that replaced or removed a row of segment s is needed as long as s exists: else
a reopening would find the old row alive again. So for each such entry, whether its own row
is live or not, a KILL naming s is copied. The copy of a live row itself kills the original.
A row of segment s that was killed from a later segment never comes back to life (whatever
puts the key again does so in a later segment), so KILL needs no sequence number.

Pace: compaction keeps up if the bytes of all budgets are at least the bytes written, so call
`step` after each flush with what was written since the last call, and while idle until it
returns False. A step of the default budget takes about a millisecond.

Space: a full copy needs as much free space as the live rows; a segment without any goes at
once. While a view is open no file is unlinked, for the view may still read it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from distkv.storage.base import CorruptRow, StorageFull, Table
from distkv.storage.files.format import (
    ENTRY,
    KILL,
    KILL_RANGE,
    PUT,
    Entry,
    Frame,
    entries,
    pack_range_tail,
    unpack_range_tail,
)
from distkv.storage.files.index import Index, location
from distkv.storage.files.log import Log
from distkv.storage.files.recovery import read_tolerant, walk
from distkv.storage.files.segment import Segment

MAX_LIVE_SHARE = 0.5
MAX_STEP_ENTRIES = 256
"""Directory entries looked at in one step: bounds its time when nearly all rows are dead."""
WORTHWHILE_SHARE = 64
"""After a search found no candidate, 1/64 segment of rows must die before the next one."""


class Compaction:
    """State of the segment being compacted. Owner thread only."""

    def __init__(self, index: Index, log: Log) -> None:
        self._index = index
        self._log = log
        self._victim: Segment | None = None
        self._entries: Iterator[Entry] = iter(())
        self._retired: list[tuple[int, Segment]] = []
        self._idle_at: tuple[int, int] | None = None
        self._worthwhile = log.segment_bytes // WORTHWHILE_SHARE

    def step(self, budget_bytes: int) -> bool:
        """Copy rows of about `budget_bytes`, or unlink what is done. True: there is more now.

        False: nothing to do until more rows die, a flush completes, or a view is closed.
        Raises StorageError; StorageFull is not raised: the step is tried again later.
        """
        self._log.check()
        if self._remove_retired():
            return True
        if self._victim is None and not self._choose():
            return False
        try:
            self._copy(budget_bytes)
        except StorageFull:
            self._victim = None  # start again when space is back; the copies made stay valid
            return False
        return True

    def _remove_retired(self) -> bool:
        removed = False
        while (
            self._retired and self._retired[0][0] <= self._log.durable and not self._index.overlays
        ):
            _, segment = self._retired.pop(0)
            assert segment.live == 0
            self._log.remove(segment)
            removed = True
        return removed

    def _choose(self) -> bool:
        busy = self._log.busy()
        dead, sealed = self._log.size - self._index.live, len(self._log.segments) - len(busy)
        if self._idle_at is not None:
            before, segments = self._idle_at
            if segments == sealed and abs(dead - before) < self._worthwhile:
                return False
        self._idle_at = None
        retired = {segment.number for _, segment in self._retired}
        best, share = None, MAX_LIVE_SHARE
        for number, segment in self._log.segments.items():
            if number in busy or number in retired:
                continue
            if segment.skipped_at is not None and segment.live >= segment.skipped_at:
                continue
            its = segment.live / segment.size
            # Of equals the oldest: the fewer older segments, the fewer KILLs must be kept.
            if its < share or (best is None and its == share):
                best, share = segment, its
        if best is None:
            self._idle_at = dead, sealed
            return False
        listed = best.frames
        frames: Iterable[Frame] | None = best.read_hint() if listed is None else listed
        if frames is None:
            where = str(best.path)
            found = walk(read_tolerant(best.path), best.salt, where)
            frames = whole = [frame for frame in found if isinstance(frame, Frame)]
            if len(whole) < len(found) or any(frame.directory is None for frame in whole):
                best.skipped_at = 0  # its hint is gone and it is damaged: leave it be
                return True
        self._victim = best
        self._entries = (entry for frame in frames for entry in entries(frame))
        return True

    def _copy(self, budget_bytes: int) -> None:
        """Look at the next entries of the victim and copy what must survive it."""
        victim = self._victim
        assert victim is not None
        number, first = self._log.begin()
        moved: dict[tuple[int, bytes], tuple[int, int]] = {}
        names: list[bytes] = []
        values: list[bytes] = []
        offset, finished = first, True
        for seen, entry in enumerate(self._entries, 1):
            kind, table, key, at, length, crc, killed, _ = entry
            rows = self._index.tables[table]
            if kind == PUT:
                place = location(victim.number, at, length, crc)
                # Twice the same place: an empty value put twice by one batch.
                if rows.places.get(key) == place and (table, key) not in moved:
                    value = self._value(rows.table, key, place, victim)
                    if value is None:
                        return
                    names += (ENTRY.pack(PUT, table, len(key), length, crc, victim.number), key)
                    values.append(value)
                    moved[table, key] = place, location(number, offset, length, crc)
                    offset += length
            if kind == KILL_RANGE:
                self._keep_range(entry, names)
            elif killed != 0 and killed != victim.number and self._log.exists(killed):
                names += (ENTRY.pack(KILL, table, len(key), 0, 0, killed), key)
            if offset - first >= budget_bytes or seen >= MAX_STEP_ENTRIES:
                finished = False
                break
        if names:
            self._log.append(values, offset - first, b"".join(names), len(moved), False)
            for (table, key), (old, new) in moved.items():
                self._index.replace(self._index.tables[table], key, old, new)
        if finished:
            self._victim = None
            # The batch after the victim must be durable too: see recovery.py, `_judge`.
            self._retired.append((max(self._log.sequence, victim.last_sequence + 1), victim))

    def _value(self, table: Table, key: bytes, place: int, victim: Segment) -> bytes | None:
        try:
            return self._index.value(table, key, place)
        except CorruptRow:
            # Copying would lose the evidence: keep the file, so that reads go on saying so.
            victim.skipped_at = victim.live
            self._victim = None
            return None

    def _keep_range(self, entry: Entry, names: list[bytes]) -> None:
        assert self._victim is not None
        end, numbers = unpack_range_tail(entry.tail)
        alive = [n for n in numbers if n != self._victim.number and self._log.exists(n)]
        if alive:
            tail = pack_range_tail(end, alive)
            names.append(ENTRY.pack(KILL_RANGE, entry.table, len(entry.key), len(tail), 0, 0))
            names += (entry.key, tail)
