"""A node's own store, as its doors see it: the member, woken by every request."""

from __future__ import annotations

import asyncio

from distkv.errors import DiskFull
from distkv.kernel import Future
from distkv.operations import Operation, Upload
from distkv.runtime.driver import Driver


class NodeStore:
    """Implements `operations.Store`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._member = driver.member
        self._loop = asyncio.get_running_loop()

    def execute(self, operation: Operation, deadline: float) -> Future[object]:
        """See operations.Store."""
        if self._driver.blocked:
            future: Future[object] = Future()
            future.set_exception(DiskFull("the disk of this node is full; ask another node"))
            return future
        return self._member.execute(operation, deadline)

    def upload(self, length: int | None) -> Upload:
        """See operations.Store."""
        return self._member.upload(length)

    def now(self) -> float:
        """See operations.Store."""
        return self._loop.time()

    def status(self) -> dict[str, object]:
        """See operations.Store."""
        return self._driver.status()

    def health(self) -> dict[str, object]:
        """See operations.Store."""
        return self._member.health()
