"""Memory in flight, shared by all doors of a process: who may hold how much, in turn.

What is charged is held by something that ends by itself: a command at its deadline, a
transfer when its client stalls. So whoever waits here is served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable


class Waiting:
    """A place in the queue; `cancel` leaves it."""

    __slots__ = ("amount", "granted")

    def __init__(self, amount: int, granted: Callable[[], None]) -> None:
        self.amount = amount
        self.granted: Callable[[], None] | None = granted

    def cancel(self) -> None:
        """Nothing will be charged for this place."""
        self.granted = None


class MemoryBudget:
    """Counts bytes. `take` may pass the limit by what one read of a socket brings."""

    __slots__ = ("_queue", "limit", "used")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self._queue: deque[Waiting] = deque()

    @property
    def full(self) -> bool:
        """Whether nothing new may begin (somebody who waits goes first)."""
        return self.used >= self.limit or bool(self._queue)

    def take(self, amount: int) -> None:
        """Charge bytes that are already there."""
        self.used += amount

    def give(self, amount: int) -> None:
        """Release; whoever waited longest begins."""
        self.used -= amount
        assert self.used >= 0, "more memory was given back than taken"
        while self._queue and self.used < self.limit:
            waiting = self._queue.popleft()
            if waiting.granted is not None:
                self.used += waiting.amount
                waiting.granted()

    def wait(self, amount: int, granted: Callable[[], None]) -> Waiting:
        """Call `granted` once `amount` was charged for the caller; never before returning."""
        waiting = Waiting(amount, granted)
        self._queue.append(waiting)
        return waiting


class AnswerEstimate:
    """What a read's answer will probably hold, charged before its size is known.

    Follows the largest answers at once and forgets them slowly, so a burst of reads of
    large values is admitted only as far as memory goes.
    """

    __slots__ = ("amount",)

    FIRST = 16 * 1024
    LEAST = 4 * 1024

    def __init__(self) -> None:
        self.amount = self.FIRST

    def seen(self, size: int) -> None:
        """An answer had `size` bytes."""
        if size >= self.amount:
            self.amount = size
        else:
            self.amount -= (self.amount - max(size, self.LEAST)) >> 6
