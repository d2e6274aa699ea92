"""SCAN cursors: numbers that stand for a place in the order of keys.

Redis clients insist on 64-bit numbers, and a place here is a key of up to 4 KiB, so a door
remembers the places it handed out, the latest used `limit` of them. A cursor is a digest of
its place, so it survives retries and repeats, but not a restart of the node, another node,
or `limit` newer cursors: then the client is told to start again.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict


class Cursors:
    """Bounded, least recently used first out."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._places: OrderedDict[int, bytes] = OrderedDict()

    def remember(self, place: bytes) -> int:
        """The cursor of a place: 1 to 2**63 - 1."""
        digest = hashlib.blake2b(place, digest_size=8).digest()
        cursor = int.from_bytes(digest, "big") >> 1 or 1
        self._places[cursor] = place
        self._places.move_to_end(cursor)
        if len(self._places) > self._limit:
            self._places.popitem(last=False)
        return cursor

    def place(self, cursor: int) -> bytes | None:
        """Where to go on; None: not known (any more)."""
        place = self._places.get(cursor)
        if place is not None:
            self._places.move_to_end(cursor)
        return place
