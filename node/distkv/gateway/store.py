"""The store as a gateway's doors see it: several nodes behind links."""

from __future__ import annotations

import asyncio
from functools import partial

from distkv.api.budget import MemoryBudget
from distkv.errors import Busy, TooLarge, UnknownSession
from distkv.gateway.nodes import Nodes
from distkv.gateway.options import GatewayOptions
from distkv.gateway.requests import Request
from distkv.gateway.sessions import SessionKeeper, SessionOpened
from distkv.gateway.uploads import GatewayUpload
from distkv.kernel import Future
from distkv.operations import OpenSession, Operation, Upload
from distkv.version import version

SWEEP_SECONDS = 0.05


class GatewayStore:
    """Implements `operations.Store`. `start()` first; `await close()` at the end."""

    def __init__(self, options: GatewayOptions) -> None:
        self.options = options
        self.loop = asyncio.get_running_loop()
        self.retained = MemoryBudget(options.retained_max)
        self.nodes = Nodes(options, self._nodes_changed)
        self.sessions = SessionKeeper(self._open_session)
        self.waiting: dict[Request, None] = {}
        """Requests for which there is no node at the moment."""
        self.retries = 0
        self.sessions_opened = 0
        self._active: dict[Request, None] = {}
        self._uploads: dict[GatewayUpload, None] = {}
        self._renew_at = 0.0
        self._sweeping: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Connect to the nodes."""
        self.nodes.start()
        self._sweep()

    async def close(self) -> None:
        """End; open requests fail."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        await self.nodes.close()
        for request in list(self._active):
            request.expire(float("inf"))

    # -- operations.Store

    def execute(self, operation: Operation, deadline: float) -> Future[object]:
        """See operations.Store."""
        request = Request(self, operation, deadline)
        self._active[request] = None
        request.start()
        return request.future

    def upload(self, length: int | None) -> Upload:
        """See operations.Store."""
        limit = self.options.limits.value_bytes_max
        if length is not None and length > limit:
            raise TooLarge(f"a value of {length} bytes is over value_bytes_max ({limit} bytes)")
        upload = GatewayUpload(self, length)
        self._uploads[upload] = None
        return upload

    def now(self) -> float:
        """See operations.Store."""
        return self.loop.time()

    def health(self) -> dict[str, object]:
        """See operations.Store."""
        return self.status()

    def status(self) -> dict[str, object]:
        """See operations.Store."""
        links = self.nodes.links
        serving = self.nodes.serving
        # Nodes on full disks answer reads and take deletions: somebody must let those through.
        reading = any(link.connected and link.state == "read-only" for link in links)
        keys = [link.keys for link in links if link.serving and link.keys is not None]
        return {
            "role": "gateway",
            "version": version(),
            "serving": serving > 0 or reading,
            "state": "serving" if serving else "read-only" if reading else "no node serves",
            "nodes_connected": self.nodes.connected,
            "nodes_serving": serving,
            "requests": len(self._active),
            "retries": self.retries,
            "sessions_opened": self.sessions_opened,
            "retained_bytes": self.retained.used,
            "keys": max(keys, default=0),
            "nodes": [
                {
                    "address": link.address,
                    "connected": link.connected,
                    "serving": link.serving,
                    "state": link.state,
                    "latency_ms": round(link.latency * 1000, 3),
                    "in_flight": link.in_flight,
                }
                for link in links
            ],
        }

    # -- of its parts

    def forget(self, request: Request) -> None:
        """It is answered."""
        self._active.pop(request, None)
        self.waiting.pop(request, None)

    def forget_upload(self, upload: GatewayUpload) -> None:
        """It is not needed any more."""
        self._uploads.pop(upload, None)

    def _nodes_changed(self) -> None:
        for upload in list(self._uploads):
            upload.nodes_changed()
        waiting, self.waiting = self.waiting, {}
        for request in waiting:
            if not request.future.done:
                request.retry()

    def _sweep(self) -> None:
        now = self.now()
        for request in list(self._active):
            request.expire(now)
        current = self.sessions.current
        if current is not None and now >= self._renew_at:
            # Using it in time keeps the cluster from forgetting it.
            self._open_session(current.identity, partial(self._renewed, current.identity))
        self._sweeping = self.loop.call_later(SWEEP_SECONDS, self._sweep)

    def _renewed(self, session: bytes, failure: BaseException | None) -> None:
        if isinstance(failure, UnknownSession):
            self.sessions.forget(session)

    def _open_session(self, session: bytes, opened: SessionOpened) -> None:
        self._renew_at = self.now() + self.options.session_renewal
        deadline = self.now() + self.options.limits.request_seconds
        future = self.execute(OpenSession(session), deadline)

        def settled(done: Future[object]) -> None:
            if done.error is not None:
                opened(done.error)
            elif done.result() is not True:
                opened(Busy("the cluster has as many open sessions of gateways as it takes"))
            else:
                self.sessions_opened += 1
                opened(None)

        future.add_callback(settled)
