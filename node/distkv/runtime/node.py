"""`distkv node`: one member of a cluster as a process."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import signal
from pathlib import Path

import uvloop

from distkv.api.process import set_level, set_up_logging
from distkv.config import Config
from distkv.config.live import Source
from distkv.member.identity import DirectoryIdentity, VolumeWentBack, WrongDirectory
from distkv.member.member import Member
from distkv.runtime.doors import Doors
from distkv.runtime.driver import Driver
from distkv.runtime.live import LiveConfig
from distkv.runtime.memory import keep_freed_memory, use_huge_pages
from distkv.runtime.opening import identity_of
from distkv.runtime.options import key_ring, member_options, transport_options
from distkv.runtime.resources import ResourceLog
from distkv.runtime.store import NodeStore
from distkv.storage.base import Engine, StorageError
from distkv.storage.open import open_engine
from distkv.transport.base import Identity, Lane
from distkv.transport.endpoint import Endpoint, open_endpoint

log = logging.getLogger("distkv.node")

EXIT_STORAGE = 3
EXIT_HALTED = 4
EXIT_ADDRESS = 5
HANDOVER_SECONDS = 1.0
DRAIN_SECONDS = 3.0
"""Requests under way may take this long to end before the process does."""
STEP_SECONDS = 0.01


def main(config: Config, source: Source) -> int:
    """Run until SIGTERM or SIGINT. Returns the exit code. `source`: where `config` is from.

    0: stopped; 3: the data directory cannot be used; 4: halted, because going on could have
    been unsafe; 5: an address cannot be listened on. Raises ConfigError.
    """
    assert __debug__, "never run with -O: the checks of invariants protect the data"
    set_up_logging(config.logging, config.name)
    try:
        engine = open_engine(config.storage.engine, Path(config.storage.directory))
    except StorageError as error:
        log.error("%s", error)
        return EXIT_STORAGE
    try:
        identity = identity_of(config, engine)
    except (WrongDirectory, StorageError) as error:
        log.error("%s", error)
        engine.close()
        return EXIT_STORAGE
    except VolumeWentBack as error:
        log.critical("halted: %s", error)
        engine.close()
        return EXIT_HALTED
    keep_freed_memory()
    # What is alive now stays alive: the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    use_huge_pages()
    return uvloop.run(_serve(config, source, engine, identity))


async def _serve(
    config: Config, source: Source, engine: Engine, identity: DirectoryIdentity
) -> int:
    try:
        process = NodeProcess(config, source, engine, identity)
    except StorageError as error:
        log.error("%s", error)
        engine.close()
        return EXIT_STORAGE
    try:
        await process.start()
    except OSError as error:
        log.error("%s", error)
        await process.close()
        return EXIT_ADDRESS
    code = await process.until_stopped()
    await process.close()
    return code


class NodeProcess:
    """The parts of a running node."""

    def __init__(
        self, config: Config, source: Source, engine: Engine, identity: DirectoryIdentity
    ) -> None:
        self.config = config
        self.engine = engine
        self.identity = identity
        self._keys = key_ring(config)
        self._transport_options = transport_options(config)
        self._stopped: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        options = member_options(config)
        self.member = Member(
            identity,
            engine,
            random.Random(int.from_bytes(os.urandom(8), "big")),
            options,
            self._room,
            log.warning,
        )
        self.driver = Driver(self.member, engine, self._halt, config.storage.reserve)
        self.store = NodeStore(self.driver)
        self.endpoint: Endpoint | None = None
        self.doors: Doors | None = None
        self._resources = ResourceLog(config.logging.resources, self.driver)
        self._live = LiveConfig(
            source,
            config,
            {
                "logging.level": lambda new: set_level(new.logging),
                "peers.addresses": self._take_peers,
                "repair.rate": lambda new: self.member.set_repair_rate(new.repair.rate),
            },
        )

    def _room(self, ordinal: int, lane: Lane) -> int:
        assert self.endpoint is not None
        return self._transport_options.bulk_queue - self.endpoint.queued(ordinal, lane)

    def _halt(self, reason: str) -> None:
        log.critical("halted: %s", reason)
        if not self._stopped.done():
            self._stopped.set_result(EXIT_HALTED)

    async def start(self) -> None:
        """Listen everywhere and join the peers. Raises OSError."""
        config, identity = self.config, self.identity
        me = Identity(*identity)
        address = config.listen.peers
        try:
            self.endpoint = await open_endpoint(
                me, self._keys, self.driver, address.host, address.port, self._transport_options
            )
        except OSError as error:
            raise OSError(f"listen.peers = {address}: {error.strerror or error}") from error
        endpoint = self.endpoint
        endpoint.hub.seated = self.member.is_member
        endpoint.hub.outdated = self.member.outdated
        self.member.on_identity = lambda known: endpoint.set_identity(Identity(*known))
        self.driver.attach(self.endpoint)
        self._take_peers(config)
        self.doors = Doors(config, self.store, self.driver, self.endpoint)
        await self.doors.start()
        self._resources.start(self.doors)
        self._live.start()
        log.info(
            "node %d of cluster %s is up (incarnation %d, boot %d): %s",
            identity.ordinal,
            identity.cluster.hex(),
            identity.incarnation,
            identity.boot,
            self.member.status()["state"],
        )

    def _take_peers(self, config: Config) -> None:
        """Connect to every other node of the list, and to nobody else of our own accord."""
        assert self.endpoint is not None
        known = len(self._live.config.peers.addresses)
        wanted = config.peers.addresses
        for ordinal, peer in enumerate(wanted):
            if ordinal != self.identity.ordinal:
                self.endpoint.set_peer(ordinal, peer.host, peer.port)
        for ordinal in range(len(wanted), known):
            self.endpoint.forget_peer(ordinal)

    async def until_stopped(self) -> int:
        """Wait for a signal, or for the driver to halt; the exit code."""
        loop = asyncio.get_running_loop()

        def stop() -> None:
            if not self._stopped.done():
                self._stopped.set_result(0)

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        return await self._stopped

    async def close(self) -> None:
        """Hand leadership over, end requests, make everything durable."""
        self._live.stop()
        self._resources.stop()
        if self.doors is not None and not self.driver.closed:
            self.member.stop_taking()
            await self._hand_over()
            await self._drain()
        self.member.shut_down()
        if self.doors is not None:
            await self.doors.close()
        if self.endpoint is not None:
            self.endpoint.close()
        await self.driver.close()

    async def _hand_over(self) -> None:
        """A leader that leaves lets a follower go on at once, instead of after a timeout."""
        seat = self.member.seat
        if seat is None or not seat.replica.is_leader:
            return
        target = seat.best_successor()
        if target is None or not seat.replica.transfer(target):
            return
        log.info("handing leadership over to node %d", target)
        loop = asyncio.get_running_loop()
        end = loop.time() + HANDOVER_SECONDS
        while seat.replica.leader == seat.member and loop.time() < end:
            self.driver.wake()
            await asyncio.sleep(STEP_SECONDS)

    async def _drain(self) -> None:
        """What was begun ends: the next leader decides the commands this node had sent."""
        loop = asyncio.get_running_loop()
        end = loop.time() + DRAIN_SECONDS
        while loop.time() < end and not self.driver.closed:
            if self.member.seat is None or not self.member.seat.busy:
                return
            await asyncio.sleep(STEP_SECONDS)
