"""Background work keeps to its rate, gives way to clients, and never stands still."""

from __future__ import annotations

from distkv.data.meter import Meter
from distkv.data.pace import FLOOR_SHARE, Pace
from distkv.kernel import Kernel

MOST = 32_000_000.0
STEP = 0.05


class Bench:
    """A kernel, a pace, and clients whose requests take as long as they are told to."""

    def __init__(self) -> None:
        self.kernel = Kernel()
        self.pace = Pace(self.kernel, MOST)
        self.moved = 0
        self.working = False
        self.kernel.spawn(self._work())

    async def _work(self) -> None:
        while True:
            if self.working:
                self.moved += 100_000
                await self.pace.spend(100_000)
            else:
                await self.kernel.sleep(STEP)

    def run(self, seconds: float, latency: float | None) -> float:
        """Let time pass; bytes moved per second."""
        before, end = self.moved, self.kernel.now + seconds
        while self.kernel.now < end:
            self.kernel.run(self.kernel.now + STEP / 5)
            if latency is not None:
                self.pace.observe(0, latency)
        return (self.moved - before) / seconds


def test_without_clients_it_goes_at_the_configured_rate() -> None:
    bench = Bench()
    bench.working = True
    assert 0.95 * MOST < bench.run(20.0, None) < 1.1 * MOST


def test_it_slows_down_when_requests_take_longer_than_usual_and_comes_back() -> None:
    bench = Bench()
    bench.run(5.0, 0.004)
    bench.working = True
    assert bench.run(5.0, 0.004) > 0.9 * MOST, "undisturbed clients slow nothing down"
    bench.run(5.0, 0.012)
    assert bench.pace.rate < 0.1 * MOST
    bench.run(60.0, 0.004)
    assert bench.pace.rate == MOST


def test_another_rate_takes_effect_at_once() -> None:
    """Who had moved much at a low rate slept on for as long as that had wanted."""
    bench = Bench()
    bench.pace.limit(1000.0)
    bench.working = True
    assert bench.run(5.0, None) <= 2 * 100_000 / 5, "a hundred seconds for each"
    bench.pace.limit(MOST)
    assert bench.run(20.0, None) > 0.9 * MOST
    bench.pace.limit(100_000.0)
    bench.run(2.0, None)
    assert 0.9 * 100_000 < bench.run(20.0, None) < 1.1 * 100_000


def test_there_is_a_floor() -> None:
    bench = Bench()
    bench.run(5.0, 0.004)
    bench.working = True
    bench.run(20.0, 0.5)
    assert bench.pace.rate >= MOST * FLOOR_SHARE
    assert bench.run(10.0, 0.5) > 0.9 * MOST * FLOOR_SHARE


def test_a_load_that_is_slow_by_itself_is_not_blamed_for_ever() -> None:
    bench = Bench()
    bench.run(5.0, 0.004)
    bench.working = True
    bench.run(10.0, 0.008)
    assert bench.pace.rate < 0.5 * MOST
    bench.run(120.0, 0.008)
    assert bench.pace.rate > 0.5 * MOST


def test_small_differences_are_noise() -> None:
    bench = Bench()
    bench.run(5.0, 0.0003)
    bench.working = True
    bench.run(20.0, 0.0015)
    assert bench.pace.rate == MOST


def test_a_meter_tells_the_rate_of_late_and_what_is_left() -> None:
    meter = Meter()
    assert meter.seconds_left(0.0, 100) is None
    for second in range(10):
        meter.add(float(second), 100)
    assert 90 <= meter.rate(10.0) <= 110
    assert 9 <= (meter.seconds_left(10.0, 1000) or 0) <= 11
    assert meter.seconds_left(10.0, 0) == 0.0
    assert meter.rate(100.0) == 0.0
