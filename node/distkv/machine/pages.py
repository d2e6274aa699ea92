"""Which rows hold the results of a session: one page for each entry of the log that gave some.

A page has the lowest number that no other page of its session has. So a client that asks one
thing at a time has one row, written over each time, where a row of its own for each entry would
be one more to write, one to delete and one to clean up. And the number follows from the pages
that are there, not from how they came: a replica that restarts goes on as the others do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush


class Pages:
    """The live pages of one session, in the order of their entries."""

    __slots__ = ("_free", "_next", "_order", "_used")

    def __init__(self) -> None:
        self._order: deque[tuple[int, int]] = deque()
        """(number, highest sequence in it)"""
        self._used: set[int] = set()
        self._free: list[int] = []
        """A heap of the numbers below `_next` that are not in use."""
        self._next = 0

    def add(self, highest: int) -> int:
        """A new page, with results up to sequence `highest`: its number."""
        if self._free:
            number = heappop(self._free)
        else:
            number = self._next
            while number in self._used:
                number += 1
            self._next = number + 1
        self.restore(number, highest)
        return number

    def restore(self, number: int, highest: int) -> None:
        """A page that is there already; in the order of entries, before any is added."""
        self._used.add(number)
        self._order.append((number, highest))

    def drop_below(self, low: int) -> Iterator[int]:
        """Drop the oldest pages until one has a result at or above `low`: their numbers."""
        order = self._order
        while order and order[0][1] < low:
            number, _ = order.popleft()
            self._used.remove(number)
            if not order:
                self._free.clear()
                self._next = 0
            elif number < self._next:
                heappush(self._free, number)
            yield number

    def __iter__(self) -> Iterator[int]:
        """All numbers in use."""
        return (number for number, _ in self._order)
