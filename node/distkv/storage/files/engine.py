"""The `files` engine: an append-only log with an index in memory.

Every batch is one record of the log; a row is read back with one pread and its checksum.
Memory: about 150 bytes and the key for each row, and values up to `cache_bytes` long.
The owner calls `compact_step` when it has time, see compaction.py.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from pathlib import Path

from distkv.storage.base import (
    Delete,
    DeleteRange,
    Framing,
    Put,
    StorageError,
    StorageOperation,
    Table,
    Usage,
)
from distkv.storage.checksum import crc32c
from distkv.storage.directories import make_directory
from distkv.storage.files.compaction import Compaction
from distkv.storage.files.format import ENTRY, KILL, KILL_RANGE, PUT, pack_range_tail
from distkv.storage.files.framing import FramingCheck
from distkv.storage.files.index import (
    LENGTH_SHIFT,
    MASK,
    OFFSET_SHIFT,
    SEGMENT_SHIFT,
    Index,
    Rows,
    View,
    reader,
)
from distkv.storage.files.log import Log, LogOptions
from distkv.storage.files.recovery import recover
from distkv.storage.files.segment import find_segments
from distkv.storage.lock import DirectoryLock

SEGMENT_BYTES = 64 << 20
SEGMENT_BYTES_MIN = 1 << 20
SEGMENTS_MIN = 16
"""A small file system holds at least so many: only of a sealed one is space given back."""
RESERVE_BYTES = 4 << 20
CACHED_VALUE_BYTES = 256
RANGE_ROWS = 16
"""A range delete that removes at most so many rows is logged row by row."""
MAX_KEY_BYTES = 0xFFFF

_Undo = list[tuple[Rows, bytes, int | None]]


def _segment_bytes(directory: Path) -> int:
    state = os.statvfs(directory)
    share = state.f_blocks * state.f_frsize // SEGMENTS_MIN
    return max(SEGMENT_BYTES_MIN, min(SEGMENT_BYTES, share))


class FilesEngine:
    """See base.Engine. All but `flush` belong to one thread."""

    name = "files"
    framed = True

    def __init__(
        self,
        directory: Path,
        segment_bytes: int | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        cached_value_bytes: int = CACHED_VALUE_BYTES,
    ) -> None:
        """Open or create. `reserve_bytes`: space that only deletions and compaction may use;
        `segment_bytes`: None for what suits the file system.

        Raises StorageError: the directory is in use, damaged beyond use, or of a later version.
        """
        make_directory(directory)
        options = LogOptions(segment_bytes or _segment_bytes(directory), reserve_bytes)
        self.reserve_bytes = reserve_bytes
        self._lock = DirectoryLock(directory)
        try:
            found = recover(find_segments(directory))
            self._log = Log(directory, found.segments, found.sequence, options)
        except BaseException:
            self._lock.release()
            raise
        self.torn_bytes = found.cut
        """Bytes of unfinished batches that opening removed."""
        segments = self._log.segments
        read = reader(segments, self._log.descriptors.get)
        self._index = Index(found.tables, segments, read)
        self._cached_value_bytes = cached_value_bytes
        self._compaction = Compaction(self._index, self._log)
        self._framing = FramingCheck(self._log)
        self._closed = False

    def _rows(self, table: Table) -> Rows:
        if self._closed:
            raise StorageError("this engine is closed")
        return self._index.tables[table]

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""
        rows = self._rows(table)
        value = rows.cache.get(key)
        if value is not None:
            return value
        place = rows.places.get(key)
        if place is None:
            return None
        value = self._index.value(table, key, place)
        if len(value) <= self._cached_value_bytes:
            rows.cache[key] = value
        return value

    def reread(self, table: Table, key: bytes) -> bytes | None:
        """The row from its file, past the caches. Raises CorruptRow."""
        place = self._rows(table).places.get(key)
        if place is None:
            return None
        length = place >> LENGTH_SHIFT & MASK
        self._log.forget_pages(place >> SEGMENT_SHIFT, place >> OFFSET_SHIFT & MASK, length)
        return self._index.value(table, key, place)

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        """Up to `limit` keys in order with start <= key < end."""
        return self._rows(table).keys.range(start, end, limit)

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows in key order with start <= key < end. Raises CorruptRow."""
        found = []
        for key in self.keys(table, start, end, limit):
            value = self.get(table, key)
            assert value is not None
            found.append((key, value))
        return found

    def count(self, table: Table) -> int:
        """Number of live rows, exact."""
        return len(self._rows(table).places)

    def write(self, batch: Sequence[StorageOperation]) -> int:
        """Apply atomically, in order; see base.Engine."""
        if self._closed:
            raise StorageError("this engine is closed")
        number, first = self._log.begin()
        undo: _Undo = []
        names: list[bytes] = []
        values: list[bytes] = []
        tables, index, cached = self._index.tables, self._index, self._cached_value_bytes
        segment, offset, growing = number << SEGMENT_SHIFT, first, False
        put = index.put
        try:
            for operation in batch:
                if type(operation) is Put:
                    table, key, value = operation
                    rows, length, crc = tables[table], len(value), crc32c(value)
                    place = segment | offset << OFFSET_SHIFT | length << LENGTH_SHIFT | crc
                    old = put(rows, key, place, length)
                    undo.append((rows, key, old))
                    killed = 0 if old is None else old >> SEGMENT_SHIFT
                    names += (ENTRY.pack(PUT, table, len(key), length, crc, killed), key)
                    values.append(value)
                    if length <= cached:
                        rows.cache[key] = value
                    elif old is not None:
                        rows.cache.pop(key, None)
                    offset += length
                    growing = True
                elif type(operation) is Delete:
                    self._delete(tables[operation.table], operation.key, names, undo)
                else:
                    assert type(operation) is DeleteRange
                    self._delete_range(tables[operation.table], operation, names, undo)
            if names:
                self._log.append(values, offset - first, b"".join(names), len(undo), growing)
        except BaseException as error:
            self._undo(undo)
            if isinstance(error, struct.error):
                raise ValueError(f"a key is over the limit of {MAX_KEY_BYTES} bytes") from error
            raise
        return offset - first

    def _delete(self, rows: Rows, key: bytes, names: list[bytes], undo: _Undo) -> None:
        old = rows.places.get(key)
        if old is None:
            return
        names.append(ENTRY.pack(KILL, rows.table, len(key), 0, 0, old >> SEGMENT_SHIFT))
        names.append(key)
        undo.append((rows, key, old))
        self._index.replace(rows, key, old, None)

    def _delete_range(
        self, rows: Rows, operation: DeleteRange, names: list[bytes], undo: _Undo
    ) -> None:
        _, start, end = operation
        if max(len(start), len(end)) > MAX_KEY_BYTES:
            raise ValueError(f"a key is over the limit of {MAX_KEY_BYTES} bytes")
        few = rows.keys.range(start, end, RANGE_ROWS + 1)
        if len(few) <= RANGE_ROWS:
            for key in few:
                self._delete(rows, key, names, undo)
            return
        removed = self._index.remove_range(rows, start, end)
        undo += [(rows, key, old) for key, old in removed]
        numbers = sorted({old >> SEGMENT_SHIFT for _, old in removed})
        tail = pack_range_tail(end, numbers)
        names.append(ENTRY.pack(KILL_RANGE, rows.table, len(start), len(tail), 0, 0))
        names.append(start)
        names.append(tail)

    def _undo(self, undo: _Undo) -> None:
        for rows, key, old in reversed(undo):
            self._index.replace(rows, key, rows.places.get(key), old)
            rows.cache.pop(key, None)

    def flush(self) -> None:
        """Return when everything written before the call is durable. Any thread.

        Raises StorageError; after that all writes are refused until the engine is reopened.
        """
        self._log.flush()

    def compact_step(self, budget_bytes: int = 256 << 10) -> bool:
        """One bounded piece of compaction; see compaction.py. True: call again soon."""
        if self._closed:
            raise StorageError("this engine is closed")
        return self._compaction.step(budget_bytes)

    def make_room(self) -> None:
        """`compact_step` does it."""

    def check_framing(self, position: int, budget_bytes: int) -> Framing:
        """Read headers, batch ends, directories and hints again; see framing.py."""
        if self._closed:
            raise StorageError("this engine is closed")
        return self._framing.step(position, budget_bytes)

    def view(self) -> View:
        """A consistent picture of all tables as of now."""
        self._rows(Table.META)
        return View(self._index)

    def usage(self) -> Usage:
        """Sizes in bytes."""
        return Usage(self._index.live, self._log.size, self._log.free())

    def close(self) -> None:
        """Flush, leave the mark that everything is durable, release files and lock."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._log.failure is None:
                self._log.flush()
                self._log.mark_clean()
        finally:
            self._log.close()
            self._lock.release()
