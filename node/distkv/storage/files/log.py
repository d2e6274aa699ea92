"""The append-only log: batches into segment files, made durable by `flush`.

A flush of a file that grows has to write where it ends now as well, in the file system's own
log: on ext4 that doubles the CPU and adds half to the time of flushing a small batch. So after
a small batch zeros are written ahead of the next ones, to be overwritten; they are cut off when
the segment is sealed or closed. Where there is no space for them the file grows with every batch.

Threads: one owner calls everything; `flush` may run in one other thread at a time (further
ones wait). The lock guards the few fields that both touch and is never held during I/O.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path

from distkv.storage.base import StorageError, StorageFull
from distkv.storage.files.format import (
    FOOT_MAGIC,
    HEAD_BYTES,
    HEAD_MAGIC,
    SEGMENT_HEADER_BYTES,
    Frame,
    pack_body,
    pack_segment_header,
)
from distkv.storage.files.segment import SALT_BYTES, Descriptors, Segment

MAX_BATCH_BYTES = 1 << 30
MAX_SEGMENT_BYTES = 1 << 31
assert MAX_BATCH_BYTES + MAX_SEGMENT_BYTES < 1 << 32, "offsets are 32 bit"
SPACE_CHECK_BYTES = 256 << 10
"""The file system is asked for its free space once per so many bytes written."""
JOIN_BYTES = 64 << 10
"""Batches up to this size are copied into one buffer: cheaper than many small vectors."""
AHEAD_BYTES = 128 << 10
"""Zeros ahead of the next batch."""
MAX_VECTORS = 512
"""Below the kernel's IOV_MAX of 1024."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Log:
    """Segments and where the next batch goes. See the module."""

    def __init__(
        self, directory: Path, segments: list[Segment], sequence: int, options: LogOptions
    ) -> None:
        """`segments`: all of them, flushed, in order; `sequence`: of the last batch."""
        self.directory = directory
        self.segments = {segment.number: segment for segment in segments}
        self.descriptors = Descriptors()
        self.sequence = sequence
        self.durable = sequence
        self.size = sum(segment.size for segment in segments)
        self.segment_bytes = options.segment_bytes
        self.failure: str | None = None
        self._options = options
        self._directory_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._dirty: list[Segment] = []
        self._settled: list[Segment] = []
        self._vanishing: set[int] = set()
        self._names_changed = True
        self._unchecked = SPACE_CHECK_BYTES
        self.active: Segment | None = None
        self._next_number = segments[-1].number + 1 if segments else 1
        if segments and segments[-1].frames is not None:
            self._resume(segments[-1])

    def _resume(self, segment: Segment) -> None:
        if segment.size < self._options.segment_bytes:
            segment.fd = os.open(segment.path, os.O_RDWR)
            segment.room = segment.size
            self.active = segment

    def exists(self, number: int) -> bool:
        """Whether the segment may still be found by a reopening after a crash now."""
        return number in self.segments or number in self._vanishing

    def check(self) -> None:
        """Raises StorageError if an earlier failure made the log read-only."""
        if self.failure is not None:
            raise StorageError(self.failure)

    def begin(self) -> tuple[int, int]:
        """Segment number and offset of the first value of the next batch.

        Starts a new segment when the active one is full. Raises StorageFull, StorageError.
        """
        self.check()
        active = self.active
        if active is None or active.size >= self._options.segment_bytes:
            active = self._rotate()
        return active.number, active.size + HEAD_BYTES

    def _rotate(self) -> Segment:
        segment = Segment(self.directory, self._next_number, os.urandom(SALT_BYTES))
        self._sync_names()
        self._give_back()
        try:
            segment.fd = os.open(segment.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            header = pack_segment_header(segment.number, segment.salt)
            if os.pwrite(segment.fd, header, 0) != len(header):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if segment.fd >= 0:
                os.close(segment.fd)
                segment.path.unlink(missing_ok=True)
            raise self._refusal(error, segment) from error
        with self._lock:
            self._next_number += 1
            self._names_changed = True
            sealed, self.active = self.active, segment
            self.segments[segment.number] = segment
            self.size += segment.size
            settled, self._settled = self._settled, []
            if sealed is not None and sealed not in self._dirty:
                self._dirty.append(sealed)  # clean, but `flush` is who seals
        for old in settled:
            self.descriptors.keep(old)
        return segment

    def _sync_names(self) -> None:
        """Never two new names unsynced: recovery takes a missing number for a removed segment.

        Only when a whole segment was filled without a flush; costs one fsync of the directory.
        """
        if self.active is None or not self._names_changed:
            return
        try:
            os.fsync(self._directory_fd)
        except OSError as error:
            self.failure = f"cannot sync {self.directory} ({error.strerror}): restart the node"
            raise StorageError(self.failure) from error

    def _refusal(self, error: OSError, segment: Segment) -> StorageError:
        if error.errno in _FULL:
            self._unchecked = SPACE_CHECK_BYTES
            return StorageFull(f"no space left for {segment.path}")
        return StorageError(f"cannot write {segment.path}: {error.strerror}")

    def _check_space(self, growing: bool, total: int) -> None:
        self._unchecked += total
        if not growing or self._unchecked < SPACE_CHECK_BYTES:
            return
        free = self.free()
        if free < self._options.reserve_bytes + total:
            self._unchecked = SPACE_CHECK_BYTES
            raise StorageFull(
                f"{self.directory} has {free} bytes left; the last "
                f"{self._options.reserve_bytes} are kept for deletions and compaction"
            )
        self._unchecked = 0

    def append(
        self, values: list[bytes], values_bytes: int, names: bytes, rows: int, growing: bool
    ) -> None:
        """Write one batch where `begin` said. Raises StorageFull, StorageError: nothing written.

        `growing`: refuse it already when only the reserve is left.
        """
        segment = self.active
        assert segment is not None
        offset = segment.size
        total = 2 * HEAD_BYTES + values_bytes + 2 * len(names)
        if total > MAX_BATCH_BYTES:
            raise ValueError(f"a batch of {total} bytes is over the limit of {MAX_BATCH_BYTES}")
        self._check_space(growing, total)
        sequence, durable = self.sequence + 1, self.durable
        body = pack_body(segment.salt, offset, sequence, durable, values_bytes, rows, names)
        parts = [HEAD_MAGIC, body, *values, names, names, FOOT_MAGIC, body]
        if total <= JOIN_BYTES or len(parts) > MAX_VECTORS:
            parts = [b"".join(parts)]
        try:
            written = os.pwritev(segment.fd, parts, offset)
            if written != total:
                _write_rest(segment.fd, b"".join(parts), offset, written)
        except OSError as error:
            self._cut(segment, offset)
            raise self._refusal(error, segment) from error
        assert segment.frames is not None
        segment.frames.append(
            Frame(offset, sequence, durable, values_bytes, len(names), rows, names, True)
        )
        segment.size, segment.last_sequence = offset + total, sequence
        self.size += total
        if growing and total <= JOIN_BYTES and segment.size > segment.room:
            self._go_ahead(segment)
        with self._lock:
            if not self._dirty or self._dirty[-1] is not segment:
                self._dirty.append(segment)
            self.sequence = sequence

    def _go_ahead(self, segment: Segment) -> None:
        """Write zeros behind the last batch."""
        length = min(AHEAD_BYTES, self._options.segment_bytes - segment.size)
        with suppress(OSError):
            if length > 0:
                segment.room = segment.size + os.pwrite(segment.fd, bytes(length), segment.size)

    def _give_back(self) -> None:
        """Cut off zeros that no batch took the place of."""
        active = self.active
        if active is not None and active.room > active.size:
            with suppress(OSError):  # then there are zeros at its end, which do no harm
                os.ftruncate(active.fd, active.size)
                active.room = active.size

    def _cut(self, segment: Segment, offset: int) -> None:
        try:
            os.ftruncate(segment.fd, offset)
            segment.room = offset
        except OSError as error:
            self.failure = (
                f"cannot cut a partial batch off {segment.path} ({error.strerror}): "
                "writes are refused until the node is restarted"
            )

    def flush(self) -> None:
        """Make durable every batch written before the call. Raises StorageError.

        Any thread. After a failure all writes are refused: pages that the kernel dropped
        after a failed write would otherwise pass for durable (Rebello et al., "Can
        Applications Recover from fsync Failures?", USENIX ATC 2020).
        """
        with self._flushing:
            with self._lock:
                self.check()
                sequence, dirty = self.sequence, self._dirty[:]
                names_changed, self._names_changed = self._names_changed, False
                vanishing = set(self._vanishing)
                active = self.active
            try:
                for segment in dirty:
                    os.fdatasync(segment.fd)
                if names_changed:
                    os.fsync(self._directory_fd)
            except OSError as error:
                self.failure = (
                    f"flushing {self.directory} failed ({error.strerror}): "
                    "writes are refused until the node is restarted"
                )
                raise StorageError(self.failure) from error
            with self._lock:
                self.durable = sequence
                self._vanishing -= vanishing
                unchanged = active is self.active and self.sequence == sequence
                if active is not None and unchanged and active in dirty:
                    self._dirty.remove(active)
            sealed = [segment for segment in dirty if segment is not active]
            for segment in sealed:
                segment.write_hint()
            with self._lock:
                for segment in sealed:
                    self._dirty.remove(segment)
                    self._settled.append(segment)

    def busy(self) -> set[int]:
        """Numbers of the segments that are not yet full, or not yet flushed."""
        with self._lock:
            busy = {segment.number for segment in self._dirty}
        if self.active is not None:
            busy.add(self.active.number)
        return busy

    def remove(self, segment: Segment) -> None:
        """Unlink a segment without live rows; it counts as existing until the next flush."""
        del self.segments[segment.number]
        self.size -= segment.size
        self.descriptors.close(segment)
        with self._lock:
            if segment in self._settled:
                self._settled.remove(segment)
            self._vanishing.add(segment.number)
            self._names_changed = True
        segment.remove()

    def mark_clean(self) -> None:
        """After a flush: let an empty batch say that all before it is durable.

        So damage to the last batches is not taken for a torn end after a clean close.
        """
        frames = self.active.frames if self.active is not None else None
        if not frames or frames[-1].rows == 0:
            return
        try:
            self.begin()
            self.append([], 0, b"", 0, False)
        except StorageFull:
            return
        self.flush()

    def forget_pages(self, number: int, offset: int, length: int) -> None:
        """Ask the kernel to drop its copy of these bytes, so that the device is read (a hint;
        pages not yet written back stay)."""
        segment = self.segments[number]
        os.posix_fadvise(self.descriptors.get(segment), offset, length, os.POSIX_FADV_DONTNEED)

    def free(self) -> int:
        """Bytes that the file system still gives to this process."""
        state = os.fstatvfs(self._directory_fd)
        return state.f_bavail * state.f_frsize

    def close(self) -> None:
        """Close all files; no flush."""
        self._give_back()
        for segment in self.segments.values():
            self.descriptors.close(segment)
        if self._directory_fd >= 0:
            os.close(self._directory_fd)
            self._directory_fd = -1


class LogOptions:
    """`segment_bytes`: a segment is sealed at this size. `reserve_bytes`: see Log.append."""

    def __init__(self, segment_bytes: int, reserve_bytes: int) -> None:
        if not SEGMENT_HEADER_BYTES < segment_bytes <= MAX_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes must be at most {MAX_SEGMENT_BYTES}")
        self.segment_bytes = segment_bytes
        self.reserve_bytes = reserve_bytes


def _write_rest(fd: int, whole: bytes, offset: int, written: int) -> None:
    """Go on after a short write; a full disk then raises OSError."""
    while written < len(whole):
        more = os.pwrite(fd, whole[written:], offset + written)
        if more == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += more
