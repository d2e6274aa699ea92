"""How quickly something goes on, over the last while."""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 20.0
STEP_SECONDS = 0.5


class Meter:
    """Sums up counts (bytes, mostly) and tells their rate per second."""

    def __init__(self) -> None:
        self.total = 0
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, now: float, count: int) -> None:
        """`count` more were done at `now`."""
        if not self._marks or now - self._marks[-1][0] >= STEP_SECONDS:
            self._marks.append((now, self.total))
            while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW_SECONDS:
                self._marks.popleft()
        self.total += count

    def rate(self, now: float) -> float:
        """Per second, over the last WINDOW_SECONDS or what is known of them."""
        while self._marks and now - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()
        if not self._marks:
            return 0.0
        since, before = self._marks[0]
        return (self.total - before) / max(now - since, STEP_SECONDS)

    def seconds_left(self, now: float, remaining: int) -> float | None:
        """At the present rate; 0 if nothing remains, None if nothing moves."""
        if remaining <= 0:
            return 0.0
        rate = self.rate(now)
        return remaining / rate if rate > 0 else None
