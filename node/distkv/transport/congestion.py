"""Congestion window and pacing: bounded queueing delay first, loss second.

Bulk shares its path with heartbeats and votes, so the window is steered by delay: it grows
while the standing queue on the path is short and shrinks when it passes `queue_delay`, in the
manner of Vegas and LEDBAT (RFC 6817). Loss cuts it as CUBIC does (RFC 9438: beta 0.7), at
most once per round trip. A queue of `queue_delay` keeps a link busy while the sender's process
waits for a processor, and is all a control message ever waits behind.
A window that is not used up says nothing about the path and is left alone.
"""

from __future__ import annotations

from distkv.transport.options import Options

BETA = 0.7
UNIT = 1472
MINIMUM_RTT_PERIOD = 60.0
PACING_GAIN = 1.25
PACING_GAIN_START = 2.0
BURST_SECONDS = 0.002
"""Pacing forgives this much lateness: event-loop timers have a resolution of 1 ms."""


class Congestion:
    """State of one path. Sizes are bytes of UDP payload, times seconds."""

    __slots__ = (
        "_before",
        "_period_end",
        "_period_minimum",
        "_queue_delay",
        "_recovery_start",
        "_round_end",
        "_round_minimum",
        "_slow_start",
        "limit",
        "limited",
        "minimum",
        "minimum_rtt",
        "pace",
        "window",
    )

    def __init__(self, options: Options, limit: int, now: float) -> None:
        """`limit`: what the peer's socket can take at once."""
        self.limit = max(min(options.window_limit, limit), 8 * UNIT)
        self._queue_delay = options.queue_delay
        self.window: float = min(options.initial_window, self.limit)
        self.minimum = 4 * UNIT
        self.minimum_rtt = float("inf")
        self.limited = False
        self.pace = now
        self._slow_start = True
        self._before: float = self.window
        self._recovery_start = float("-inf")
        self._round_end = 0
        self._round_minimum = float("inf")
        self._period_end = now + MINIMUM_RTT_PERIOD
        self._period_minimum = float("inf")

    def resize(self, datagram: int) -> None:
        """Datagrams have this size now: the window never falls below two of them."""
        self.minimum = max(4 * UNIT, 2 * datagram)
        self.window = max(self.window, self.minimum)

    def sample(self, rtt: float, now: float) -> None:
        """A round-trip time, the peer's own delay taken off."""
        if rtt < self._round_minimum:
            self._round_minimum = rtt
        if rtt < self._period_minimum:
            self._period_minimum = rtt
        if rtt < self.minimum_rtt:
            self.minimum_rtt = rtt
        if now >= self._period_end:
            self.minimum_rtt = self._period_minimum
            self._period_minimum = rtt
            self._period_end = now + MINIMUM_RTT_PERIOD

    def acknowledged(self, size: int, largest: int, next_number: int) -> None:
        """`size` bytes up to packet `largest` arrived; `next_number`: the next to be sent."""
        if self._slow_start and self.limited:
            self.window = min(self.window + size, self.limit)
        if largest >= self._round_end:
            if self.limited and self._round_minimum < float("inf"):
                self._end_round(self._round_minimum - self.minimum_rtt)
            self._round_end = next_number
            self._round_minimum = float("inf")
            self.limited = False

    def _end_round(self, queue: float) -> None:
        target = self._queue_delay
        window = self.window
        if self._slow_start:
            if queue <= target / 2:
                return
            self._slow_start = False
        if queue > target:
            fair = (self.minimum_rtt + target) / (self.minimum_rtt + queue)
            window *= max(fair, BETA)
        elif queue < target / 2:
            window += max(UNIT, window / 8)
        else:
            window += UNIT
        self.window = max(min(window, self.limit), self.minimum)

    def lost(self, sent: float, now: float) -> None:
        """A packet sent at `sent` was lost; one cut per round trip."""
        if sent <= self._recovery_start:
            return
        self._before = self.window
        self._recovery_start = now
        self._slow_start = False
        self.window = max(self.window * BETA, self.minimum)

    def spurious(self, sent: float) -> None:
        """A packet taken for lost has arrived after all: undo the cut it caused."""
        if sent <= self._recovery_start and self._before > self.window:
            self.window = self._before

    def paced(self, size: int, rtt: float, now: float) -> None:
        """`size` bytes of bulk leave now: `pace` becomes the time of the next."""
        gain = PACING_GAIN_START if self._slow_start else PACING_GAIN
        earliest = now - BURST_SECONDS
        start = self.pace if self.pace > earliest else earliest
        self.pace = start + size * rtt / (gain * self.window)
