"""Memory in flight, shared by all doors of a process: who may hold how much, in turn.

What is charged is held by something that ends by itself: a command at its deadline, a
transfer when its client stalls. A slow client may take long over it, so whoever waits is refused
(`no_memory`) at its own deadline.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial

from distkv.errors import Busy


def no_memory(limit: int) -> Busy:
    """The refusal of what waited to its deadline."""
    return Busy(f"no memory became free: limit memory_in_flight_max ({limit} bytes)")


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


class Allowance:
    """One client's place in the queue, and what it was granted there: enough for some commands,
    so that a pipeline does not go through the queue one by one."""

    __slots__ = ("_budget", "_credit", "_since", "_waiting", "_wake")

    TOGETHER = 16

    def __init__(self, budget: MemoryBudget, wake: Callable[[], None]) -> None:
        """`wake` is called when the client may go on."""
        self._budget = budget
        self._wake = wake
        self._credit = 0
        self._since = 0.0
        self._waiting: Waiting | None = None

    def spend(self, charge: int) -> bool:
        """Whether a command may begin, which will charge about so much."""
        if not self._credit:
            return False
        part = min(charge, self._credit)
        self._credit -= part
        self._budget.used -= part  # not `give`: what begins now takes it, and nobody else
        return True

    def wait(self, charge: int, commands: int, now: float) -> None:
        """Wait for as much as the first of so many commands will charge."""
        if self._waiting is None:
            self._since = now
            amount = charge * min(commands, self.TOGETHER)
            self._waiting = self._budget.wait(amount, partial(self._granted, amount))

    def _granted(self, amount: int) -> None:
        self._waiting = None
        self._credit = amount
        self._wake()

    def gave_up(self, now: float, patience: float) -> bool:
        """Whether it waited for so many seconds; then it leaves the queue."""
        if self._waiting is None or now - self._since <= patience:
            return False
        self.close()
        return True

    def give_back(self) -> None:
        """What was granted and not spent. Others begin, if what did took less than was granted."""
        credit, self._credit = self._credit, 0
        self._budget.give(credit)

    def close(self) -> None:
        """Leave the queue."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        self.give_back()


class AnswerEstimate:
    """What a read's answer will probably hold, charged before its size is known.

    Begins with the most, follows the largest answers at once and forgets them slowly, so a burst
    of reads of large values is admitted only as far as memory goes.
    """

    __slots__ = ("amount",)

    FIRST = 1024 * 1024
    """Of larger values no more is held at once."""
    LEAST = 4 * 1024
    AHEAD = 2 * FIRST
    """For one client, of answers that wait for their turn."""
    AT_ONCE = 256
    """Reads without an answer, of all clients. When answers that were small become large, the
    next ones are this many."""

    def __init__(self) -> None:
        self.amount = self.FIRST

    def seen(self, size: int) -> None:
        """An answer had `size` bytes."""
        size = min(size, self.FIRST)
        if size >= self.amount:
            self.amount = size
        else:
            self.amount -= (self.amount - max(size, self.LEAST)) >> 6

    def charge(self, limit: int) -> int:
        """Bytes of a budget of `limit`."""
        return max(self.amount, limit // self.AT_ONCE)

    @property
    def depth(self) -> int:
        """Answers that may wait for their turn on one connection before it begins a read."""
        return self.AHEAD // self.amount
