"""Superseded shards stay a while, for reads that began before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice

from distkv.ids import ValueId
from distkv.kernel import Kernel, Timer

STEP = 512
"""Values handled at once: FLUSHDB supersedes any number of them in one entry."""


class Grace:
    """Drops each value `seconds` after it was added, or earlier once `most_bytes` are passed.

    `begin` is asked for the bytes of a value when its grace begins: None if there is no
    shard of it here. `end` drops it.
    """

    def __init__(
        self,
        kernel: Kernel,
        seconds: float,
        most_bytes: int,
        begin: Callable[[ValueId], int | None],
        end: Callable[[ValueId], None],
    ) -> None:
        self._kernel = kernel
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._begin = begin
        self._end = end
        self.new: dict[ValueId, None] = {}
        """Superseded, in that order; whether there is a shard of them here was not looked at."""
        self._waiting: deque[tuple[float, ValueId, int]] = deque()
        self._timer: Timer | None = None
        self.held_bytes = 0

    def add(self, value_id: ValueId) -> None:
        """An applied entry superseded this value."""
        self.new[value_id] = None
        self._arm()

    def _arm(self) -> None:
        when = self._kernel.now + 0.001 if self.new else self._waiting[0][0]
        if self._timer is not None:
            if self._timer.when <= when:
                return
            self._timer.cancel()
        self._timer = self._kernel.call_at(when, self._collect)

    def _collect(self) -> None:
        self._timer = None
        due = self._kernel.now + self._seconds
        for value_id in list(islice(self.new, STEP)):
            size = self._begin(value_id)
            del self.new[value_id]
            if size is not None:
                self._waiting.append((due, value_id, size))
                self.held_bytes += size
        steps = STEP
        while steps and self._waiting and self._over():
            _, value_id, size = self._waiting.popleft()
            self.held_bytes -= size
            self._end(value_id)
            steps -= 1
        if self.new or self._waiting:
            self._arm()

    def _over(self) -> bool:
        return self._waiting[0][0] <= self._kernel.now or self.held_bytes > self._most_bytes
