"""How many data shards a value gets: bytes against the wait for the slowest disk and link.

With k_e data shards the sender waits for the (k_e + f)-th quickest of the members. A larger
k_e sends fewer bytes, a smaller one leaves more stragglers behind. From running measurements
of every member (all are sent a shard whatever k_e is, and late acknowledgements count here,
so all stay fresh) the time of the order statistic is computed as a mixture: for a time t,
the chance that at least k_e + f members answered is a Poisson-binomial sum over the members'
measured distributions (Hong 2013). The k_e with the least 99th percentile wins, as far as
that is worth its bytes.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

SAMPLES = 256
"""Last acknowledgements kept for each member: what a 99th percentile needs."""

_REFRESH = 64
"""Choices from one computation before it is made again."""

_EXPLORE = 509
"""Every so many choices the next larger or smaller code is used: both sizes of a piece
must be measured for the bytes to be told from the latency."""

_QUANTILE = 0.99
_WORTH_POWER = 1.5
"""A smaller code costs bytes on every link and disk for good (3 to 2 data shards: half as much
again), which makes a busy machine busier; and it is predicted as if members were slow
independently of each other, which flatters it there. So the wait must shrink by more than the
bytes grow, by this power of it: to less than a fifth for whole copies instead of 3 data shards."""
_FIRST_GUESS = 0.005
_FIRST_RATE = 1e-8
"""Seconds per byte that a member is taken for until it was measured (100 MB/s)."""

_DECAY = 0.995
"""Weight of a sample against the one after it. Pieces of another size are rare under a
steady load, so those few must be remembered for some hundred samples."""

_SPREAD_MIN = 3e-4
"""Below this relative variance of sizes nothing new can be said about the rate."""

_OUTLIER = 4.0
"""A time further off than so many deviations counts as that far: one stalled flush must not
be taken for a slow link."""

SLOWEST_LINK = 250_000
"""Bytes per second (2 Mbit/s): what takes longer is not the link's doing."""
_LATE_MIN = 0.05
LATE_MAX = 5.0
"""Seconds after which a silent member is gone round, however long it usually takes."""
_LATE_UNKNOWN = 1.0
_LATE_UNKNOWN_RATE = 5e-7
"""Of a member not measured yet, seconds for each byte: going round it costs all the bytes
again, so a slow link (2 MB/s) must not look like silence."""
_SPREAD_UNKNOWN = 8


@dataclass(slots=True)
class _Line:
    """Exponentially weighted least squares of seconds = base + rate * bytes."""

    rate: float = _FIRST_RATE
    weight: float = 1.0
    x: float = 0.0
    y: float = _FIRST_GUESS
    xx: float = 1e10
    xy: float = 1e10 * _FIRST_RATE

    def add(self, x: float, y: float) -> None:
        self.weight = self.weight * _DECAY + 1.0
        self.x = self.x * _DECAY + x
        self.y = self.y * _DECAY + y
        self.xx = self.xx * _DECAY + x * x
        self.xy = self.xy * _DECAY + x * y
        spread = self.xx * self.weight - self.x * self.x
        if spread > _SPREAD_MIN * self.x * self.x:
            self.rate = max(0.0, (self.xy * self.weight - self.x * self.y) / spread)

    def solve(self) -> tuple[float, float]:
        """(base, rate), neither below zero."""
        rate = min(self.rate, self.y / self.x) if self.x > 0 else self.rate
        return max(0.0, (self.y - rate * self.x) / self.weight), rate


@dataclass(slots=True)
class _Measured:
    line: _Line = field(default_factory=_Line)
    samples: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    deviation: float = 0.0
    """EWMA of the absolute error of the line."""


class Measurements:
    """Time from the first piece sent to the durable acknowledgement, for each member."""

    def __init__(self) -> None:
        self._members: dict[int, _Measured] = {}
        self.count = 0

    def add(self, ordinal: int, count: int, seconds: float) -> None:
        """`ordinal` acknowledged a shard of `count` bytes after `seconds`."""
        measured = self._members.setdefault(ordinal, _Measured())
        base, rate = measured.line.solve()
        usual = base + rate * count
        error = abs(seconds - usual)
        seen = len(measured.samples)
        measured.deviation += (error - measured.deviation) / min(16, seen + 1)
        if seen >= _SPREAD_UNKNOWN:
            most = _OUTLIER * measured.deviation
            measured.line.add(count, min(usual + most, max(usual - most, seconds)))
        else:
            measured.line.add(count, seconds)
        measured.samples.append((count, seconds))
        self.count += 1

    def expected(self, ordinal: int, count: int) -> float:
        """Seconds that a shard of `count` bytes takes there, on average."""
        measured = self._members.get(ordinal)
        if measured is None:
            return _FIRST_GUESS + _FIRST_RATE * count
        base, rate = measured.line.solve()
        return base + rate * count

    def late_after(self, ordinal: int, count: int) -> float:
        """Seconds after which a member that has not answered is worth going round."""
        measured = self._members.get(ordinal)
        if measured is None or len(measured.samples) < _SPREAD_UNKNOWN:
            return _LATE_UNKNOWN + _LATE_UNKNOWN_RATE * count
        usual = 2 * self.expected(ordinal, count) + 4 * measured.deviation
        return min(LATE_MAX, max(_LATE_MIN, usual))

    def times(self, ordinal: int, count: int) -> list[float]:
        """Sorted times that shards of `count` bytes would have taken, from the last ones."""
        measured = self._members.get(ordinal)
        if measured is None or not measured.samples:
            return [self.expected(ordinal, count)]
        rate = measured.line.solve()[1]
        return sorted(max(0.0, t + rate * (count - size)) for size, t in measured.samples)


def _at_least(chances: list[float], need: int) -> float:
    """Probability that at least `need` of independent events happen."""
    exactly = [1.0] + [0.0] * len(chances)
    for done, chance in enumerate(chances):
        for i in range(done + 1, 0, -1):
            exactly[i] += (exactly[i - 1] - exactly[i]) * chance
        exactly[0] *= 1.0 - chance
    return sum(exactly[need:])


def completion(times: list[list[float]], need: int, quantile: float = _QUANTILE) -> float:
    """Time by which `need` of the members answered with probability `quantile`.

    `times`: sorted samples of each member, equally likely.
    """
    if need > len(times):
        return float("inf")
    grid = sorted(t for samples in times for t in samples)
    low, high = 0, len(grid) - 1
    while low < high:
        middle = (low + high) // 2
        chances = [_share(samples, grid[middle]) for samples in times]
        if _at_least(chances, need) >= quantile:
            high = middle
        else:
            low = middle + 1
    return grid[low]


def _share(samples: list[float], t: float) -> float:
    """Share of sorted `samples` that are <= t."""
    low, high = 0, len(samples)
    while low < high:
        middle = (low + high) // 2
        if samples[middle] <= t:
            low = middle + 1
        else:
            high = middle
    return low / len(samples)


class Chooser:
    """Picks k_e for each value; remembers the answer for a size and a set of members."""

    def __init__(self, measurements: Measurements) -> None:
        self._measurements = measurements
        self._answers: dict[tuple[int, int, int, tuple[int, ...]], tuple[int, int]] = {}
        self._choices = 0

    def choose(self, length: int, most: int, failures: int, ordinals: tuple[int, ...]) -> int:
        """k_e in 1..most for a value of `length` bytes sent to `ordinals`."""
        if most <= 1:
            return 1
        self._choices += 1
        best = self._best(length, most, failures, ordinals)
        if self._choices % _EXPLORE == 0:
            return best + 1 if best < most else best - 1
        return best

    def _best(self, length: int, most: int, failures: int, ordinals: tuple[int, ...]) -> int:
        size_class = length.bit_length()
        key = (size_class, most, failures, ordinals)
        known = self._answers.get(key)
        if known is not None and known[1] > self._choices:
            return known[0]
        best, least = most, float("inf")
        for data_shards in range(most, 0, -1):
            count = (3 << size_class >> 2) // data_shards
            times = [self._measurements.times(ordinal, count) for ordinal in ordinals]
            predicted = completion(times, data_shards + failures)
            if predicted < least * (data_shards / best) ** _WORTH_POWER:
                best, least = data_shards, predicted
        if len(self._answers) >= 1024:
            self._answers.clear()
        self._answers[key] = (best, self._choices + _REFRESH)
        return best
