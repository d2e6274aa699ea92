"""Sequence numbers of the node's own session, and the lowest one not answered yet."""

from __future__ import annotations


class Sequences:
    """`low`: every sequence below was answered, its stored result may be forgotten."""

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, None] = {}

    def take(self) -> int:
        """The next number."""
        self._last += 1
        self._open[self._last] = None
        return self._last

    def done(self, sequence: int) -> None:
        """Nobody will ask for this result again."""
        self._open.pop(sequence, None)

    @property
    def low(self) -> int:
        """The lowest number still open (the next one if none is)."""
        return next(iter(self._open), self._last + 1)
