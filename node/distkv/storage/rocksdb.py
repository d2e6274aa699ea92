"""The `rocksdb` engine: rocksdict with unsynced batches and an explicit flush of its log.

Key: table number (1 byte) and the key. Value: format version (1 byte), CRC-32C of stored key
and value (4 bytes), the value. RocksDB's write-ahead log recovers up to the first damaged
record, torn or rotten, and says nothing of what it dropped; so `flush` notes in the file
`flushed` up to where batches are durable, and opening refuses if less than that came back.
"""

from __future__ import annotations

import logging
import os
import resource
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from rocksdict import (
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
)

from distkv.storage.base import (
    CorruptRow,
    Delete,
    DeleteRange,
    Framing,
    Put,
    StorageError,
    StorageFull,
    StorageOperation,
    Table,
    Usage,
)
from distkv.storage.checksum import crc32c
from distkv.storage.directories import make_directory, sync_directory
from distkv.storage.lock import DirectoryLock
from distkv.storage.rocksroom import AGE_CUTOFF, RoomMaker

log = logging.getLogger(__name__)

ROW_VERSION = 1
WRITE_BUFFER_BYTES = 16 << 20
RESERVE_BYTES = 3 * WRITE_BUFFER_BYTES
"""Free space below which puts are refused: what RocksDB may still write of its own accord."""
SPACE_CHECK_BYTES = 256 << 10
BLOB_BYTES = 16 << 10
"""Values from this size live in blob files: compaction of keys does not rewrite them."""
FILE_BYTES_MIN, TABLE_BYTES_MAX, BLOB_FILE_BYTES_MAX = 2 << 20, 8 << 20, 64 << 20
"""RocksDB writes outputs before it removes inputs, so on a small disk files are small, and of
those on a large one there must not be too many."""
TABLES_TOGETHER = 4
"""As large may one compaction below level 0 be, give or take a table."""
LEVEL_BASE_BYTES = 32 << 20
"""The first level below level 0: merged with that as a whole, hence in need of that space."""
BULKY = (Table.SHARD, Table.RECORD)
EXACT_COUNT = 10_000

_ROW = struct.Struct(">BI")
_MARK = struct.Struct(">4sHQI")
_MARK_MAGIC = b"DKVF"
_PREFIX = [bytes([number]) for number in range(256)]


def _pack(stored_key: bytes, value: bytes) -> bytes:
    return _ROW.pack(ROW_VERSION, crc32c(stored_key + value)) + value


def _unpack(table: Table, stored_key: bytes, row: bytes) -> bytes:
    value = row[_ROW.size :]
    if len(row) < _ROW.size or _ROW.unpack_from(row) != (ROW_VERSION, crc32c(stored_key + value)):
        raise CorruptRow(table, stored_key[1:])
    return value


def _file_bytes(directory: Path) -> tuple[int, int]:
    """Target sizes of table and of blob files."""
    state = os.statvfs(directory)
    disk = state.f_blocks * state.f_frsize
    table = max(FILE_BYTES_MIN, min(TABLE_BYTES_MAX, disk // 64))
    return table, max(table, min(BLOB_FILE_BYTES_MAX, disk // 1024))


def _options(table_bytes: int, blob_file_bytes: int) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_compression_type(DBCompressionType.none())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(1 << 20)
    options.set_enable_blob_files(True)
    options.set_min_blob_size(BLOB_BYTES)
    options.set_blob_file_size(blob_file_bytes)
    options.set_enable_blob_gc(True)
    options.set_blob_gc_age_cutoff(AGE_CUTOFF)
    options.set_target_file_size_base(table_bytes)
    options.set_max_bytes_for_level_base(LEVEL_BASE_BYTES)
    options.set_max_compaction_bytes(TABLES_TOGETHER * table_bytes)
    # RLIM_INFINITY is -1, and so is RocksDB's word for "no limit".
    options.set_max_open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    return options


class _Reader:
    """Reading, the same for the engine and for a view."""

    def _row(self, stored_key: bytes) -> bytes | None:
        raise NotImplementedError

    def _iterator(self, upper: bytes) -> RdictIter:
        """Iterator that may stop before `upper`, and need not."""
        raise NotImplementedError

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""
        stored = _PREFIX[table] + key
        try:
            row = self._row(stored)
        except Exception as error:
            raise _read_error(error, table, key) from error
        return None if row is None else _unpack(table, stored, row)

    def _walk(
        self, table: Table, start: bytes, end: bytes | None, limit: int
    ) -> Iterator[tuple[bytes, RdictIter]]:
        upper = _PREFIX[table + 1] if end is None else _PREFIX[table] + end
        position = _PREFIX[table] + start
        try:
            iterator = self._iterator(upper)
            iterator.seek(position)
            while limit > 0 and iterator.valid():
                position = iterator.key()
                if position >= upper:
                    return
                yield position, iterator
                limit -= 1
                iterator.next()
            iterator.status()
        except StorageError:
            raise
        except Exception as error:
            raise _read_error(error, table, position[1:]) from error

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows in key order with start <= key < end. Raises CorruptRow."""
        return [
            (stored[1:], _unpack(table, stored, iterator.value()))
            for stored, iterator in self._walk(table, start, end, limit)
        ]

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        """Like `scan`, keys only."""
        return [stored[1:] for stored, _ in self._walk(table, start, end, limit)]


def _read_error(error: Exception, table: Table, key: bytes) -> StorageError:
    if isinstance(error, StorageError):
        return error
    text = str(error)
    if "orruption" in text:
        return CorruptRow(table, key)
    return StorageError(f"reading table {table.name} failed: {text}")


def _is_full(text: str) -> bool:
    return "No space left" in text or "NoSpace" in text or "quota exceeded" in text


class RocksView(_Reader):
    """See base.View: one iterator of RocksDB, which sees the moment of its creation.

    Not a `Snapshot`: of that, rocksdict 0.3.29 shows later rows when iterated.
    """

    def __init__(self, database: Rdict, released: Callable[[RocksView], None]) -> None:
        self._rows: RdictIter | None = database.iter(ReadOptions())
        self._released = released

    def _row(self, stored_key: bytes) -> bytes | None:
        iterator = self._iterator(stored_key)
        iterator.seek(stored_key)
        if iterator.valid():
            row: bytes = iterator.value()
            return row if iterator.key() == stored_key else None
        iterator.status()
        return None

    def _iterator(self, upper: bytes) -> RdictIter:
        if self._rows is None:
            raise StorageError("this view is closed")
        return self._rows

    def close(self) -> None:
        """Release it; reading afterwards is an error."""
        if self._rows is not None:
            self._rows = None
            self._released(self)


class RocksEngine(_Reader):
    """See base.Engine. `flush` may run in another thread."""

    name = "rocksdb"
    framed = False

    def __init__(self, directory: Path, reserve_bytes: int = RESERVE_BYTES) -> None:
        """Open or create. Raises StorageError: in use, or durable batches are missing."""
        make_directory(directory)
        self._directory = directory
        self.reserve_bytes = reserve_bytes
        self._path = directory / "rocksdb"
        self._failure: str | None = None
        self._unchecked = SPACE_CHECK_BYTES
        self._views: list[RocksView] = []
        self._stuck = False
        self._damaged = False
        self._sequence = 0
        self._closed = False
        self._flushing = threading.Lock()
        self._file_bytes = _file_bytes(directory)
        self._room = RoomMaker(directory, (TABLES_TOGETHER + 2) * self._file_bytes[0])
        self._lock = DirectoryLock(directory)
        try:
            self._mark = os.open(directory / "flushed", os.O_RDWR | os.O_CREAT, 0o644)
            try:
                self._database = self._open()
                self._check_complete()
                sync_directory(directory)  # RocksDB syncs its own, not the one above
            except BaseException:
                os.close(self._mark)
                raise
        except BaseException:
            self._lock.release()
            raise

    def _open(self) -> Rdict:
        try:
            options = _options(*self._file_bytes)
            options.set_disable_auto_compactions(self._damaged)
            # By itself rocksdict takes a store's options from what they were when last open.
            return Rdict(str(self._path), options, {"default": options})
        except Exception as error:
            raise StorageError(f"cannot open {self._path}: {error}") from error

    def _check_complete(self) -> None:
        raw = os.pread(self._mark, _MARK.size, 0)
        if len(raw) < _MARK.size:
            return
        magic, version, sequence, crc = _MARK.unpack(raw)
        if magic != _MARK_MAGIC or crc != crc32c(raw[:-4]):
            return  # torn: it is only ever a lower bound
        if version != ROW_VERSION:
            self._database.close()
            raise StorageError(
                f"{self._directory} has format version {version}, this program reads "
                f"{ROW_VERSION}: start it with the program that wrote it"
            )
        found = self._database.latest_sequence_number()
        if found < sequence:
            self._database.close()
            raise StorageError(
                f"{self._path} was durable up to sequence {sequence} and only {found} came "
                "back: its log is damaged and this directory can no longer be trusted: "
                "move it away and let the node join again with an empty one"
            )

    def _row(self, stored_key: bytes) -> bytes | None:
        row: bytes | None = self._database.get(stored_key)
        return row

    def _iterator(self, upper: bytes) -> RdictIter:
        options = ReadOptions()
        options.set_iterate_upper_bound(upper)
        return self._database.iter(options)

    def reread(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None; RocksDB's block cache may answer. Raises CorruptRow."""
        return self.get(table, key)

    def count(self, table: Table) -> int:
        """Rows of a table: exact up to 10,000, above that RocksDB's estimate for all tables."""
        few = sum(1 for _ in self._walk(table, b"", None, EXACT_COUNT))
        if few < EXACT_COUNT:
            return few
        return max(few, self._property("rocksdb.estimate-num-keys"))

    def _property(self, name: str) -> int:
        value = self._database.property_int_value(name)
        return value or 0

    def write(self, batch: Sequence[StorageOperation]) -> int:
        """Apply atomically, in order; see base.Engine."""
        if self._failure is not None:
            raise StorageError(self._failure)
        rocks, keys, values, growing = WriteBatch(raw_mode=True), 0, 0, False
        for operation in batch:
            prefix = _PREFIX[operation[0]]
            if isinstance(operation, Put):
                stored = prefix + operation.key
                rocks.put(stored, _pack(stored, operation.value))
                keys += len(stored)
                values += len(operation.value)
                growing = True
            elif isinstance(operation, Delete):
                rocks.delete(prefix + operation.key)
                if operation.table in BULKY:
                    self._room.note_deletion()
            else:
                assert isinstance(operation, DeleteRange)
                if operation.start < operation.end:
                    rocks.delete_range(prefix + operation.start, prefix + operation.end)
        self._check_space(keys + values, growing)
        before = self._database.latest_sequence_number()
        try:
            self._database.write(rocks)
        except Exception as error:
            if not _is_full(str(error)):
                if "orruption" in str(error) and not self._damaged:
                    self._go_on_damaged(before, error)
                    return self.write(batch)
                self._failure = f"{self._path}: {error}: writes are refused until a restart"
                raise StorageError(self._failure) from error
            self._stuck = True
            self._sequence = before
            raise StorageFull(f"no space left for {self._path}") from error
        return values

    def _check_space(self, size: int, growing: bool) -> None:
        """Ask for free space now and then; reopen when it is back after a full disk."""
        self._unchecked += size
        if not self._stuck and (not growing or self._unchecked < SPACE_CHECK_BYTES):
            return
        free = self._free()
        if free < self.reserve_bytes + size and (growing or self._stuck):
            self._unchecked = SPACE_CHECK_BYTES
            raise StorageFull(
                f"{self._directory} has {free} bytes left; the last {self.reserve_bytes} "
                "are kept for what RocksDB writes by itself"
            )
        self._unchecked = 0
        if self._stuck:
            self._reopen()

    def _reopen(self) -> None:
        """RocksDB that once met an error writes again only after it was opened anew."""
        with self._flushing:
            self._close_database()
            try:
                self._database = self._open()
            except StorageError as error:
                self._failure = f"{error} (after an error): restart the node"
                raise
            found = self._database.latest_sequence_number()
        if found != self._sequence:
            self._failure = (
                f"{self._path} came back at sequence {found} instead of {self._sequence} "
                "after an error: restart the node"
            )
            raise StorageError(self._failure)
        self._stuck = False

    def _go_on_damaged(self, sequence: int, error: Exception) -> None:
        """A compaction met a damaged block, and RocksDB takes no more writes. Opened anew it
        does, until the next one: so there are no more."""
        log.error(
            "%s: %s: going on without compaction until the node is restarted: space of deleted "
            "rows is not given back",
            self._path,
            error,
        )
        self._damaged = True
        self._sequence = sequence
        self._reopen()

    def _close_database(self) -> None:
        self._room.cancel(self._database)
        for view in self._views[:]:  # an open iterator would keep the database open
            view.close()
        # After a full disk closing fails in its own flush of the log, and then the object
        # must go for RocksDB's lock to be released.
        with suppress(Exception):
            self._database.close()
        del self._database

    def flush(self) -> None:
        """Return when everything written before the call is durable. Any thread.

        Raises StorageError; then all writes are refused until the engine is reopened.
        """
        with self._flushing:
            if self._failure is not None:
                raise StorageError(self._failure)
            sequence = self._sequence if self._stuck else self._database.latest_sequence_number()
            try:
                self._database.flush_wal(True)
            except Exception as error:
                if self._stuck and _is_full(str(error)):
                    raise StorageFull(f"no space left to flush {self._path}") from error
                self._failure = (
                    f"flushing {self._path} failed ({error}): "
                    "writes are refused until the node is restarted"
                )
                raise StorageError(self._failure) from error
            head = _MARK.pack(_MARK_MAGIC, ROW_VERSION, sequence, 0)[:-4]
            with suppress(OSError):  # full disk: the older mark is a lower bound as well
                os.pwrite(self._mark, head + struct.pack(">I", crc32c(head)), 0)

    def compact_step(self, budget_bytes: int = 0) -> bool:
        """Nothing to do: RocksDB compacts in threads of its own."""
        return False

    def make_room(self) -> None:
        """Begin, now and then, a pass of its own thread; see rocksroom.py."""
        # A view keeps every file of its moment: a pass would only write more.
        unable = self._failure is not None or self._stuck or self._damaged
        if not unable and not self._views:
            self._room.start(self._database)

    def check_framing(self, position: int, budget_bytes: int) -> Framing:
        """Nothing to look at."""
        return Framing(0, 0, 0, 0)

    def view(self) -> RocksView:
        """A consistent picture of all tables as of now."""
        view = RocksView(self._database, self._views.remove)
        self._views.append(view)
        return view

    def _free(self) -> int:
        state = os.statvfs(self._directory)
        return state.f_bavail * state.f_frsize

    def usage(self) -> Usage:
        """Sizes in bytes; `live` is RocksDB's estimate and counts the log's memory."""
        live = (
            self._property("rocksdb.estimate-live-data-size")
            + self._property("rocksdb.live-blob-file-size")
            + self._property("rocksdb.cur-size-all-mem-tables")
        )
        on_disk = 0
        with os.scandir(self._path) as listing:
            for item in listing:
                try:
                    on_disk += item.stat().st_size
                except FileNotFoundError:  # RocksDB removes files at any time
                    continue
        return Usage(live, on_disk, self._free())

    def close(self) -> None:
        """Flush and release files."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._failure is None and not self._stuck:
                self.flush()
        finally:
            self._failure = "this engine is closed"
            self._close_database()
            os.close(self._mark)
            self._lock.release()
