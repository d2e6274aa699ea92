"""The status never says that more disks may be lost than is true.

Every node is asked again and again what it says survives (`member.survival`), and its word
is held against the rows on all disks. What it cannot know yet is excused: disks lost, and
nodes that stopped, in the last moments; rot that nothing has read; records that are young.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.simulation import disk as raw
from distkv.simulation.disk import Disk
from distkv.storage.base import Table

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

EVERY = 0.4
NEWS = 2.5
"""Seconds after which everybody must have heard that a node lost something."""
YOUNG = 5.5
"""Seconds for which the word does not speak of a record: see survival.SETTLED_SECONDS."""


class BudgetCheck:
    """Looks for ever, from `start` on."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._marks: list[tuple[float, int]] = []
        self._settled = 0
        self._stopped: dict[int, float] = {}
        self.asked = 0
        """Times a node gave a number above 0."""

    def start(self) -> None:
        """Begin."""
        self._world.after(EVERY, self._look)

    def stopped(self, host: Host) -> None:
        """The process of this node ended, perhaps with its disk."""
        self._stopped[host.ordinal] = self._world.now

    def _look(self) -> None:
        world = self._world
        applied = max(Disk(host.engine, False).applied for host in world.hosts)
        self._marks.append((world.now, applied))
        while self._marks and world.now - self._marks[0][0] >= YOUNG:
            self._settled = self._marks.pop(0)[1]
        spare: int | None = None
        for host in world.hosts:
            if not host.alive or host.member is None or host.member.seat is None:
                continue
            said = host.member.seat.overview.survival().durable
            if not said:
                continue
            self.asked += 1
            if spare is None:
                spare = self._spare()
            if said > spare:
                world.violation(
                    f"node {host.ordinal} says that {said} disks may be lost, but it is {spare}"
                )
        world.after(EVERY, self._look)

    def _spare(self) -> int:
        """Disks that may go: the least over all settled values, with what is excused."""
        world = self._world
        recent = {o for o, when in self._stopped.items() if world.now - when < NEWS}
        excused = len({*recent, *world.rotten})
        newest = max(world.hosts, key=lambda host: Disk(host.engine, False).applied)
        disks = [Disk(host.engine, False) for host in world.hosts]
        spare = len(world.hosts)
        for key in newest.engine.keys(Table.RECORD, b"", None, 10_000):
            row = Disk(newest.engine, False).get(Table.RECORD, key)
            coded = None if row is None else raw.record(key, row)
            if coded is None or coded.slot > self._settled:
                continue
            shards = [disk.shard(coded.value_id) for disk in disks]
            held = len({shard[-1][0] for shard in shards if shard is not None})
            spare = min(spare, held - coded.data_shards)
        return spare + excused
