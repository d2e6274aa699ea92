"""Which packet numbers have arrived: for acknowledgements and against replay."""

from __future__ import annotations

from distkv.transport.packet import (
    ACK,
    ACK_FRAME,
    ACK_RUN,
    ACK_RUNS_LIMIT,
    DELAY_UNIT,
    Malformed,
    expand,
)

RUNS_LIMIT = 256
"""Runs remembered; what lies below the oldest counts as seen and is refused."""


class Received:
    """Runs of received packet numbers, newest first.

    The newest run is two plain fields, because nearly every packet extends it.
    """

    __slots__ = ("_older", "bottom", "floor", "top")

    def __init__(self) -> None:
        self.top = -1
        self.bottom = 0
        self.floor = -1
        self._older: list[list[int]] = []

    def seen(self, number: int) -> bool:
        """Whether `number` was added before, or is too old to tell."""
        if number > self.top:
            return False
        if number >= self.bottom or number <= self.floor:
            return True
        for low, high in self._older:
            if number > high:
                return False
            if number >= low:
                return True
        return False

    def add(self, number: int) -> bool:
        """Record a number not `seen`; False if it came out of order or left a gap."""
        if number == self.top + 1:
            self.top = number
            return True
        if number > self.top:
            if self.top >= 0:
                self._older.insert(0, [self.bottom, self.top])
                self._forget()
            self.bottom = self.top = number
            return False
        self._fill(number)
        return False

    def _fill(self, number: int) -> None:
        older = self._older
        if number == self.bottom - 1:
            self.bottom = number
            if older and older[0][1] == number - 1:
                self.bottom = older.pop(0)[0]
            return
        for place, run in enumerate(older):
            if number == run[1] + 1:
                run[1] = number
                return
            if number == run[0] - 1:
                run[0] = number
                if place + 1 < len(older) and older[place + 1][1] == number - 1:
                    run[0] = older.pop(place + 1)[0]
                return
            if number > run[1]:
                older.insert(place, [number, number])
                self._forget()
                return
        older.append([number, number])
        self._forget()

    def _forget(self) -> None:
        if len(self._older) >= RUNS_LIMIT:
            self.floor = self._older.pop()[1]

    def frame(self, delay: float) -> bytes:
        """The ACK frame; `delay` (seconds): how long ago the newest packet arrived."""
        units = min(int(delay / DELAY_UNIT), 0xFFFF)
        top = self.top
        run = min(top - self.bottom, 0xFFFF)
        if not self._older or top - self.bottom > 0xFFFF:
            return ACK_FRAME.pack(ACK, top & 0xFFFFFFFF, units, run, 0)
        runs = []
        below = self.bottom
        for low, high in self._older[: ACK_RUNS_LIMIT - 1]:
            gap = below - high - 2
            if gap > 0xFFFF:
                break
            runs.append(ACK_RUN.pack(gap, min(high - low, 0xFFFF)))
            below = low
            if high - low > 0xFFFF:
                break
        return ACK_FRAME.pack(ACK, top & 0xFFFFFFFF, units, run, len(runs)) + b"".join(runs)


def parse_ack(plain: bytes, at: int, next_number: int) -> tuple[list[tuple[int, int]], float, int]:
    """The ACK frame at `at`: (runs (lowest, highest) newest first, delay in seconds, its end).

    `next_number`: the first that was not sent yet. Raises Malformed.
    """
    _, low, delay, run, extra = ACK_FRAME.unpack_from(plain, at)
    at += ACK_FRAME.size
    top = expand(low, next_number - 1)
    bottom = top - run
    runs = [(bottom, top)]
    for _ in range(extra):
        gap, run = ACK_RUN.unpack_from(plain, at)
        at += ACK_RUN.size
        high = bottom - gap - 2
        bottom = high - run
        runs.append((bottom, high))
    if top >= next_number or bottom < 0:
        raise Malformed("acknowledgement of a packet never sent")
    return runs, delay * DELAY_UNIT, at
