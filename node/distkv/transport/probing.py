"""Search for the datagram size a path carries (RFC 8899), largest candidate first.

The largest are refused by the local interface at once and cost nothing; the first that is
acknowledged is the size. A probe that is lost is no sign of congestion.
"""

from __future__ import annotations

from distkv.transport.options import BASE_DATAGRAM, Options

TRIES = 2
BLACK_HOLE_TIMEOUTS = 3
"""Probe timeouts in a row after which large datagrams are suspected not to get through."""
NEVER = float("inf")


class SizeSearch:
    """`size`: bytes of UDP payload that are known to pass. `when`: time of the next step."""

    __slots__ = ("_candidate", "_interval", "_pause", "_sizes", "_tries", "number", "size", "when")

    def __init__(self, options: Options, now: float) -> None:
        self._sizes = options.datagram_sizes
        self._interval = options.probe_interval
        self._pause = 1.0
        self._candidate = 0
        self._tries = 0
        self.number = -1
        self.size = BASE_DATAGRAM
        self.when = now if self._sizes else NEVER

    def next(self, now: float) -> int:
        """Size of the probe to send now; 0: none. A probe still out counts as lost."""
        if now < self.when:
            return 0
        if self.number >= 0:
            self._failed()
        if self._candidate == len(self._sizes) or self._sizes[self._candidate] <= self.size:
            self._candidate = self._tries = 0
            self.when = NEVER if self.size == self._sizes[0] else now + self._interval
            return 0
        return self._sizes[self._candidate]

    def sent(self, number: int, deadline: float) -> None:
        """Packet `number` is the probe; it counts as lost at `deadline`."""
        self.number = number
        self.when = deadline

    def _failed(self) -> None:
        self.number = -1
        self._tries += 1
        if self._tries == TRIES:
            self._tries = 0
            self._candidate += 1

    def refused(self, size: int, now: float) -> None:
        """The local interface takes no datagram of `size` bytes."""
        if size <= self.size:
            self.black_hole(now)
        elif self.number >= 0 and self._sizes[self._candidate] >= size:
            self._tries = TRIES - 1
            self._failed()
            self.when = now

    def acknowledged(self, runs: list[tuple[int, int]], now: float) -> bool:
        """True if the probe arrived: `size` has grown."""
        if self.number < 0 or not any(low <= self.number <= high for low, high in runs):
            return False
        self.size = self._sizes[self._candidate]
        self.number = -1
        self._tries = 0
        self.when = now
        return True

    def black_hole(self, now: float) -> None:
        """Large datagrams vanish: back to the base size, and search again after a pause."""
        self.size = BASE_DATAGRAM
        self._candidate = self._tries = 0
        self.number = -1
        self.when = now + self._pause if self._sizes else NEVER
        self._pause = min(2 * self._pause, self._interval)
