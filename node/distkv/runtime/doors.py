"""The doors of a node: RESP, HTTP, admin and gateway link over one store and one budget."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry

from distkv.api.budget import MemoryBudget
from distkv.api.http.admin import AdminRouter
from distkv.api.http.kv import KvApplication
from distkv.api.http.server import HttpServer
from distkv.api.link.server import LinkServer
from distkv.api.metrics import DoorCollector, DoorMetrics
from distkv.api.resp.server import RespServer
from distkv.config import Config
from distkv.config.units import Address
from distkv.runtime.admin import Admin
from distkv.runtime.driver import Driver
from distkv.runtime.metrics import NodeCollector
from distkv.runtime.options import admin_options, http_options, link_options, resp_options
from distkv.runtime.store import NodeStore
from distkv.transport.endpoint import Endpoint


class Doors:
    """Made once the endpoint is open; `start` listens."""

    def __init__(
        self, config: Config, store: NodeStore, driver: Driver, endpoint: Endpoint
    ) -> None:
        self.budget = MemoryBudget(config.limits.memory_in_flight_max)
        self.registry = CollectorRegistry()
        names = ("resp", "http", "admin", "link")
        self._metrics = {name: DoorMetrics(name) for name in names}
        self.registry.register(DoorCollector(self._metrics.values(), self.budget))
        self.registry.register(NodeCollector(driver, endpoint))
        self._config = config
        http, admin = http_options(config), admin_options(config)
        self.resp = RespServer(store, resp_options(config), self.budget, self._metrics["resp"])
        self.http = HttpServer(
            store,
            KvApplication(store, http.limits, self._metrics["http"], self.registry),
            http.listen,
            http.limits,
            self.budget,
            self._metrics["http"],
        )
        self.admin = HttpServer(
            store,
            self._admin_router(driver, admin.token),
            admin.listen,
            admin.limits,
            self.budget,
            self._metrics["admin"],
        )
        self.link = LinkServer(store, link_options(config), self.budget, self._metrics["link"])

    def _admin_router(self, driver: Driver, token: str | None) -> AdminRouter:
        admin = Admin(driver, self._config.dispersal.inline_max)
        router = AdminRouter(token, self._metrics["admin"])
        router.add("GET", "/v1/admin/identity", lambda call: admin.identity())
        router.add("GET", "/v1/admin/status", lambda call: admin.status())
        router.add("GET", "/v1/admin/lost", lambda call: admin.lost(call.query), ("limit",))
        router.add("POST", "/v1/admin/found", lambda call: admin.found(call.body))
        router.add("POST", "/v1/admin/formed", lambda call: admin.formed(call.body))
        router.add("POST", "/v1/admin/replace", lambda call: admin.replace(call.body))
        router.add("GET", "/v1/admin/layout", lambda call: admin.layout())
        router.add("POST", "/v1/admin/layout", lambda call: admin.change_layout(call.body))
        return router

    @property
    def connections(self) -> int:
        """Open client connections."""
        return sum(metrics.connections for metrics in self._metrics.values())

    async def start(self) -> None:
        """Listen on every door. Raises OSError naming the address."""
        listen = self._config.listen
        for field, address, start in (
            ("listen.resp", listen.resp, self.resp.start),
            ("listen.http", listen.http, self.http.start),
            ("listen.admin", listen.admin, self.admin.start),
            ("listen.link", listen.link, self.link.start),
        ):
            await _listen(field, address, start)

    async def close(self) -> None:
        """Let begun requests end, then cut the rest off."""
        await self.resp.close()
        await self.http.close()
        await self.link.close()
        await self.admin.close()


async def _listen(field: str, address: Address, start: Callable[[], Awaitable[None]]) -> None:
    try:
        await start()
    except OSError as error:
        raise OSError(f"{field} = {address}: {error.strerror or error}") from error
