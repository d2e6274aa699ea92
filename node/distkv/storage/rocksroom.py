"""Giving back the space of dead rows of a RocksDB whose file system is nearly full.

RocksDB compacts when its levels grow, and with deletions alone they do not. A pass flushes the
memtable, merges the levels, and then moves what is alive out of the oldest blob files, as many at
a time as there is free space for: an input goes only after its outputs are written.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from rocksdict import BottommostLevelCompaction, CompactOptions, Rdict

log = logging.getLogger(__name__)

MARGIN_BYTES = 16 << 20
"""Of what is free, left to the log while a pass writes."""
AGE_CUTOFF = 0.25
"""Share of the blob files, oldest first, that any compaction may collect: RocksDB's default."""
GARBAGE_SHARE = 0.1
"""Of the blob files' bytes; below that a pass ends."""
GAIN_SHARE = 1 / 64
"""Of all bytes; a pass that gives back less was fruitless."""
REST_SECONDS = 1.0
REST_FACTOR = 4
"""A pass is followed by a rest so many times as long, and, unless rows were deleted meanwhile,
twice that for each fruitless one before."""
FRUITLESS_MAX = 6

_TABLE = re.compile(r"^ (\d+):\d+\[.*\] blob_file:(\d+)")
_BLOB = re.compile(
    r"^blob_file_number: (\d+) .*total_blob_bytes: (\d+) .*garbage_blob_bytes: (\d+)"
)


class BlobFile(NamedTuple):
    """Sizes in bytes."""

    number: int
    total: int
    garbage: int


def parse_version(text: str) -> tuple[dict[int, int], list[BlobFile]]:
    """Of the property `rocksdb.sstables`: for each table file that has any, the oldest blob file
    it points to; and the blob files, oldest first."""
    tables, blobs = {}, []
    for line in text.splitlines():
        if found := _TABLE.match(line):
            tables[int(found[1])] = int(found[2])
        elif found := _BLOB.match(line):
            blobs.append(BlobFile(int(found[1]), int(found[2]), int(found[3])))
    return tables, sorted(blobs)


class _Ended(Exception):
    """The pass goes no further: cancelled, or something failed in the background."""


class RoomMaker:
    """At most one pass at a time, in a thread of its own. All methods but `_run` and what it
    calls belong to the engine's owner; the two share only what `threading` guards."""

    def __init__(self, directory: Path, chunk_bytes: int) -> None:
        """`chunk_bytes`: what one compaction below level 0 may write."""
        self._directory = directory
        self._chunk_bytes = chunk_bytes
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()
        self._sequence = -1
        self._ended = 0.0
        self._rest = 0.0
        self._failed = False
        self._deleted = False
        self._fruitless = 0
        self._unfinished = False
        self.passes = 0

    @property
    def running(self) -> bool:
        """Whether a pass is under way."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, database: Rdict) -> None:
        """Begin a pass unless one runs, the last was too lately, or nothing was written since."""
        if self.running or time.monotonic() < self._ended + self._pause():
            return
        sequence = database.latest_sequence_number()
        if sequence == self._sequence and not self._unfinished:
            return
        self._sequence = sequence
        self._deleted = False
        self._cancelled.clear()
        self._thread = threading.Thread(
            target=self._run, args=(database,), name="rocksdb-room", daemon=True
        )
        self._thread.start()

    def note_deletion(self) -> None:
        """A row that may be large was deleted: a pass may be worth the while again."""
        self._deleted = True

    def _pause(self) -> float:
        if self._deleted and not self._failed:
            return self._rest
        return self._rest * 2.0**self._fruitless

    def join(self) -> None:
        """Return when no pass runs."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def cancel(self, database: Rdict) -> None:
        """End a pass; `database` can only be closed afterwards."""
        self._cancelled.set()
        if self.running:
            database.cancel_all_background(True)
        self.join()

    # -- in the thread

    def _run(self, database: Rdict) -> None:
        began = time.monotonic()
        one = _Pass(database, self._directory, self._chunk_bytes, self._cancelled)
        gained = False
        try:
            gained = one.run()
        except _Ended:
            pass
        except Exception:
            if not self._cancelled.is_set():
                log.exception("making room in %s failed", self._directory)
        self._failed = one.errors > 0
        if self._failed and not self._cancelled.is_set():
            # RocksDB's API tells that a compaction failed, but not why; the next write learns it.
            log.warning("making room in %s failed, see RocksDB's LOG there", self._directory)
        self._unfinished = one.unfinished and gained
        more = FRUITLESS_MAX if self._failed else min(self._fruitless + 1, FRUITLESS_MAX)
        self._fruitless = 0 if gained else more
        self._ended = time.monotonic()
        self._rest = max(REST_SECONDS, (self._ended - began) * REST_FACTOR)
        self.passes += 1


class _Pass:
    def __init__(
        self, database: Rdict, directory: Path, chunk_bytes: int, cancelled: threading.Event
    ) -> None:
        self._database = database
        self._directory = directory
        self._chunk_bytes = chunk_bytes
        self._cancelled = cancelled
        self._errors_before = self._number("background-errors")
        self.errors = 0
        self.unfinished = False
        """Blob files are left that there was no space to move."""

    def _number(self, name: str) -> int:
        return self._database.property_int_value(f"rocksdb.{name}") or 0

    def _spare(self) -> int:
        state = os.statvfs(self._directory)
        return state.f_bavail * state.f_frsize - MARGIN_BYTES

    def _bytes(self) -> int:
        return self._number("total-sst-files-size") + self._number("total-blob-file-size")

    def _step(self, work: Callable[[], None]) -> None:
        """Raises _Ended; `compact_range` itself never raises."""
        if self._cancelled.is_set():
            raise _Ended
        try:
            work()
        finally:
            self.errors = self._number("background-errors") - self._errors_before
        if self.errors or self._cancelled.is_set():
            raise _Ended

    def run(self) -> bool:
        """Whether it gave back anything worth the while. Raises _Ended."""
        if self._spare() < self._number("cur-size-all-mem-tables"):
            return False
        self._step(lambda: self._database.flush(True))
        before = self._bytes()
        try:
            if self._merge():
                self._collect()
        finally:
            if not self.errors and not self._cancelled.is_set():
                self._fit_cutoff(self._blobs()[1], self._spare() // 2, AGE_CUTOFF)
        return before - self._bytes() > before * GAIN_SHARE

    def _merge(self) -> bool:
        """All levels into the last one, tombstones and what they hide removed."""
        spare = self._spare()
        levels: dict[int, int] = {}
        for file in self._database.live_files():
            levels[file["level"]] = levels.get(file["level"], 0) + file["size"]
        # Level 0 goes as a whole and with all of the next, the others file by file with what
        # they overlap, which `max_compaction_bytes` limits.
        need = levels[0] + levels.get(self._number("base-level"), 0) if 0 in levels else 0
        need = max(need, self._chunk_bytes if len(levels) > 1 else 0)
        if need > spare:
            log.warning(
                "no room to make room in %s: merging its tables may take %d bytes, free are %d",
                self._directory,
                need,
                spare,
            )
            return False
        self._fit_cutoff(self._blobs()[1], spare - need, AGE_CUTOFF)
        self._step(lambda: self._database.compact_range(None, None))
        return True

    def _blobs(self) -> tuple[dict[int, int], list[BlobFile]]:
        return parse_version(self._database.property_value("rocksdb.sstables") or "")

    def _fit_cutoff(self, blobs: list[BlobFile], spare: int, most: float) -> int:
        """Let compactions collect as many blob files as fit into `spare`; how many."""
        count = 0
        cutoff = most
        for blob in blobs[: int(most * len(blobs))]:
            spare -= blob.total - blob.garbage
            if spare < 0:
                cutoff = (count + 0.5) / len(blobs) if count else 0.0
                break
            count += 1
        self._database.set_options({"blob_garbage_collection_age_cutoff": f"{cutoff:.6f}"})
        return count

    def _collect(self) -> None:
        """Move what is alive in the blob files of now, oldest first, until little is dead."""
        compaction = CompactOptions()
        compaction.set_bottommost_level_compaction(BottommostLevelCompaction.force_optimized())
        tables, blobs = self._blobs()
        last = blobs[-1].number if blobs else 0
        while blobs and blobs[0].number <= last:
            garbage = sum(blob.garbage for blob in blobs)
            if garbage <= GARBAGE_SHARE * sum(blob.total for blob in blobs):
                return
            count = self._fit_cutoff(blobs, self._spare(), 1.0)
            if not count:
                self.unfinished = True
                return
            moved = blobs[count - 1].number
            for file in self._database.live_files():
                number = int(file["name"].strip("/").removesuffix(".sst"))
                if tables.get(number, moved + 1) <= moved:
                    start, end = file["start_key"], file["end_key"]
                    self._step(partial(self._database.compact_range, start, end, compaction))
            first = blobs[0].number
            tables, blobs = self._blobs()
            if blobs and blobs[0].number == first:
                self.unfinished = True  # a table file that came meanwhile points to it
                return
