"""How much repair of one node has done, how much is left, and how long that will take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from distkv.data.meter import Meter

if TYPE_CHECKING:
    from distkv.member.seat import Seat


class Work(NamedTuple):
    """Bytes of rebuilt pieces, since the start; bytes left, by the mean size of the shards
    held (-1: not known); bytes per second of late; seconds left (-1: not known)."""

    done: int
    left: int
    rate: int
    seconds: int


class RepairWork:
    """`look` now and then."""

    def __init__(self) -> None:
        self._meter = Meter()

    def look(self, now: float, done: int) -> None:
        """`done` bytes were rebuilt until now."""
        if done > self._meter.total:
            self._meter.add(now, done - self._meter.total)

    def work(self, seat: Seat) -> Work:
        """As of now."""
        done, now = seat.data.repairer.progress.rebuilt_bytes, seat.kernel.now
        counters, missing = seat.data.keeper.counters, seat.missing
        rate = round(self._meter.rate(now))
        if missing == 0:
            return Work(done, 0, rate, 0)
        if missing is None or not counters.held:
            return Work(done, -1, rate, -1)
        left = missing * counters.piece_bytes // counters.held
        seconds = self._meter.seconds_left(now, left)
        return Work(done, left, rate, -1 if seconds is None else math.ceil(seconds))
