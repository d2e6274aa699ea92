"""How much repair has done, how much is left, and how long that will take."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from distkv.member.seat import Seat

WINDOW_SECONDS = 10.0


class Work(NamedTuple):
    """Bytes of rebuilt pieces, since the start; bytes left, by the mean size of the shards
    held (-1: not known); bytes per second of late; seconds left (-1: not known)."""

    done: int
    left: int
    rate: int
    seconds: int


class Pace:
    """`look` now and then."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def look(self, now: float, done: int) -> None:
        """`done` bytes were rebuilt until now."""
        self._marks.append((now, done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()

    def rate(self) -> float:
        """Bytes per second over the last WINDOW_SECONDS."""
        if len(self._marks) < 2:
            return 0.0
        (began, before), (ended, done) = self._marks[0], self._marks[-1]
        return (done - before) / (ended - began)

    def work(self, seat: Seat) -> Work:
        """As of now."""
        done, rate = seat.data.repairer.progress.rebuilt_bytes, self.rate()
        counters, missing = seat.data.keeper.counters, seat.missing
        if missing == 0:
            return Work(done, 0, round(rate), 0)
        if missing is None or not counters.held:
            return Work(done, -1, round(rate), -1)
        left = missing * counters.piece_bytes // counters.held
        return Work(done, left, round(rate), math.ceil(left / rate) if rate > 0 else -1)
