"""The gateway-link listener of a node."""

from __future__ import annotations

import asyncio

from distkv.api.budget import MemoryBudget
from distkv.api.link.serving import LinkServing
from distkv.api.metrics import DoorMetrics, Series
from distkv.api.options import LinkOptions
from distkv.operations import Operation, Store

HELLO_SECONDS = 5.0


class LinkServer:
    """`await start()`, then `port`; `await close()`."""

    def __init__(
        self,
        store: Store,
        options: LinkOptions,
        budget: MemoryBudget | None = None,
        metrics: DoorMetrics | None = None,
        hello_seconds: float = HELLO_SECONDS,
    ) -> None:
        self.store = store
        self.options = options
        self.budget = budget or MemoryBudget(options.limits.memory_in_flight_max)
        self.metrics = metrics or DoorMetrics("link")
        self.hello_seconds = hello_seconds
        self.loop = asyncio.get_running_loop()
        self.closing = False
        self.connections: set[LinkServing] = set()
        self._series: dict[type[Operation], Series] = {}
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError (address in use, ...)."""
        listen = self.options.listen
        self._listener = await self.loop.create_server(
            lambda: LinkServing(self), listen.host, listen.port, backlog=listen.backlog
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._listener is not None, "not started"
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def series(self, operation: Operation) -> Series:
        """Counters of this kind of operation."""
        kind = type(operation)
        series = self._series.get(kind)
        if series is None:
            series = self._series[kind] = self.metrics.kind(kind.__name__.lower())
        return series

    def admit(self, connection: LinkServing) -> bool:
        """False: there are `connections_max` links already."""
        if len(self.connections) >= self.options.limits.connections_max:
            self.metrics.refused += 1
            return False
        self.metrics.accepted += 1
        self.connections.add(connection)
        self.metrics.connections = len(self.connections)
        return True

    def forget(self, connection: LinkServing) -> None:
        """A gateway is gone."""
        self.connections.discard(connection)
        self.metrics.connections = len(self.connections)

    async def close(self) -> None:
        """Stop listening and tell every gateway to go elsewhere."""
        self.closing = True
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.shut()
