"""A disk of a whole cluster goes back to a snapshot of itself.

Its node starts as the member that it was, and has forgotten what it promised and held since.
Within the promise of at most f lost disks; somebody must be told before it does harm, and it
must halt. Its owner wipes it then, and it comes back as a stranger.
"""

from __future__ import annotations

import copy
import random
import struct
from typing import TYPE_CHECKING

from distkv.simulation.disk import Disk
from distkv.storage.base import Table
from distkv.storage.memory import MemoryEngine

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

SHARE = 0.2
"""Of the worlds, in which this happens."""
RATE = 0.5
"""Snapshots per second that are gone back to, if they may be."""
LATER = (1.2, 3.5)
"""Seconds from a snapshot to going back to it."""
TRY_EVERY = 0.1
TRIES = 20
_PEER = struct.Struct(">BiQQQ?")


class Restoring:
    """`restored`: hosts whose disk is a snapshot, and that have not been told of it yet."""

    def __init__(self, world: World, wanted: bool | None, drawn: bool) -> None:
        """`wanted`: None: in a share of the worlds, if their faults are `drawn`."""
        self._world = world
        # Of its own, so that what else a seed draws stays as it is.
        self._rng = random.Random(f"restored {world.seed}")
        drawn &= self._rng.random() < SHARE
        self.active = drawn if wanted is None else wanted
        self.restored: list[Host] = []
        self.noticed = 0
        self.known: set[str] = set()
        """Sources of suspicions that are true."""

    def start(self) -> None:
        """Begin."""
        if self.active:
            self._again()

    def _again(self) -> None:
        self._world.after(self._rng.expovariate(RATE), self._snapshot)

    def _snapshot(self) -> None:
        if self._world.healing:
            return
        hosts = [host for host in self._world.hosts if host.alive and host.seated]
        if hosts:
            host = self._rng.choice(hosts)
            image = copy.deepcopy(host.engine).crash(self._rng)
            later = self._rng.uniform(*LATER)
            now = host.incarnation
            # One from when the cluster was this node needs nobody who could tell it.
            if Disk(image, False).size > 1:
                self._world.after(later, lambda: self._try(host, now, image, TRIES))
        self._again()

    def _try(self, host: Host, incarnation: int, image: MemoryEngine, tries: int) -> None:
        world = self._world
        if world.healing or host.gone or host.incarnation != incarnation or not tries:
            return
        if not self._may_go_back(host, Disk(image, False).batches):
            world.after(TRY_EVERY, lambda: self._try(host, incarnation, image, tries - 1))
            return
        world.note(f"node {host.ordinal} crashes and its disk is restored from a snapshot")
        world.restore_disk(host, image)
        self.restored.append(host)
        self.known.add(f"node {host.ordinal}")
        world.after(self._rng.uniform(0.05, 0.5), lambda: self._start(host))

    def _start(self, host: Host) -> None:
        if not host.alive and not host.gone:
            host.start()

    def _may_go_back(self, host: Host, batches: int) -> bool:
        """Another disk may be lost, and everybody has it on disk that there was more."""
        world = self._world
        if host.ordinal in world.victims or len(world.victims) >= world.bearable:
            return False
        key = b"core.peer.%d.%d" % (host.ordinal, host.incarnation)
        rows = [Disk(h.engine).get(Table.META, key) for h in world.hosts if h is not host]
        return bool(rows) and all(
            row is not None and _PEER.unpack(row)[4] > batches for row in rows
        )

    def removed(self, host: Host) -> None:
        """Its disk is gone for good: nobody need be told."""
        self.restored = [other for other in self.restored if other is not host]

    def halts(self, host: Host) -> bool:
        """It was told that it went back in time; False: it did not, or has been wiped since."""
        if host not in self.restored:
            return False
        self.restored.remove(host)
        self.noticed += 1
        self._world.note(f"node {host.ordinal} halts: it was told that its disk went back")
        self._world.wipe_restored(host)
        self._world.after(self._rng.uniform(0.05, 0.5), lambda: self._start(host))
        return True
