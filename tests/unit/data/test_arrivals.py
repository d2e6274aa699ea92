"""How long what was asked for takes, told from how quickly anything arrives."""

from __future__ import annotations

import pytest

from distkv.data.arrivals import GAP_SECONDS, Arrivals
from distkv.data.choose import SLOWEST_LINK


def steady(arrivals: Arrivals, rate: float, seconds: float, now: float = 0.0) -> float:
    """Pieces of 10 kB one after the other at `rate` bytes per second; the time after them."""
    end = now + seconds
    while now < end:
        arrivals.asked(now, 1, 10_000)
        now += 10_000 / rate
        arrivals.arrived(now, 10_000)
        arrivals.ended(1)
        now += 0.5  # nothing is asked for: that says nothing of the link
    return now


@pytest.mark.parametrize("rate", [SLOWEST_LINK, 1_250_000.0])
def test_what_is_under_way_waits_for_the_link(rate: float) -> None:
    arrivals = Arrivals()
    now = steady(arrivals, rate, 20.0)
    assert arrivals.wait() == 0.0
    for request in (2, 3, 4):
        arrivals.asked(now, request, 1_000_000)
    assert arrivals.wait() == pytest.approx(3_000_000 / rate, rel=0.01)
    arrivals.ended(3)
    assert arrivals.wait() == pytest.approx(2_000_000 / rate, rel=0.01)


def test_before_anything_came_the_link_is_taken_for_a_slow_one() -> None:
    arrivals = Arrivals()
    arrivals.asked(0.0, 1, 500_000)
    assert arrivals.wait() == pytest.approx(1.0)


def test_the_silence_of_one_member_is_not_the_rate_of_the_link() -> None:
    arrivals = Arrivals()
    now = steady(arrivals, 1_000_000.0, 200.0)
    arrivals.asked(now, 2, 1_000_000)
    arrivals.arrived(now + 60.0, 1_000_000)
    assert arrivals.wait() < 1.0 + GAP_SECONDS
    arrivals.ended(2)
    steady(arrivals, 1_000_000.0, 2000.0, now + 60.0)
    arrivals.asked(5000.0, 3, 1_000_000)
    assert arrivals.wait() == pytest.approx(1.0, rel=0.05)


def test_a_member_that_hangs_does_not_make_small_reads_wait_for_it() -> None:
    """The storm's reads met their deadline: few bytes had come in the time of its silence."""
    arrivals = Arrivals()
    now = 0.0
    for request in range(20):
        arrivals.asked(now, request, 1000)
        now += 5.0
        arrivals.arrived(now, 1000)
        arrivals.ended(request)
    arrivals.asked(now, 99, 3000)
    assert arrivals.wait() <= 3000 / SLOWEST_LINK


def test_an_answer_that_nobody_waits_for_changes_nothing() -> None:
    arrivals = Arrivals()
    now = steady(arrivals, 1_000_000.0, 50.0)
    arrivals.arrived(now + 100.0, 10)
    arrivals.ended(99)
    arrivals.asked(now + 100.0, 2, 1_000_000)
    assert arrivals.wait() == pytest.approx(1.0, rel=0.01)
