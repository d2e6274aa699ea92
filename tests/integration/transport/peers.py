"""Endpoints for tests: real sockets, and a handler whose events can be awaited."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

from distkv.transport.base import Identity, Lane
from distkv.transport.endpoint import Endpoint
from distkv.transport.keys import KeyRing
from distkv.transport.options import DEFAULT_OPTIONS, Options
from distkv.transport.udp import UdpSocket

SECRET = b"the key of the integration tests"


class Peer:
    """A handler and its endpoint."""

    def __init__(self, ordinal: int) -> None:
        self.identity = Identity(b"integration", 1, ordinal, 500 + ordinal, 1)
        self.messages: list[tuple[Lane, bytes]] = []
        self.bulk_bytes = 0
        self.keep = True
        self.control_times: dict[bytes, float] = {}
        self.up: list[Identity] = []
        self.down: list[str] = []
        self.suspicions: list[tuple[str, str, str]] = []
        self.turns = 0
        self.drained = asyncio.Event()
        self._changed = asyncio.Event()
        self.endpoint: Endpoint

    def open(
        self, host: str, port: int, options: Options = DEFAULT_OPTIONS, *, offload: bool = True
    ) -> None:
        """Bind at once, in the namespace the thread is in."""
        udp = UdpSocket(socket.AF_INET, (host, port), offload=offload)
        self.endpoint = Endpoint(
            asyncio.get_running_loop(), udp, self.identity, KeyRing(SECRET), self, options
        )

    def on_message(self, peer: Identity, lane: Lane, payload: bytes) -> None:
        if lane is Lane.BULK:
            self.bulk_bytes += len(payload)
        else:
            self.control_times[payload] = time.monotonic()
        if self.keep:
            self.messages.append((lane, payload))
        self._changed.set()

    def on_peer_up(self, peer: Identity) -> None:
        self.up.append(peer)
        self._changed.set()

    def on_peer_down(self, peer: Identity, reason: str) -> None:
        self.down.append(reason)
        self._changed.set()

    def on_drained(self, ordinal: int, lane: Lane) -> None:
        self.drained.set()

    def on_suspicion(self, source: str, kind: str, detail: str) -> None:
        self.suspicions.append((source, kind, detail))
        self._changed.set()

    def on_turn(self) -> None:
        self.turns += 1

    async def until(self, condition: Callable[[], bool], within: float = 60.0) -> None:
        """Wait for events of this handler until the condition holds; raises TimeoutError."""
        async with asyncio.timeout(within):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def until_messages(self, count: int) -> None:
        """Wait until so many messages have arrived."""
        await self.until(lambda: len(self.messages) >= count)

    async def until_last(self, payload: bytes) -> None:
        """Wait until the newest message is this."""
        await self.until(lambda: bool(self.messages) and self.messages[-1][1] == payload)

    async def until_control(self, payload: bytes) -> None:
        """Wait until this control message has arrived."""
        await self.until(lambda: payload in self.control_times)

    async def until_bulk(self, size: int) -> None:
        """Wait until more than `size` bytes of bulk have arrived."""
        await self.until(lambda: self.bulk_bytes > size)

    async def feed(self, ordinal: int, payload: bytes) -> None:
        """Keep the bulk queue towards `ordinal` full, for ever."""
        stream = 0
        while True:
            self.drained.clear()
            while self.endpoint.send(ordinal, Lane.BULK, payload, stream % 16):
                stream += 1
            await self.drained.wait()
