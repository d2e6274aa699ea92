"""The owner of a simulated cluster: admits a new directory in place of one that was lost.

It does what the operator or `distkv local` does: it names (ordinal, old, new) to the leader
again and again until that is done; whether the moment is right is the leader's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.errors import DistKVError
from distkv.member import admission
from distkv.simulation import disk as raw
from distkv.simulation.disk import Disk
from distkv.storage.base import Table

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

EVERY = 0.2


class Owner:
    """Looks after lost disks, if the world has such an owner."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._admitted: dict[int, int] = {}
        """Ordinal -> slot up to which a new member must have everything to count as refilled."""

    def start(self) -> None:
        """Begin; runs for ever."""
        if self._world.owner_replaces:
            self._look()

    def _look(self) -> None:
        leader = next((host for host in self._world.hosts if host.leads), None)
        if leader is not None:
            for ordinal in self._world.wiped:
                if self._replace(leader, self._world.hosts[ordinal]):
                    break
            self._count_refilled()
        self._world.after(EVERY, self._look)

    def _replace(self, leader: Host, joiner: Host) -> bool:
        assert leader.member is not None
        assert leader.member.seat is not None
        seats = leader.machine.membership.everybody
        if joiner.ordinal >= len(seats) or not joiner.alive:
            return False
        old = seats[joiner.ordinal].incarnation
        if old == joiner.incarnation:
            return False
        try:
            admission.replace(leader.member.seat, "owner", joiner.ordinal, old, joiner.incarnation)
        except DistKVError as error:
            self._world.note(f"node {joiner.ordinal} is not admitted now: {error}")
            return False
        self._world.note(f"the owner admits the new directory of node {joiner.ordinal}")
        leader.wake()
        return True

    def _count_refilled(self) -> None:
        """A disk whose successor holds durably all that it should is no lost disk any more."""
        world = self._world
        newest = max(world.hosts, key=lambda host: Disk(host.engine, False).applied)
        for ordinal in list(world.wiped):
            host = world.hosts[ordinal]
            if not host.seated or ordinal in world.rotten:
                self._admitted.pop(ordinal, None)
                continue
            disk = Disk(host.engine)
            upto = self._admitted.setdefault(ordinal, Disk(newest.engine, False).applied)
            if disk.applied >= upto and all(disk.shard(n) for n in _owed(newest, ordinal)):
                world.note(f"the disk of node {ordinal} is refilled")
                world.wiped.remove(ordinal)
                world.refilled += 1
                del self._admitted[ordinal]


def _owed(newest: Host, ordinal: int) -> list[bytes]:
    """Value ids of which this seat holds a shard: all that it has according to their layout."""
    disk, owed = Disk(newest.engine, False), []
    for name in newest.engine.keys(Table.NAME, b"", None, 1 << 30):
        key = disk.get(Table.NAME, name)
        row = None if key is None else disk.get(Table.RECORD, key)
        coded = None if key is None or row is None else raw.record(key, row)
        if coded is None or ordinal < coded.size:
            owed.append(name)
    return owed
