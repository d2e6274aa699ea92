"""A sorted set of byte strings in chunks, with snapshots that share unchanged chunks.

Chunks of a few hundred keys keep an insertion at a million keys to two binary searches and
one short memory move (microseconds in C), which a balanced tree in Python cannot match. A
snapshot copies only the list of chunks; whoever changes a chunk later copies it first.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

CHUNK_KEYS = 512
"""Keys of a chunk that was built in order; a chunk is split at twice as many."""


class SortedKeys:
    """Distinct keys in order. `add` wants an absent key, `remove` a present one."""

    __slots__ = ("_chunks", "_last", "_owned")

    def __init__(self, keys: Iterable[bytes] = ()) -> None:
        """Build from distinct keys in any order."""
        ordered = sorted(keys)
        self._chunks = [ordered[i : i + CHUNK_KEYS] for i in range(0, len(ordered), CHUNK_KEYS)]
        self._last = [chunk[-1] for chunk in self._chunks]
        self._owned = [True] * len(self._chunks)

    def _writable(self, i: int) -> list[bytes]:
        chunk = self._chunks[i]
        if not self._owned[i]:
            chunk = self._chunks[i] = chunk[:]
            self._owned[i] = True
        return chunk

    def add(self, key: bytes) -> None:
        """Insert a key that is absent."""
        last = self._last
        if not last or key > last[-1]:
            if last and len(chunk := self._chunks[-1]) < CHUNK_KEYS:
                if not self._owned[-1]:
                    chunk = self._writable(len(last) - 1)
                chunk.append(key)
                last[-1] = key
            else:
                self._chunks.append([key])
                last.append(key)
                self._owned.append(True)
            return
        i = bisect_left(last, key)
        chunk = self._writable(i)
        insort(chunk, key)
        if len(chunk) >= 2 * CHUNK_KEYS:
            upper = chunk[CHUNK_KEYS:]
            del chunk[CHUNK_KEYS:]
            self._chunks.insert(i + 1, upper)
            self._owned.insert(i + 1, True)
            last.insert(i, chunk[-1])

    def remove(self, key: bytes) -> None:
        """Remove a key that is present."""
        i = bisect_left(self._last, key)
        chunk = self._writable(i)
        j = bisect_left(chunk, key)
        assert chunk[j] == key
        del chunk[j]
        if not chunk:
            self._drop_chunks(i, i + 1)
        elif j == len(chunk):
            self._last[i] = chunk[-1]

    def _drop_chunks(self, i: int, j: int) -> None:
        del self._chunks[i:j], self._last[i:j], self._owned[i:j]

    def remove_range(self, start: bytes, end: bytes) -> list[bytes]:
        """Remove all keys k with start <= k < end and return them in order."""
        removed: list[bytes] = []
        first = i = bisect_left(self._last, start)
        while i < len(self._chunks):
            chunk = self._chunks[i]
            low, high = bisect_left(chunk, start), bisect_left(chunk, end)
            if low == 0 and high == len(chunk):
                removed += chunk
                chunk = self._chunks[i] = []
                self._owned[i] = True
            elif low < high:
                removed += chunk[low:high]
                chunk = self._writable(i)
                del chunk[low:high]
                self._last[i] = chunk[-1]
            if high < len(chunk):
                break
            i += 1
        emptied = [n for n in range(first, min(i + 1, len(self._chunks))) if not self._chunks[n]]
        if emptied:  # always neighbours: only the ends of the range leave part of a chunk
            self._drop_chunks(emptied[0], emptied[-1] + 1)
        return removed

    def range(self, start: bytes, end: bytes | None, limit: int) -> list[bytes]:
        """Up to `limit` keys k with start <= k < end (None: no upper end), in order."""
        found: list[bytes] = []
        i = bisect_left(self._last, start)
        while i < len(self._chunks) and len(found) < limit:
            chunk = self._chunks[i]
            low = bisect_left(chunk, start) if not found else 0
            high = len(chunk) if end is None else bisect_left(chunk, end)
            found += chunk[low : min(high, low + limit - len(found))]
            if high < len(chunk):
                break
            i += 1
        return found

    def snapshot(self) -> SortedKeys:
        """The keys as of now; later changes of this set do not show in it."""
        copy = SortedKeys()
        copy._chunks = self._chunks[:]
        copy._last = self._last[:]
        copy._owned = [False] * len(self._chunks)
        self._owned = [False] * len(self._chunks)
        return copy
