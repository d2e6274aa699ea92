"""Sequence numbers of one session, of a node or of a gateway, and the lowest not answered."""

from __future__ import annotations


class Sequences:
    """`low`: every sequence below was answered, its stored result may be forgotten."""

    __slots__ = ("_last", "_open")

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
