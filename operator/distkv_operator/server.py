"""The operator's own HTTP port: /metrics, /livez and /readyz."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

Probe = Callable[[], str]
"""Why it is not well; empty: it is."""


class Server:
    """Listens until closed."""

    def __init__(self, registry: CollectorRegistry, live: Probe, ready: Probe) -> None:
        self._registry = registry
        self._probes = {"/livez": live, "/readyz": ready}
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> None:
        """Raises OSError."""
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        for path in self._probes:
            application.router.add_get(path, self._probe)
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, shutdown_timeout=1.0).start()

    async def close(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        body = generate_latest(self._registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _probe(self, request: web.Request) -> web.Response:
        fault = self._probes[request.path]()
        return web.Response(status=503 if fault else 200, text=(fault or "ok") + "\n")
