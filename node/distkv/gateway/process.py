"""`distkv gateway`: the doors of a node without a replica, in front of all nodes."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry

from distkv.api.budget import MemoryBudget
from distkv.api.http.kv import KvApplication
from distkv.api.http.server import HttpServer
from distkv.api.metrics import DoorCollector, DoorMetrics
from distkv.api.options import Listen, RespOptions
from distkv.api.process import MIB, door_limits, resident_bytes, set_up_logging
from distkv.api.resp.server import RespServer
from distkv.config import Config
from distkv.config.live import Source
from distkv.config.loading import ConfigError, Problem
from distkv.config.units import Address
from distkv.gateway.metrics import GatewayCollector
from distkv.gateway.options import GatewayOptions
from distkv.gateway.store import GatewayStore

log = logging.getLogger("distkv.gateway")

EXIT_ADDRESS = 5
GRACE_SECONDS = 2.0
CHECK_SECONDS = 1.0
"""Between two looks at the configuration file."""


def main(config: Config, source: Source) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code. `source`: where `config` is from.

    0: stopped; 5: an address cannot be listened on. Raises ConfigError.
    """
    set_up_logging(config.logging, config.name)
    options = gateway_options(config)
    return uvloop.run(_serve(config, source, options))


def gateway_options(config: Config) -> GatewayOptions:
    """From the typed configuration. Raises ConfigError."""
    gateway = config.gateway
    return GatewayOptions(
        nodes=tuple((address.host, address.port) for address in gateway.nodes),
        name=config.name,
        token=_token(gateway.token_file),
        probe=gateway.probe,
        in_flight_max=gateway.in_flight,
        limits=door_limits(config),
    )


def _token(path: str | None) -> str:
    if path is None:
        return ""
    try:
        text = Path(path).read_text("utf-8").strip()
    except OSError as error:
        problem = Problem("gateway.token_file", path, f"cannot be read: {error.strerror}")
        raise ConfigError([problem]) from error
    if not text:
        raise ConfigError([Problem("gateway.token_file", path, "is empty")])
    return text


async def _serve(config: Config, source: Source, options: GatewayOptions) -> int:
    process = GatewayProcess(config, source, options)
    try:
        await process.start()
    except OSError as error:
        log.error("%s", error)
        await process.close()
        return EXIT_ADDRESS
    await process.until_stopped()
    await process.close()
    return 0


class GatewayProcess:
    """The parts of a running gateway."""

    def __init__(self, config: Config, source: Source, options: GatewayOptions) -> None:
        limits = options.limits
        self._source = source
        self._config = config
        self.store = GatewayStore(options)
        self.budget = MemoryBudget(limits.memory_in_flight_max)
        self.metrics = {name: DoorMetrics(name) for name in ("resp", "http")}
        registry = CollectorRegistry()
        registry.register(DoorCollector(self.metrics.values(), self.budget))
        registry.register(GatewayCollector(self.store))
        self.resp = RespServer(
            self.store,
            RespOptions(_listen(config.listen.resp), limits),
            self.budget,
            self.metrics["resp"],
        )
        self.http = HttpServer(
            self.store,
            KvApplication(self.store, limits, self.metrics["http"], registry),
            _listen(config.listen.http),
            limits,
            self.budget,
            self.metrics["http"],
        )
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Connect to the nodes and listen. Raises OSError naming the address."""
        self.store.start()
        listen = self._config.listen
        for field, address, start in (
            ("listen.resp", listen.resp, self.resp.start),
            ("listen.http", listen.http, self.http.start),
        ):
            try:
                await start()
            except OSError as error:
                raise OSError(f"{field} = {address}: {error.strerror or error}") from error
        self._tasks = [asyncio.ensure_future(self._report()), asyncio.ensure_future(self._watch())]
        log.info(
            "up, RESP on port %d, HTTP on port %d, nodes: %s",
            self.resp.port,
            self.http.port,
            ", ".join(link.address for link in self.store.nodes.links),
        )

    async def _watch(self) -> None:
        """Take over gateway.nodes whenever the file says something else."""
        stamp, known = self._source.stamp(), self._config.gateway.nodes
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if (seen := self._source.stamp()) in (stamp, None):
                continue
            stamp = seen
            try:
                nodes = self._source.load().gateway.nodes
            except ConfigError as error:
                log.error("the changed configuration is refused, the old one stays: %s", error)
                continue
            if nodes != known:
                known = nodes
                log.info("gateway.nodes: %s", ", ".join(map(str, nodes)))
                self.store.nodes.take(tuple((node.host, node.port) for node in nodes))

    async def until_stopped(self) -> None:
        """Wait for SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        await stopped.wait()
        log.info("stopping")

    async def close(self) -> None:
        """Let begun requests end, then leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(self.resp.close(GRACE_SECONDS), self.http.close(GRACE_SECONDS))
        await self.store.close()

    async def _report(self) -> None:
        """One line a minute on what the process uses."""
        clock, cpu = time.monotonic(), time.process_time()
        while True:
            await asyncio.sleep(self._config.logging.resources)
            now, used = time.monotonic(), time.process_time()
            status = self.store.status()
            log.info(
                "resources: memory %d MiB, CPU %.1f %%, connections %d, in flight %d MiB, "
                "retained %d MiB, nodes serving %s, requests %s, retries %s",
                resident_bytes() // MIB,
                100 * (used - cpu) / (now - clock),
                sum(metrics.connections for metrics in self.metrics.values()),
                self.budget.used // MIB,
                self.store.retained.used // MIB,
                status["nodes_serving"],
                status["requests"],
                status["retries"],
            )
            clock, cpu = now, used


def _listen(address: Address) -> Listen:
    return Listen(address.host, address.port)
