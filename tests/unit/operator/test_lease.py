"""Election by a Lease: one holder at a time, judged by one's own clock."""

from __future__ import annotations

import asyncio

import pytest
from unit.operator.world import World

from distkv_operator.kube.gate import Gate
from distkv_operator.kube.lease import Election, LeaseOptions


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def election(world: World, clock: Clock, who: str) -> Election:
    return Election(Gate(world), LeaseOptions("test", "lease", who, 30.0, 20.0, 0.0), clock)


def holder(world: World) -> str:
    return str(world.objects["leases", "lease"]["spec"]["holderIdentity"])


async def tries(candidate: Election) -> bool:
    """Whether it leads after a few rounds."""
    try:
        await asyncio.wait_for(candidate.acquire(), 0.05)
    except TimeoutError:
        return False
    return True


def test_the_second_waits_until_the_first_has_been_silent_for_long() -> None:
    async def go() -> None:
        world, clock = World(), Clock()
        first, second = election(world, clock, "first"), election(world, clock, "second")
        assert await tries(first)
        assert not await tries(second)
        clock.now += 29
        assert not await tries(second)
        clock.now += 2
        assert await tries(second)
        assert holder(world) == "second"
        assert world.objects["leases", "lease"]["spec"]["leaseTransitions"] == 1

    asyncio.run(go())


def test_a_renewal_begins_the_wait_anew_whatever_its_holders_clock_says() -> None:
    async def go() -> None:
        world, clock = World(), Clock()
        first, second = election(world, clock, "first"), election(world, clock, "second")
        assert await tries(first)
        assert not await tries(second)
        clock.now += 29
        world.objects["leases", "lease"]["spec"]["renewTime"] = "1999-01-01T00:00:00.000000Z"
        assert not await tries(second)
        clock.now += 29
        assert not await tries(second)

    asyncio.run(go())


def test_a_released_lease_is_taken_at_once() -> None:
    async def go() -> None:
        world, clock = World(), Clock()
        first, second = election(world, clock, "first"), election(world, clock, "second")
        assert await tries(first)
        await first.release()
        assert await tries(second)

    asyncio.run(go())


def test_the_holder_stops_when_another_has_the_lease() -> None:
    async def go() -> None:
        world, clock = World(), Clock()
        first = election(world, clock, "first")
        assert await tries(first)
        world.objects["leases", "lease"]["spec"]["holderIdentity"] = "second"
        await asyncio.wait_for(first.hold(), 5)

    asyncio.run(go())


def test_the_holder_stops_when_it_cannot_renew_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def go() -> None:
        world, clock = World(), Clock()
        first = election(world, clock, "first")
        assert await tries(first)

        async def broken() -> str | None:
            clock.now += 7
            return None

        monkeypatch.setattr(first, "_round", broken)
        await asyncio.wait_for(first.hold(), 5)
        assert 20 <= clock.now < 30, "it must give up before another may take over"

    asyncio.run(go())
