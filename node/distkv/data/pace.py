"""How fast background work may go: never above a configured rate, and less while clients wait.

Repair, re-striping and scrubbing share one bucket of bytes. Every half second the latency of
the node's own requests is compared with what is usual for them when the background rests:
clearly above it the rate falls by a third, else it rises again by an eighth (additive-increase
would take minutes from the floor). A floor keeps repair going under any load, because a
cluster that does not heal loses data.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from distkv.kernel import Kernel

ADJUST_SECONDS = 0.5
FALL = 2 / 3
RISE = 9 / 8
FLOOR_SHARE = 1 / 32
"""Of the configured rate: what background work is always given."""
SLOWER = 1.5
"""Requests that take so many times as long as usual ..."""
SLOWER_SECONDS = 0.002
"""... and at least so much longer, are being disturbed."""
SAMPLES = 64
SAMPLES_MIN = 4
QUIET_SECONDS = 1.0
"""Without background work for this long, what is measured is the usual latency."""
NAP_SECONDS = 1.0
"""Who waits longer looks so often whether the configured rate is another one now."""
_LEARN = 0.2
_FORGET = 1.01
"""What is usual rises by so much for each look if the background never rests: the load itself
may have changed."""


@dataclass(slots=True)
class _Kind:
    """One kind of request: like is compared with like only."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    usual: float = 0.0


def _high(samples: deque[float]) -> float:
    """Their 90th percentile, seconds."""
    return sorted(samples)[len(samples) * 9 // 10]


class Pace:
    """One for each node. `most`: bytes per second."""

    def __init__(self, kernel: Kernel, most: float) -> None:
        self._kernel = kernel
        self.most = most
        self.rate = most
        """Bytes per second, now."""
        self._spent_until = 0.0
        self._worked_at = float("-inf")
        self._look_at = 0.0
        self._kinds: dict[int, _Kind] = {}

    def limit(self, most: float) -> None:
        """`most` bytes per second from now on; what is not paid for yet is paid for at that."""
        now = self._kernel.now
        self._spent_until = now + (self._spent_until - now) * self.most / most
        self.most = self.rate = most

    def observe(self, kind: int, seconds: float) -> None:
        """A request of a client took so long."""
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind()
        known.recent.append(seconds)
        if self._kernel.now >= self._look_at:
            self._look()

    async def spend(self, count: float) -> None:
        """`count` bytes were moved: wait until they are paid for. Holds one second's worth."""
        now = self._kernel.now
        if now >= self._look_at:
            self._look()
        self._worked_at = now
        until = self._spent_until = max(self._spent_until, now - 1.0) + count / self.rate
        most = self.most
        while until > now:
            await self._kernel.sleep(min(NAP_SECONDS, until - now))
            now = self._kernel.now
            until = now + (until - now) * most / self.most
            most = self.most

    def _look(self) -> None:
        """Compare, and change the rate."""
        now = self._kernel.now
        self._look_at = now + ADJUST_SECONDS
        working = now - self._worked_at < QUIET_SECONDS
        disturbed = False
        for kind in self._kinds.values():
            if len(kind.recent) < SAMPLES_MIN:
                continue
            high = _high(kind.recent)
            kind.recent.clear()
            if not kind.usual:
                kind.usual = high
            elif not working:
                kind.usual += _LEARN * (high - kind.usual)
            else:
                disturbed |= high > SLOWER * kind.usual and high > kind.usual + SLOWER_SECONDS
                kind.usual = min(high, kind.usual * _FORGET)
        if working and disturbed:
            self.rate = max(self.most * FLOOR_SHARE, self.rate * FALL)
        else:
            self.rate = min(self.most, self.rate * RISE)
