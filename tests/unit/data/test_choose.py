"""The choice of k_e against every fixed one, in synthetic worlds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from distkv.data.choose import Chooser, Measurements, completion

MEMBERS = (0, 1, 2, 3, 4)
FAILURES = 2
Answer = Callable[[random.Random, int, int], float]


def steady(random_: random.Random, ordinal: int, count: int) -> float:
    """Quick disks, a link of 20 MB/s: bytes are all that matters."""
    return 0.001 + count / 20e6 + random_.expovariate(10_000)


def spiky(random_: random.Random, ordinal: int, count: int) -> float:
    """Each flush has a chance of 1 % to take 100 ms: one straggler must be borne."""
    slow = 0.1 if random_.random() < 0.01 else 0.0
    return 0.001 + slow + count / 100e6 + random_.expovariate(2000)


def one_slow(random_: random.Random, ordinal: int, count: int) -> float:
    """One member's disk is slow for good."""
    return (0.05 if ordinal == 3 else 0.001) + count / 100e6 + random_.expovariate(5000)


def two_slow(random_: random.Random, ordinal: int, count: int) -> float:
    """Two members sit behind slow links: whole copies on the others are quicker."""
    rate = 2e6 if ordinal in (1, 2) else 200e6
    return 0.001 + count / rate + random_.expovariate(5000)


def finish(times: list[float], data_shards: int) -> float:
    return sorted(times)[data_shards + FAILURES - 1]


def p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def run(answer: Answer, fixed: int | None, length: int, count: int) -> list[float]:
    """Completion times of values, the first quarter being practice; the k_e chosen too."""
    random_ = random.Random(5)
    measurements = Measurements()
    chooser = Chooser(measurements)
    taken = []
    for _ in range(count):
        data_shards = fixed or chooser.choose(length, 3, FAILURES, MEMBERS)
        size = length // data_shards
        times = [answer(random_, ordinal, size) for ordinal in MEMBERS]
        for ordinal, seconds in zip(MEMBERS, times, strict=True):
            measurements.add(ordinal, size, seconds)
        taken.append(finish(times, data_shards))
    return taken[count // 4 :]


@pytest.mark.parametrize(
    ("answer", "best"), [(steady, 3), (spiky, 2), (one_slow, 2), (two_slow, 1)]
)
def test_beats_every_fixed_code_at_p99(answer: Answer, best: int) -> None:
    length = 400_000
    fixed = {k: p99(run(answer, k, length, 8000)) for k in (1, 2, 3)}
    assert min(fixed, key=lambda k: fixed[k]) == best
    chosen = p99(run(answer, None, length, 8000))
    assert chosen <= min(fixed.values()) * 1.05, fixed
    assert all(chosen < value for k, value in fixed.items() if k != best)


def test_beats_every_fixed_code_when_the_world_changes() -> None:
    """No fixed code is right throughout: links first, then stragglers, then links again."""
    phases = [steady, one_slow, two_slow, steady]
    length, each = 400_000, 3000

    def world(fixed: int | None) -> list[float]:
        random_ = random.Random(3)
        measurements = Measurements()
        chooser = Chooser(measurements)
        taken = []
        for answer in phases:
            for number in range(each):
                data_shards = fixed or chooser.choose(length, 3, FAILURES, MEMBERS)
                size = length // data_shards
                times = [answer(random_, ordinal, size) for ordinal in MEMBERS]
                for ordinal, seconds in zip(MEMBERS, times, strict=True):
                    measurements.add(ordinal, size, seconds)
                if number >= 600:
                    taken.append(finish(times, data_shards))
        return taken

    chosen = world(None)
    for k in (1, 2, 3):
        other = world(k)
        assert p99(chosen) < p99(other) * 1.02
        assert sum(chosen) < sum(other)


def busy(random_: random.Random, ordinal: int, count: int) -> float:
    """All share a machine that keeps them waiting, now for one, now for another."""
    return 0.004 + count / 100e6 + random_.expovariate(400)


def test_nobody_is_slower_than_the_others_on_a_busy_machine() -> None:
    """Whole copies of 8 kB were a tenth of what a quiet laptop stored, and of 50 kB most of what a
    busy one did; with fewer of them 200 kB took less time, too."""
    random_, measurements = random.Random(4), Measurements()
    chooser, chosen = Chooser(measurements), []
    for _ in range(4000):
        chosen.append(chooser.choose(8000, 3, FAILURES, MEMBERS))
        for ordinal in MEMBERS:
            size = 8000 // chosen[-1]
            measurements.add(ordinal, size, busy(random_, ordinal, size))
    assert chosen.count(1) == 0
    assert chosen.count(3) > 0.9 * len(chosen)


@pytest.mark.parametrize("most", [1, 2, 3])
def test_never_beyond_the_limits(most: int) -> None:
    measurements = Measurements()
    chooser = Chooser(measurements)
    random_ = random.Random(1)
    chosen = []
    for _ in range(2000):
        chosen.append(chooser.choose(50_000, most, FAILURES, MEMBERS))
        for ordinal in MEMBERS:
            measurements.add(ordinal, 50_000 // chosen[-1], steady(random_, ordinal, 16_000))
    assert set(chosen) <= set(range(1, most + 1))
    assert len(set(chosen)) >= min(2, most), "other codes are tried now and then"


def test_completion_is_the_quantile_of_the_order_statistic() -> None:
    random_ = random.Random(2)
    samples = [sorted(random_.expovariate(1 + i) for _ in range(200)) for i in range(5)]
    for need in (1, 3, 5):
        drawn = sorted(
            sorted(random_.choice(each) for each in samples)[need - 1] for _ in range(20_000)
        )
        predicted = completion(samples, need)
        share = sum(each <= predicted for each in drawn) / len(drawn)
        assert 0.985 <= share <= 0.996
    assert completion(samples, 6) == float("inf")


def test_lateness_follows_what_was_measured() -> None:
    measurements = Measurements()
    assert measurements.late_after(0, 1000) == pytest.approx(1.0, abs=0.001)
    # Not measured yet: a large shard on a slow link is not taken for silence.
    assert measurements.late_after(0, 10_000_000) > 5.0
    random_ = random.Random(4)
    for _ in range(200):
        measurements.add(0, 1000, 0.2 + random_.random() * 0.02)
        measurements.add(1, 1000, 0.001)
    assert 0.3 < measurements.late_after(0, 1000) < 0.7
    assert measurements.late_after(1, 1000) == 0.05
    for _ in range(50):
        measurements.add(2, 1000, 60.0)
    assert measurements.late_after(2, 1000) == 5.0
