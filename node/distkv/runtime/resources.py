"""One line a minute on what the process uses, and the watch over free disk space."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from distkv.api.process import MIB, resident_bytes
from distkv.runtime.driver import Driver
from distkv.runtime.memory import Trimmer

if TYPE_CHECKING:
    from distkv.runtime.doors import Doors

log = logging.getLogger("distkv.resources")

SPACE_SECONDS = 1.0


class ResourceLog:
    """Looks at free space and at rest once a second, and logs a line `every` so many seconds."""

    def __init__(self, every: float, driver: Driver) -> None:
        self._every = every
        self._driver = driver
        self._doors: Doors | None = None
        self._trimmer = Trimmer()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, doors: Doors) -> None:
        """Begin."""
        self._doors = doors
        self._tasks = [
            asyncio.ensure_future(self._report()),
            asyncio.ensure_future(self._watch_space()),
        ]

    def stop(self) -> None:
        """End."""
        for task in self._tasks:
            task.cancel()

    async def _watch_space(self) -> None:
        """Turn read-only while there is still room for what consensus must write."""
        while True:
            self._driver.look_at_space()
            self._trimmer.look(self._in_flight())
            await asyncio.sleep(SPACE_SECONDS)

    def _in_flight(self) -> int:
        """Bytes of requests and of values being written or read."""
        seat = self._driver.member.seat
        doors = 0 if self._doors is None else self._doors.budget.used
        return doors + (0 if seat is None else seat.data.budget.used)

    async def _report(self) -> None:
        clock, cpu = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(self._every)
            now, used = time.monotonic(), time.process_time()
            driver = self._driver
            usage = driver.engine.usage()
            seat = driver.member.seat
            log.info(
                "resources: memory %d MiB, CPU %.1f %%, disk %d MiB of which live %d MiB, "
                "free %d MiB, connections %d, turns %d, flushes %d, applied %d",
                resident_bytes() // MIB,
                100 * (used - cpu) / (now - clock),
                usage.on_disk // MIB,
                usage.live // MIB,
                usage.free // MIB,
                0 if self._doors is None else self._doors.connections,
                driver.turns,
                driver.flushes,
                0 if seat is None else seat.machine.applied,
            )
            clock, cpu = now, used
