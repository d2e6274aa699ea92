"""How long a large value may take to arrive, and to be stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from distkv.api.budget import MemoryBudget
from distkv.api.large import LargeValue
from distkv.api.options import MIB, Limits
from distkv.errors import Busy, DeadlineExceeded
from distkv.operations import Store

LIMITS = Limits(request_seconds=10.0, request_seconds_max=300.0, stall_seconds=60.0)


class Slow:
    """An upload that asks for a pause whatever it is given."""

    on_resume: Callable[[], None] | None = None

    def write(self, piece: bytes) -> bool:
        return False

    def finish(self) -> None:
        """Nothing to do."""

    def abort(self) -> None:
        """Nothing to do."""


class SlowStore:
    """Of a store, what a value that arrives needs."""

    def upload(self, length: int | None) -> Slow:
        return Slow()


class Door:
    """An owner whose clock is set by hand."""

    time = 100.0

    def argument_changed(self) -> None:
        """Nothing to do."""

    def now(self) -> float:
        return self.time


def arriving(budget: MemoryBudget) -> LargeValue:
    value = LargeValue(Door(), cast(Store, SlowStore()), budget, LIMITS, 8 * MIB)
    value.begin(True)
    return value


def test_a_store_that_takes_nothing_for_a_while_is_waited_for_as_long_as_a_client() -> None:
    value = arriving(MemoryBudget(64 * MIB))
    value.write(bytes(MIB))
    assert value.paused
    value.check(Door.time + 59.0)
    assert value.refusal is None
    value.check(Door.time + 61.0)
    assert isinstance(value.refusal, DeadlineExceeded)
    assert "60 s" in str(value.refusal)


def test_memory_is_waited_for_as_long_as_a_request_may_take() -> None:
    budget = MemoryBudget(MIB)
    budget.take(2 * MIB)
    value = arriving(budget)
    assert value.paused
    value.check(Door.time + 9.0)
    assert value.refusal is None
    value.check(Door.time + 11.0)
    assert isinstance(value.refusal, Busy)


def test_a_large_value_may_take_longer_to_be_stored_but_not_for_ever() -> None:
    assert LIMITS.seconds_to_store(0) == 10.0
    assert LIMITS.seconds_to_store(4 * MIB) == 10.0 + 32.0
    assert LIMITS.seconds_to_store(256 * MIB) == 300.0
