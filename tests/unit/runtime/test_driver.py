"""The driver and a disk that refuses: nothing is lost, nothing piles up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from distkv.member.output import Output
from distkv.runtime.driver import Driver
from distkv.storage.base import Put, StorageFull, StorageOperation, Table
from distkv.storage.memory import MemoryEngine


class Disk(MemoryEngine):
    """Refuses writes while `full`."""

    full = False
    refused = 0

    def write(self, batch: Sequence[StorageOperation]) -> None:
        if self.full:
            self.refused += 1
            raise StorageFull("no space")
        super().write(batch)


class OneRow:
    """A member that wants one more row written at every turn."""

    def __init__(self) -> None:
        self.number = 0
        self.disk_full = False
        self.has_work = False
        self.starved: dict[int, int] = {}
        self.told = 0
        self.on_work = lambda: None

    def turn(self, now: float, wall_ms: int) -> Output:
        self.number += 1
        row = Put(Table.META, b"%d" % self.number, b"")
        return Output(self.number, [row], must_flush=True)

    def write_refused(self) -> None:
        pass

    def fail_waiting(self, now: float) -> list[object]:
        self.told += 1
        return []

    def flushed(self, number: int) -> None:
        pass

    def next_timer(self) -> float:
        return asyncio.get_running_loop().time() + 1000


async def _wakes(driver: Driver, times: int) -> None:
    for _ in range(times):
        driver.wake()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


def test_a_full_disk_is_tried_again_by_one_timer_and_no_batch_is_lost() -> None:
    async def run() -> None:
        engine, member = Disk(), OneRow()
        driver = Driver(member, engine, lambda reason: None)  # type: ignore[arg-type]
        timers = 0
        loop = asyncio.get_running_loop()
        call_later = loop.call_later

        def counted(*arguments: object) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return call_later(*arguments)  # type: ignore[arg-type]

        loop.call_later = counted  # type: ignore[method-assign, assignment]
        await _wakes(driver, 3)
        engine.full = True
        await _wakes(driver, 50)
        assert driver.blocked
        assert member.disk_full
        assert member.told >= 40
        assert timers == 1
        blocked_at = member.number
        await _wakes(driver, 5)
        assert member.number == blocked_at, "a turn ran before the last one was written"
        engine.full = False
        await _wakes(driver, 3)
        assert not driver.blocked
        assert not member.disk_full
        rows = {int(key) for key, _ in engine.scan(Table.META, limit=10_000)}
        assert rows == set(range(1, member.number + 1))
        await driver.close()

    asyncio.run(run())
