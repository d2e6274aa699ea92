"""How much repair of one node has done, how much is left, and how long that will take."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from distkv.member.seat import Seat


class Work(NamedTuple):
    """Bytes of rebuilt pieces, since the start; bytes left (-1: not known); bytes per second
    of late; seconds left (-1: not known)."""

    done: int
    left: int
    rate: int
    seconds: int


def work_of(seat: Seat) -> Work:
    """As of now."""
    repairer = seat.data.repairer
    progress, seconds = repairer.progress, repairer.seconds_left
    left = repairer.missing_bytes
    return Work(
        progress.rebuilt_bytes,
        -1 if left is None else left,
        round(progress.meter.rate(seat.kernel.now)),
        -1 if seconds is None else math.ceil(seconds),
    )
