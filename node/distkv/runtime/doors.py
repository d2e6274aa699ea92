"""The doors of a node: RESP, HTTP, admin and gateway link over one store and one budget."""

from __future__ import annotations

from distkv.api.budget import MemoryBudget
from distkv.api.resp.server import RespServer
from distkv.config import Config
from distkv.runtime.driver import Driver
from distkv.runtime.options import resp_options
from distkv.runtime.store import NodeStore


class Doors:
    """See the module."""

    def __init__(self, config: Config, store: NodeStore, driver: Driver) -> None:
        self.budget = MemoryBudget(config.limits.memory_in_flight_max)
        self.resp = RespServer(store, resp_options(config), self.budget)

    @property
    def connections(self) -> int:
        """Open client connections."""
        return self.resp.metrics.connections

    async def start(self) -> None:
        await self.resp.start()

    def stop_admitting(self) -> None:
        pass

    async def close(self) -> None:
        await self.resp.close()


async def open_doors(config: Config, store: NodeStore, driver: Driver) -> Doors:
    """Listen on every door. Raises OSError naming the address."""
    doors = Doors(config, store, driver)
    await doors.start()
    return doors
