"""Where every live row is: the only picture of the log that reads need.

A location is one integer: segment number, then offset, length and checksum of the value in
32 bits each. (A tuple of four would take four times the memory at a million rows.)
"""

from __future__ import annotations

import os
from collections.abc import Callable

from distkv.storage.base import CorruptRow, StorageError, Table
from distkv.storage.checksum import crc32c
from distkv.storage.files.format import ENTRY_BYTES
from distkv.storage.files.segment import Segment
from distkv.storage.sortedkeys import SortedKeys

MASK = 0xFFFFFFFF
SEGMENT_SHIFT = 96
OFFSET_SHIFT = 64
LENGTH_SHIFT = 32


def location(segment: int, offset: int, length: int, crc: int) -> int:
    """Pack a location."""
    return segment << SEGMENT_SHIFT | offset << OFFSET_SHIFT | length << LENGTH_SHIFT | crc


class Rows:
    """One table: location by key, keys in order, and the small values themselves."""

    __slots__ = ("cache", "keys", "places", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self.places: dict[bytes, int] = {}
        self.keys = SortedKeys()
        self.cache: dict[bytes, bytes] = {}


Overlay = list[dict[bytes, int | None]]
"""By table: for keys changed since a view was opened, where its row was then."""


class Index:
    """All tables, and the bytes of live rows in each segment."""

    def __init__(
        self, tables: list[Rows], segments: dict[int, Segment], read: Callable[[int], bytes]
    ) -> None:
        """`tables` by number; `segments` is shared with the log; `read` fetches a value."""
        self.tables = tables
        self.overlays: list[Overlay] = []
        self.live = sum(segment.live for segment in segments.values())
        self._segments = segments
        self._read = read

    def put(self, rows: Rows, key: bytes, new: int, length: int) -> int | None:
        """Like `replace` by a row of `length` bytes at `new`; the location it had."""
        places = rows.places
        old = places.get(key)
        segments = self._segments
        size = ENTRY_BYTES + len(key)
        grown = size + length
        segments[new >> SEGMENT_SHIFT].live += grown
        if old is None:
            rows.keys.add(key)
        else:
            size += old >> LENGTH_SHIFT & MASK
            segments[old >> SEGMENT_SHIFT].live -= size
            grown -= size
        self.live += grown
        if self.overlays:
            for overlay in self.overlays:
                overlay[rows.table].setdefault(key, old)
        places[key] = new
        return old

    def replace(self, rows: Rows, key: bytes, old: int | None, new: int | None) -> None:
        """Move a row from location `old` to `new`; None is "absent"."""
        fixed = ENTRY_BYTES + len(key)
        if old is not None:
            size = fixed + (old >> LENGTH_SHIFT & MASK)
            self._segments[old >> SEGMENT_SHIFT].live -= size
            self.live -= size
        if self.overlays:
            for overlay in self.overlays:
                overlay[rows.table].setdefault(key, old)
        if new is not None:
            size = fixed + (new >> LENGTH_SHIFT & MASK)
            self._segments[new >> SEGMENT_SHIFT].live += size
            self.live += size
            rows.places[key] = new
            if old is None:
                rows.keys.add(key)
        elif old is not None:
            del rows.places[key]
            rows.keys.remove(key)
            rows.cache.pop(key, None)

    def remove_range(self, rows: Rows, start: bytes, end: bytes) -> list[tuple[bytes, int]]:
        """Remove rows with start <= key < end; returns them with their last locations."""
        removed = []
        for key in rows.keys.remove_range(start, end):
            old = rows.places.pop(key)
            rows.cache.pop(key, None)
            size = ENTRY_BYTES + len(key) + (old >> LENGTH_SHIFT & MASK)
            self._segments[old >> SEGMENT_SHIFT].live -= size
            self.live -= size
            for overlay in self.overlays:
                overlay[rows.table].setdefault(key, old)
            removed.append((key, old))
        return removed

    def value(self, table: Table, key: bytes, place: int) -> bytes:
        """The value at a location, its checksum verified. Raises CorruptRow, StorageError."""
        length = place >> LENGTH_SHIFT & MASK
        if length == 0:
            return b""
        try:
            value = self._read(place)
        except OSError as error:
            raise CorruptRow(table, key) from error
        if len(value) != length or crc32c(value) != place & MASK:
            raise CorruptRow(table, key)
        return value


class View:
    """See base.View: sorted keys shared by chunk, and locations of rows changed since."""

    def __init__(self, index: Index) -> None:
        self._index: Index | None = index
        self._keys = [rows.keys.snapshot() for rows in index.tables]
        self._overlay: Overlay = [{} for _ in index.tables]
        index.overlays.append(self._overlay)

    def _opened(self) -> Index:
        if self._index is None:
            raise StorageError("this view is closed")
        return self._index

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""
        index = self._opened()
        overlay = self._overlay[table]
        place = overlay[key] if key in overlay else index.tables[table].places.get(key)
        return None if place is None else index.value(table, key, place)

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        """Up to `limit` keys in order with start <= key < end."""
        self._opened()
        return self._keys[table].range(start, end, limit)

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows in key order with start <= key < end. Raises CorruptRow."""
        rows = []
        for key in self.keys(table, start, end, limit):
            value = self.get(table, key)
            assert value is not None
            rows.append((key, value))
        return rows

    def close(self) -> None:
        """Release it; reading afterwards is an error."""
        if self._index is not None:
            overlay = self._overlay
            overlays = self._index.overlays
            overlays[:] = [other for other in overlays if other is not overlay]
            self._index = None
            self._keys = []
            self._overlay = []


def reader(
    segments: dict[int, Segment], descriptor: Callable[[Segment], int]
) -> Callable[[int], bytes]:
    """Function that reads the value at a location."""

    def read(place: int) -> bytes:
        segment = segments[place >> SEGMENT_SHIFT]
        return os.pread(
            descriptor(segment), place >> LENGTH_SHIFT & MASK, place >> OFFSET_SHIFT & MASK
        )

    return read
