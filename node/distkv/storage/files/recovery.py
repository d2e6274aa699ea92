"""Opening: find the batches that count, tell torn ones from damaged ones, build the index.

A batch that no later batch (or the mark written at closing) calls durable may be missing,
torn or full of zeros: the log ends before it, and what follows it is cut off. Zeros up to the
end of a file are no batch: they were written ahead (see Log), and not cut off. A batch that
was durable and is damaged now has rotted: its rows are kept and fail their checksum when
read. If not even its row names can be told, nobody knows which older rows it replaced:
serving those could break a promise, so opening is refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from distkv.storage.base import StorageError, Table
from distkv.storage.checksum import crc32c
from distkv.storage.directories import sync_directory
from distkv.storage.files.format import (
    ENTRY_BYTES,
    HEAD_BYTES,
    HEAD_MAGIC,
    KILL,
    KILL_RANGE,
    PUT,
    SEGMENT_HEADER_BYTES,
    Frame,
    check_segment_header,
    entries,
    frame_at,
    frame_before,
    pack_segment_header,
    unpack_range_tail,
)
from distkv.storage.files.index import LENGTH_SHIFT, MASK, SEGMENT_SHIFT, Rows, location
from distkv.storage.files.segment import Segment
from distkv.storage.sortedkeys import SortedKeys

_PIECE = 4096


class Gap(NamedTuple):
    """Bytes [start, end) of a segment that hold no batch that could be recognised."""

    start: int
    end: int


class Recovered(NamedTuple):
    """What opening found. `cut`: bytes of torn batches that were removed."""

    segments: list[Segment]
    tables: list[Rows]
    sequence: int
    cut: int


def read_tolerant(path: Path) -> bytes:
    """The whole file; blocks that the device cannot read come back as zeros."""
    fd = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        pieces = []
        position = 0
        while position < size:
            step = _PIECE
            try:
                step = min(64 << 20, size - position)
                piece = os.pread(fd, step, position)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                piece = _read_block(fd, min(_PIECE, size - position), position)
            if not piece:
                break
            pieces.append(piece)
            position += len(piece)
        return b"".join(pieces)
    finally:
        os.close(fd)


def _read_block(fd: int, length: int, position: int) -> bytes:
    try:
        return os.pread(fd, length, position)
    except OSError:
        return b"\x00" * length


def walk(raw: bytes, salt: bytes, where: str) -> list[Frame | Gap]:
    """All batches of a segment in order, and the gaps between them."""
    found: list[Frame | Gap] = []
    position = SEGMENT_HEADER_BYTES
    while position < len(raw):
        frame = frame_at(raw, salt, position, where)
        if frame is not None:
            found.append(frame)
            position = frame.end
            continue
        after = _next_head(raw, salt, position + 1, where)
        if after == len(raw):
            after = _last_end(raw, salt, position, where)
            if after == position:
                break
        found += _backwards(raw, salt, position, after, where)
        position = after
    return found


def _last_end(raw: bytes, salt: bytes, position: int, where: str) -> int:
    """Where the last batch ends: before the zeros up to the end of the file, if there are any.

    `position` if nothing else is there; the end of the file if no FOOT can be told.
    """
    written = len(raw[position:].rstrip(b"\x00"))
    if not written:
        return position
    first = position + written  # or a little later: a checksum may end with zeros
    for end in range(first, min(first + HEAD_BYTES, len(raw)) + 1):
        if frame_before(raw, salt, end, where) is not None:
            return end
    return len(raw)


def _next_head(raw: bytes, salt: bytes, position: int, where: str) -> int:
    while True:
        position = raw.find(HEAD_MAGIC, position)
        if position < 0:
            return len(raw)
        if frame_at(raw, salt, position, where) is not None:
            return position
        position += 1


def _backwards(raw: bytes, salt: bytes, start: int, end: int, where: str) -> list[Frame | Gap]:
    """Batches in [start, end) whose HEAD is damaged, found by their FOOT."""
    found: list[Frame | Gap] = []
    while end > start:
        frame = frame_before(raw, salt, end, where)
        if frame is None or frame.offset < start:
            found.append(Gap(start, end))
            break
        found.append(frame)
        end = frame.offset
    return found[::-1]


def recover(segments: list[Segment]) -> Recovered:
    """Read all segments (found in the directory, in order), cut off the torn end, sync.

    Raises StorageError when a durable batch is damaged beyond knowing its rows, or when a
    later version wrote the files.
    """
    contents: dict[int, list[Frame | Gap]] = {}
    raws: dict[int, bytes] = {}
    attested = 0
    for segment in segments:
        hinted = segment.read_hint()
        if hinted is not None:
            segment.frames = None
            frames = list(hinted)
            contents[segment.number] = [*frames]
            if frames:
                attested = max(attested, frames[-1].sequence)
            continue
        raw = raws[segment.number] = read_tolerant(segment.path)
        check_segment_header(raw, str(segment.path))
        items = contents[segment.number] = walk(raw, segment.salt, str(segment.path))
        for item in items:
            if isinstance(item, Frame):
                attested = max(attested, item.durable)
    replay = Replay()
    sequence, cut, kept, previous = 0, 0, list(segments), 0
    for position, segment in enumerate(segments):
        items = contents.pop(segment.number)
        known = raws.pop(segment.number, None)
        adjacent = segment.number == previous + 1
        good = _judge(segment, items, known, sequence, attested, adjacent)
        for frame in good:
            replay.apply(segment, frame)
        previous = segment.number
        sequence = good[-1].sequence if good else sequence
        segment.last_sequence = sequence
        segment.size = good[-1].end if good else SEGMENT_HEADER_BYTES
        if known is not None:
            segment.frames = good
            if len(good) < len(items):
                torn = len(known[segment.size :].rstrip(b"\x00"))
                cut = torn + _cut(segment, segments[position + 1 :])
                kept = segments[: position + 1]
                break
            if len(known) < SEGMENT_HEADER_BYTES:
                _cut(segment, [])
    _sync(kept)
    tables = replay.finish()
    _count_live(kept, tables)
    return Recovered(kept, tables, sequence, cut)


def _judge(
    segment: Segment,
    items: Sequence[Frame | Gap],
    raw: bytes | None,
    sequence: int,
    attested: int,
    adjacent: bool,
) -> list[Frame]:
    """The batches of a segment that count: all, or those before the first torn one.

    `adjacent`: no segment was removed between the one before and this, so the sequence goes
    on without a jump (compaction removes a segment only when the batch after it is durable).
    """
    good: list[Frame] = []
    for item in items:
        follows = isinstance(item, Frame) and (
            item.sequence == sequence + 1
            or (not good and not adjacent and item.sequence > sequence)
        )
        if isinstance(item, Gap) or not follows:
            if sequence >= attested:
                break
            raise _unknown_rows(segment, item[0], item.end)
        if item.sequence <= attested:
            if item.directory is None:
                raise _unknown_rows(segment, item.offset, item.end)
        elif not item.intact or not _values_sound(item, raw):
            break
        good.append(item)
        sequence = item.sequence
    return good


def _values_sound(frame: Frame, raw: bytes | None) -> bool:
    assert raw is not None, "a sealed segment is durable"
    return all(
        crc32c(raw[entry.offset : entry.offset + entry.length]) == entry.crc
        for entry in entries(frame)
        if entry.kind == PUT
    )


def _unknown_rows(segment: Segment, start: int, end: int) -> StorageError:
    return StorageError(
        f"{segment.path}: bytes {start} to {end} were durable and are damaged beyond telling "
        "which rows they held; this directory can no longer be trusted: "
        "move it away and let the node join again with an empty one"
    )


class Replay:
    """Applies batches in order to the locations of all tables."""

    def __init__(self) -> None:
        # Number 0 is no table; its place keeps list index and table number equal.
        self._tables = [Rows(Table(max(1, number))) for number in range(max(Table) + 1)]
        self._orders: dict[int, SortedKeys] = {}

    def apply(self, segment: Segment, frame: Frame) -> None:
        """Replay one batch. Raises StorageError for a table of a later version."""
        number, tables, orders = segment.number, self._tables, self._orders
        for kind, table, key, offset, length, crc, killed, tail in entries(frame):
            if not 0 < table < len(tables):
                raise StorageError(
                    f"{segment.path} has rows of table {table}, unknown to this program: "
                    "start it with the program that wrote it"
                )
            places = tables[table].places
            if kind == PUT:
                if table in orders and key not in places:
                    orders[table].add(key)
                places[key] = location(number, offset, length, crc)
            elif kind == KILL:
                old = places.get(key)
                if old is not None and old >> SEGMENT_SHIFT == killed:
                    del places[key]
                    if table in orders:
                        orders[table].remove(key)
            else:
                assert kind == KILL_RANGE
                self._remove_range(table, key, tail)

    def _remove_range(self, table: int, start: bytes, tail: bytes) -> None:
        places = self._tables[table].places
        order = self._orders.get(table)
        if order is None:  # most tables see no range: their order is built at the end
            order = self._orders[table] = SortedKeys(places)
        end, numbers = unpack_range_tail(tail)
        for key in order.range(start, end, len(places)):
            if places[key] >> SEGMENT_SHIFT in numbers:
                del places[key]
                order.remove(key)

    def finish(self) -> list[Rows]:
        """The tables, ordered."""
        for number, rows in enumerate(self._tables):
            order = self._orders.get(number)
            rows.keys = SortedKeys(rows.places) if order is None else order
        return self._tables


def _cut(segment: Segment, later: list[Segment]) -> int:
    """Remove the torn end, newest file first, so a crash now leaves no hole in the middle."""
    removed = 0
    for other in reversed(later):
        removed += other.path.stat().st_size
        other.remove()
        sync_directory(other.directory)
    fd = os.open(segment.path, os.O_RDWR)
    try:
        os.ftruncate(fd, segment.size)
        if segment.size == SEGMENT_HEADER_BYTES:  # it may have been torn itself
            os.pwrite(fd, pack_segment_header(segment.number, segment.salt), 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    return removed


def _sync(segments: list[Segment]) -> None:
    """What was read back becomes durable before anybody relies on it."""
    for segment in segments:
        if segment.frames is not None:
            fd = os.open(segment.path, os.O_RDWR)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)
    if segments:
        sync_directory(segments[0].directory)


def _count_live(segments: list[Segment], tables: list[Rows]) -> None:
    live = {segment.number: 0 for segment in segments}
    for rows in tables:
        for key, place in rows.places.items():
            live[place >> SEGMENT_SHIFT] += ENTRY_BYTES + len(key) + (place >> LENGTH_SHIFT & MASK)
    for segment in segments:
        segment.live = live[segment.number]
