"""An HTTP listener: admits connections and holds what they share."""

from __future__ import annotations

import asyncio
import contextlib

from distkv.api.budget import AnswerEstimate, MemoryBudget
from distkv.api.http.connection import HttpConnection
from distkv.api.http.exchange import Application
from distkv.api.metrics import DoorMetrics
from distkv.api.options import Limits, Listen
from distkv.operations import Store

CHECK_SECONDS = 1.0


class HttpServer:
    """`await start()`, then `port`; `await close()`. `application`: `kv.KvApplication` or
    `admin.AdminRouter`.
    """

    def __init__(
        self,
        store: Store,
        application: Application,
        listen: Listen,
        limits: Limits,
        budget: MemoryBudget | None = None,
        metrics: DoorMetrics | None = None,
    ) -> None:
        self.store = store
        self.application = application
        self.limits = limits
        self.budget = budget or MemoryBudget(limits.memory_in_flight_max)
        self.metrics = metrics or DoorMetrics("http")
        self.estimate = AnswerEstimate()
        self.loop = asyncio.get_running_loop()
        self.connections: set[HttpConnection] = set()
        self.closing = False
        self._listen = listen
        self._listener: asyncio.Server | None = None
        self._checking: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Event | None = None

    async def start(self) -> None:
        """Listen. Raises OSError (address in use, ...)."""
        listen = self._listen
        self._listener = await self.loop.create_server(
            lambda: HttpConnection(self), listen.host, listen.port, backlog=listen.backlog
        )
        self._check()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._listener is not None, "not started"
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def admit(self, connection: HttpConnection) -> bool:
        """False: there are `connections_max` clients already."""
        if len(self.connections) >= self.limits.connections_max:
            self.metrics.refused += 1
            return False
        self.metrics.accepted += 1
        self.connections.add(connection)
        self.metrics.connections = len(self.connections)
        return True

    def forget(self, connection: HttpConnection) -> None:
        """A client is gone."""
        self.connections.discard(connection)
        self.metrics.connections = len(self.connections)
        if not self.connections and self._emptied is not None:
            self._emptied.set()

    def _check(self) -> None:
        now = self.store.now()
        for connection in list(self.connections):
            connection.check(now)
        self._checking = self.loop.call_later(CHECK_SECONDS, self._check)

    async def close(self, grace_seconds: float = 1.0) -> None:
        """Stop listening, let begun requests end for `grace_seconds`, then cut off the rest."""
        self.closing = True
        if self._checking is not None:
            self._checking.cancel()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections):
            connection.shut()
        if self.connections:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), grace_seconds)
        for connection in list(self.connections):
            connection.abort()
