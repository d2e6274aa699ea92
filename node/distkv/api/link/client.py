"""A gateway's end of one link: one connection to one node, made again whenever it breaks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import NamedTuple

from distkv.api.link import operations
from distkv.api.link.calling import Call, LinkCalling
from distkv.api.link.frames import Kind
from distkv.api.link.lost import LinkLost
from distkv.api.link.outbound import RemoteUpload
from distkv.kernel import Future
from distkv.operations import Operation

log = logging.getLogger("distkv.gateway")

BACKOFF_FIRST = 0.05
BACKOFF_MAX = 2.0
DEAD_SECONDS_MIN = 2.0
LATENCY_FIRST = 0.001
_SMOOTHING = 0.2


class ClientOptions(NamedTuple):
    """How to reach a node. `probe`: seconds between pings."""

    host: str
    port: int
    token: str = ""
    name: str = "gateway"
    probe: float = 0.5
    frame_max: int = 17 * 1024 * 1024
    in_flight_max: int = 4096


class LinkClient:
    """`start()`, then `call` and `upload` while `connected`; `close()`.

    `on_change` is called when the node came, went, or changed whether it serves.
    """

    def __init__(self, options: ClientOptions, on_change: Callable[[], None]) -> None:
        self.options = options
        self.on_change = on_change
        self.loop = asyncio.get_running_loop()
        self.latency = LATENCY_FIRST
        """Smoothed seconds of pings: how long the node takes to get round to something small."""
        self.state = "not connected"
        self.keys: int | None = None
        self.connects = 0
        self._serving: bool | None = None
        self._connection: LinkCalling | None = None
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def address(self) -> str:
        """host:port."""
        return f"{self.options.host}:{self.options.port}"

    @property
    def connected(self) -> bool:
        """Whether requests can be sent."""
        return self._connection is not None

    @property
    def serving(self) -> bool:
        """Whether the node said that it takes requests."""
        return self._connection is not None and bool(self._serving)

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return len(self._connection.calls) if self._connection is not None else 0

    def start(self) -> None:
        """Begin connecting, and never give up until `close`."""
        self._task = asyncio.ensure_future(self._stay_connected())

    def close(self) -> None:
        """End; open requests fail with LinkLost."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        if self._connection is not None:
            self._connection.drop("the gateway ends the link")

    async def _stay_connected(self) -> None:
        pause = BACKOFF_FIRST
        options = self.options
        while not self._closed:
            lost: asyncio.Future[None] = self.loop.create_future()
            try:
                _, calling = await asyncio.wait_for(
                    self.loop.create_connection(
                        lambda lost=lost: LinkCalling(self, lost),  # type: ignore[misc]
                        options.host,
                        options.port,
                    ),
                    DEAD_SECONDS_MIN,
                )
            except (OSError, TimeoutError) as error:
                self.state = f"not connected: {error or type(error).__name__}"
            else:
                began = self.loop.time()
                await lost
                if calling.welcomed and self.loop.time() - began > pause:
                    pause = BACKOFF_FIRST
            # Spread out, or all gateways come back to a restarted node at once.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, BACKOFF_MAX)

    # -- from the connection

    def came(self, connection: LinkCalling) -> None:
        """The node said welcome."""
        self._connection = connection
        self.connects += 1
        self.latency = LATENCY_FIRST
        self.state = "connected"

    def went(self, reason: str) -> None:
        """The connection is lost."""
        if self._connection is not None:
            log.info("lost node %s: %s", self.address, reason)
        self._connection = None
        self._serving = None
        self.state = f"not connected: {reason}"
        self.on_change()

    def told(self, serving: bool, state: str, keys: int | None) -> None:
        """A pong."""
        changed = serving != self._serving
        self._serving, self.state, self.keys = serving, state, keys
        if changed:
            self.on_change()

    def measured(self, seconds: float) -> None:
        """A ping took so long."""
        self.latency += _SMOOTHING * (seconds - self.latency)

    # -- requests

    def call(self, operation: Operation, deadline: float) -> Future[object]:
        """Ask the node. Fails with LinkLost if the connection breaks, else with what it says.

        Uploads within must be `RemoteUpload`s of this client that were finished.
        """
        future: Future[object] = Future()
        connection = self._connection
        if connection is None:
            future.set_exception(LinkLost(f"node {self.address} is not connected", sent=False))
            return future
        left = max(deadline - self.loop.time(), 0.0)
        request = connection.next_id()
        plain = operations.to_plain(operation, connection.name_upload)
        connection.calls[request] = Call(future, operation)
        connection.send([Kind.REQUEST, request, int(left * 1000), plain])
        return future

    def cancel(self, future: Future[object]) -> None:
        """Nobody waits for it any more."""
        if self._connection is not None:
            self._connection.cancel(future)

    def upload(self, length: int | None, on_change: Callable[[], None]) -> RemoteUpload | None:
        """Begin an upload; None: not connected."""
        connection = self._connection
        if connection is None:
            return None
        upload = RemoteUpload(connection, connection.next_id(), on_change)
        connection.uploads[upload.identity] = upload
        connection.send([Kind.UPLOAD, upload.identity, length])
        return upload
