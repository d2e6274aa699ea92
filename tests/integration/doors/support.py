"""Doors over a fake store, on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import uvloop
from chaos.workload import send_once
from prometheus_client import CollectorRegistry
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from unit.api.fakestore import FakeStore

from distkv.api.budget import MemoryBudget
from distkv.api.http.admin import AdminRouter
from distkv.api.http.kv import KvApplication
from distkv.api.http.server import HttpServer
from distkv.api.metrics import DoorCollector, DoorMetrics
from distkv.api.options import Limits, Listen, RespOptions
from distkv.api.resp.server import RespServer
from distkv.operations import Store

SECONDS_MAX = 60.0
ANSWER_SECONDS = 50.0
NO_RETRY = Retry(NoBackoff(), 0)
"""For redis-py: by itself it would ask again on a new connection, so a door that drops some
would pass."""


def session_of(base: str | None = None) -> aiohttp.ClientSession:
    """An HTTP client that asks once, too."""
    return aiohttp.ClientSession(base, middlewares=(send_once,))


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine test on uvloop, with a limit."""

    async def limited() -> None:
        loop = asyncio.get_running_loop()
        failures: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: failures.append(context))
        await asyncio.wait_for(test(), SECONDS_MAX)
        assert not failures, failures

    uvloop.run(limited())


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "it did not become true in time"
        await asyncio.sleep(0.002)


@contextlib.asynccontextmanager
async def resp_door(
    store: Store, limits: Limits | None = None, password: str | None = None
) -> AsyncIterator[RespServer]:
    """A RESP door; checks at the end that no memory is left charged."""
    server = RespServer(store, RespOptions(Listen(), limits or Limits(), password))
    await server.start()
    try:
        yield server
    finally:
        await server.close(0.2)
    await until(lambda: server.budget.used == 0)


@contextlib.asynccontextmanager
async def http_door(
    store: Store, limits: Limits | None = None, router: AdminRouter | None = None
) -> AsyncIterator[HttpServer]:
    """An HTTP door for clients, or for administration if there is a router."""
    limits = limits or Limits()
    metrics = DoorMetrics("http")
    registry = CollectorRegistry()
    budget = MemoryBudget(limits.memory_in_flight_max)
    registry.register(DoorCollector([metrics], budget))
    application = router or KvApplication(store, limits, metrics, registry)
    server = HttpServer(store, application, Listen(), limits, budget, metrics)
    await server.start()
    try:
        yield server
    finally:
        await server.close(0.2)
    await until(lambda: server.budget.used == 0)


class Raw:
    """A bare TCP client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> Raw:
        return cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**24))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def expect(self, answer: bytes) -> None:
        got = await asyncio.wait_for(self.reader.readexactly(len(answer)), ANSWER_SECONDS)
        assert got == answer

    async def line(self) -> bytes:
        return await asyncio.wait_for(self.reader.readline(), ANSWER_SECONDS)

    async def rest(self) -> bytes:
        """Everything until the other side closes."""
        data = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.reader.read(65536), ANSWER_SECONDS):
                data += piece
        return data

    def close(self) -> None:
        self.writer.close()


__all__ = ["FakeStore", "Raw", "http_door", "resp_door", "run", "until"]
