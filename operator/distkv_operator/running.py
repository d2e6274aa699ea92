"""The operator as a process: election, then watches and the queue, until a signal or a loss."""

from __future__ import annotations

import asyncio
import logging
import os
import signal

import kopf

from distkv_operator import names
from distkv_operator.builders import OperatorPlace
from distkv_operator.handlers.execute import Executor
from distkv_operator.handlers.observe import Observer
from distkv_operator.handlers.queue import Queue, QueueOptions
from distkv_operator.handlers.reconcile import Reconciler
from distkv_operator.handlers.watch import Heartbeat, registry
from distkv_operator.handlers.watch import settings as kopf_settings
from distkv_operator.kube.credentials import login
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.events import Events
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import CLUSTER
from distkv_operator.kube.lease import Election, LeaseOptions
from distkv_operator.kube.nodes import NodeClient
from distkv_operator.kube.readings import Readings
from distkv_operator.kube.transport import HttpTransport
from distkv_operator.metrics import Metrics
from distkv_operator.planning.plan import OperatorFacts
from distkv_operator.server import Server
from distkv_operator.settings import Settings

log = logging.getLogger("distkv.operator")

KIND_SECONDS = 1.0
EXIT_LEASE = 3
EXIT_ADDRESS = 5
SILENCE_SECONDS_MAX = 60.0
"""Without a word from a watch for so long, the process is stuck and should be restarted."""


class Operator:
    """The parts of a running operator."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.gate = Gate(HttpTransport(login), self.metrics.called)
        self.heartbeat = Heartbeat()
        place = None
        if not settings.dev:
            place = OperatorPlace(settings.namespace, names.OPERATOR_LABELS)
        observer = Observer(self.gate, NodeClient(self.gate, settings.dev), Readings(self.gate))
        self.reconciler = Reconciler(
            self.gate,
            observer,
            Executor(self.gate, observer),
            Events(self.gate, settings.identity),
            OperatorFacts(settings.image, place),
            self.metrics,
        )
        self.queue = Queue(
            self.reconciler, QueueOptions(settings.poll, settings.at_once), self.metrics.reconciled
        )
        self.election = Election(
            self.gate,
            LeaseOptions(settings.lease_namespace, settings.lease, settings.identity),
        )
        self.leading = False
        self.server = Server(self.metrics.registry, self._not_alive, self._not_ready)
        self.metrics.add_gauge(
            "watch_silence_seconds",
            "Since a watch last brought something.",
            lambda: self.heartbeat.age,
        )
        self.metrics.add_gauge(
            "clusters", "Clusters that are looked after.", lambda: self.queue.clusters
        )

    def _not_alive(self) -> str:
        age = self.heartbeat.age if self.leading else self.election.age
        what = "watch" if self.leading else "Lease"
        return f"no word from the {what} for {age:.0f} s" if age > SILENCE_SECONDS_MAX else ""

    def _not_ready(self) -> str:
        return ""

    async def run(self) -> int:
        """Until SIGTERM or SIGINT (0), or until the Lease is lost (3)."""
        try:
            await self.server.start(self.settings.listen, self.settings.port)
        except OSError as error:
            log.error("port %d of %s: %s", self.settings.port, self.settings.listen, error)
            return EXIT_ADDRESS
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        stopped = asyncio.create_task(stop.wait())
        try:
            acquiring = asyncio.create_task(self.election.acquire())
            await _first(stopped, acquiring)
            if stopped.done():
                acquiring.cancel()
                return 0
            acquiring.result()
            return await self._lead(stop, stopped)
        finally:
            stopped.cancel()
            await self.server.close()
            await self.gate.close()

    async def _lead(self, stop: asyncio.Event, stopped: asyncio.Task[bool]) -> int:
        self.leading = True
        self.metrics.leads(True)
        self.heartbeat.beat()
        holding = asyncio.create_task(self.election.hold())
        watching = asyncio.create_task(self._watch(stop))
        await _first(stopped, holding, watching)
        if holding.done():
            # Another may act already: end at once, in the middle of whatever it is.
            log.critical("the lease is lost, the process ends")
            logging.shutdown()
            os._exit(EXIT_LEASE)
        failed = watching.done() and not stopped.done()
        stop.set()
        await self.queue.close()
        try:
            await watching
        except Exception:
            log.exception("the watches failed")
            failed = True
        holding.cancel()
        await self.election.release()
        return 1 if failed else 0

    async def _watch(self, stop: asyncio.Event) -> None:
        await self._wait_for_kind(stop)
        settings = self.settings
        found = registry(self.queue.wake, self.heartbeat, settings.namespaces, login)
        options = kopf_settings(settings.lease)
        scope: dict[str, object] = {"clusterwide": True}
        if settings.namespaces:
            scope = {"namespaces": settings.namespaces}
        await kopf.operator(
            registry=found,
            settings=options,
            standalone=True,
            stop_flag=stop,
            **scope,  # type: ignore[arg-type]
        )

    async def _wait_for_kind(self, stop: asyncio.Event) -> None:
        """kopf looks once which kinds there are; ours may be installed a moment after us."""
        told = False
        while not stop.is_set():
            try:
                if await self.gate.knows(CLUSTER):
                    return
                if not told:
                    told = True
                    log.warning("waiting for the CustomResourceDefinition %s", names.CRD)
            except ApiError as error:
                log.warning("%s", error)
            self.heartbeat.beat()
            await asyncio.sleep(KIND_SECONDS)


async def _first(*tasks: asyncio.Task[object]) -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
