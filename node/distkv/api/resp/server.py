"""The RESP door: listens, admits, and holds what its connections share."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable

from distkv.api.budget import AnswerEstimate, MemoryBudget
from distkv.api.metrics import DoorMetrics, Series
from distkv.api.options import RespOptions
from distkv.api.resp.commands import TABLE
from distkv.api.resp.connection import RespConnection
from distkv.api.resp.cursors import Cursors
from distkv.api.resp.table import Command
from distkv.operations import Store

CHECK_SECONDS = 1.0


class RespServer:
    """`await start()`, then `port`; `await close()`. Share `budget` among all doors."""

    def __init__(
        self,
        store: Store,
        options: RespOptions,
        budget: MemoryBudget | None = None,
        metrics: DoorMetrics | None = None,
    ) -> None:
        self.store = store
        self.options = options
        self.budget = budget or MemoryBudget(options.limits.memory_in_flight_max)
        self.metrics = metrics or DoorMetrics("resp")
        self.estimate = AnswerEstimate()
        self.cursors = Cursors(options.limits.cursors_max)
        self.loop = asyncio.get_running_loop()
        self.connections: dict[int, RespConnection] = {}
        self.started = store.now()
        self.commands: dict[str, Command] = {command.name: command for command in TABLE}
        self._bound: dict[bytes, tuple[Command, Series]] = {}
        for command in TABLE:
            bound = (command, self.metrics.kind(command.name))
            self._bound[command.name.encode()] = bound
            self._bound[command.name.upper().encode()] = bound
        self._identities = itertools.count(1)
        self._listener: asyncio.Server | None = None
        self._emptied: asyncio.Event | None = None
        self._checking: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listen. Raises OSError (address in use, ...)."""
        listen = self.options.listen
        self._listener = await self.loop.create_server(
            lambda: RespConnection(self), listen.host, listen.port, backlog=listen.backlog
        )
        self._check()

    @property
    def port(self) -> int:
        """The port it listens on."""
        assert self._listener is not None, "not started"
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    def find(self, name: object) -> tuple[Command, Series] | None:
        """A command by name, in whatever case."""
        bound = self._bound.get(name)  # type: ignore[call-overload]
        if bound is None and isinstance(name, bytes) and len(name) <= 32:
            bound = self._bound.get(name.upper())
        found: tuple[Command, Series] | None = bound
        return found

    def next_identity(self) -> int:
        """Number of a new client."""
        return next(self._identities)

    def admit(self, connection: RespConnection) -> bool:
        """False: there are `connections_max` clients already."""
        if len(self.connections) >= self.options.limits.connections_max:
            self.metrics.refused += 1
            return False
        self.metrics.accepted += 1
        self.connections[connection.identity] = connection
        self.metrics.connections = len(self.connections)
        return True

    def forget(self, connection: RespConnection) -> None:
        """A client is gone."""
        self.connections.pop(connection.identity, None)
        if not self.connections and self._emptied is not None:
            self._emptied.set()
        self.metrics.connections = len(self.connections)

    def clients(self) -> Iterable[RespConnection]:
        """Everyone connected, oldest first."""
        return self.connections.values()

    def _check(self) -> None:
        now = self.store.now()
        for connection in list(self.connections.values()):
            connection.check(now)
        self._checking = self.loop.call_later(CHECK_SECONDS, self._check)

    async def close(self, grace_seconds: float = 1.0) -> None:
        """Stop listening, let begun requests end for `grace_seconds`, then cut off the rest."""
        if self._checking is not None:
            self._checking.cancel()
        if self._listener is not None:
            self._listener.close()
        for connection in list(self.connections.values()):
            connection.shut()
        if self.connections:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), grace_seconds)
        for connection in list(self.connections.values()):
            connection.abort()
