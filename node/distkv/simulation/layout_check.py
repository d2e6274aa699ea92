"""What must be true of members and layout epochs, from the log and from rows alone.

The log is followed by a small model of its own, which every node's state must equal after
each change; so the other checks know which quorums and how many holders are promised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import msgpack

from distkv.simulation import disk as raw
from distkv.simulation.clients import COUNTERS, LISTS, REGISTERS
from distkv.simulation.disk import Disk
from distkv.storage.base import CorruptRow, Put, StorageOperation, Table

if TYPE_CHECKING:
    from distkv.machine.machine import Machine
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

CONFIGURATION = 3
"""Kind of a log entry."""
REPLACE, LAYOUT, RETIRE = 1, 2, 3
"""Kinds of changes."""
HEADER_BYTES = 9
NODES_MAX = 12
CLAIMS_EVERY = 0.2
_Member = tuple[int, int]


class Epoch(NamedTuple):
    """A layout. `begun`: the slot that began it. `members`: (ordinal, incarnation)."""

    number: int
    data_shards: int
    parity_shards: int
    members: tuple[_Member, ...]
    begun: int

    @property
    def failures(self) -> int:
        """f."""
        return min(self.parity_shards, (len(self.members) - 1) // 2)

    @property
    def plain(self) -> tuple[object, ...]:
        """As the replicated state has it."""
        return self.number, self.data_shards, self.parity_shards, self.members


class LayoutCheck:
    """See the module. Slots are handed over once each, in order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.live: dict[int, Epoch] = {}
        """By number, as of the newest slot that any node applied."""
        self.newest = 0
        self._every: dict[int, Epoch] = {}
        """Retired ones too, with the members they had last."""
        self._admitted: dict[_Member, int] = {}
        """Slot of the entry that gave a member its seat."""
        self._removed: set[int] = set()
        self._in_force: list[tuple[int, Epoch]] = []
        self._after: dict[int, list[tuple[object, ...]]] = {}
        """All live epochs after a slot that changed them."""
        self.changes = self.retired = self.claims = 0

    def founded(self, data_shards: int, parity_shards: int, members: tuple[_Member, ...]) -> None:
        """The state at slot 0."""
        first = Epoch(1, data_shards, parity_shards, members, 0)
        self.live = {1: first}
        self.newest = 1
        self._admitted = dict.fromkeys(members, 0)
        self._noted(0)

    def _noted(self, slot: int) -> None:
        self._every.update(self.live)
        self._in_force.append((slot, self.live[self.newest]))
        self._after[slot] = [epoch.plain for _, epoch in sorted(self.live.items())]

    # -- what others ask

    @property
    def write_epoch(self) -> Epoch:
        """The newest."""
        return self.live[self.newest]

    def at(self, slot: int) -> Epoch:
        """The layout whose quorums choose this slot: that of the state before it."""
        for changed, epoch in reversed(self._in_force):
            if changed < slot:
                return epoch
        return self._in_force[0][1]

    def failures_of(self, number: int) -> int:
        """f of an epoch."""
        return self._every[number].failures

    def bearable(self) -> int:
        """Disks that may be lost or rotten at once: the least f of what lives."""
        return min(epoch.failures for epoch in self.live.values())

    def seats(self, member: _Member) -> bool:
        """Whether a live layout has a seat for it."""
        return any(member in epoch.members for epoch in self.live.values())

    def left(self, incarnation: int) -> bool:
        """Whether it was removed for good."""
        return incarnation in self._removed

    # -- the log

    def applied(self, machine: Machine, slot: int, entry: bytes) -> None:
        """The first node applied this slot; its state is the one after it."""
        before = self.newest
        if entry[0] == CONFIGURATION:
            self._change(machine, slot, msgpack.unpackb(entry[HEADER_BYTES:], use_list=False))
            self._noted(slot)
            self.compare(machine, slot)
            return
        for key, value_id in raw.named_values(entry):
            record = machine.record(key)
            if record is None or record.value_id is None or record.value_id.pack() != value_id:
                continue
            # An earlier slot's, if this one repeats its command.
            if record.slot == slot and record.epoch != before:
                self._world.violation(
                    f"slot {slot} names a value of epoch {record.epoch}, but epoch {before} is "
                    "the one that is written"
                )

    def compare(self, machine: Machine, slot: int) -> None:
        """A node applied this slot: its layouts are what the log says."""
        wanted = self._after.get(slot)
        if wanted is None:
            return
        found = [
            (c.epoch, c.data_shards, c.parity_shards, tuple(map(tuple, c.members)))
            for _, c in sorted(machine.membership.layouts.items())
        ]
        if found != wanted:
            self._world.violation(f"layouts after slot {slot} are {found} instead of {wanted}")

    def _change(self, machine: Machine, slot: int, change: tuple[Any, ...]) -> None:
        kind, owner, *rest = change
        steps: dict[int, Callable[..., None]] = {
            REPLACE: self._replace,
            LAYOUT: self._layout,
            RETIRE: lambda slot, number: self._retire(machine, slot, number),
        }
        if owner == "owner" and kind in steps:
            steps[kind](slot, *rest)

    def _may_join(self, incarnation: int) -> bool:
        seated = any(i == incarnation for e in self.live.values() for _, i in e.members)
        return not seated and incarnation not in self._removed

    def _replace(self, slot: int, ordinal: int, old: int, new: int) -> None:
        leaving = (ordinal, old)
        if not self.seats(leaving) or not self._may_join(new):
            return
        for number, epoch in self.live.items():
            members = tuple((ordinal, new) if m == leaving else m for m in epoch.members)
            self.live[number] = epoch._replace(members=members)
        self._removed.add(old)
        self._admitted[ordinal, new] = slot

    def _layout(
        self, slot: int, number: int, k: int, m: int, incarnations: tuple[int, ...]
    ) -> None:
        members = tuple(enumerate(incarnations))
        known = {member for epoch in self.live.values() for member in epoch.members}
        joining = [member for member in members if member not in known]
        if number != self.newest + 1 or k < 1 or m < 0 or not len(members) == k + m <= NODES_MAX:
            return
        if len(set(incarnations)) != len(members):
            return
        for epoch in self.live.values():
            if any(a != b for a, b in zip(epoch.members, members, strict=False)):
                return
        if not all(self._may_join(incarnation) for _, incarnation in joining):
            return
        self.live[number] = Epoch(number, k, m, members, slot)
        self.newest = number
        self._admitted.update(dict.fromkeys(joining, slot))
        self.changes += 1

    def _retire(self, machine: Machine, slot: int, number: int) -> None:
        if number == self.newest or number not in self.live:
            return
        naming = [key for key in (*REGISTERS, *COUNTERS, *LISTS) if _epoch(machine, key) == number]
        gone = number not in machine.membership.layouts
        if gone and naming:
            self._world.violation(f"slot {slot} retires epoch {number}, which {naming} name")
        if not gone and not naming:
            self._world.violation(
                f"slot {slot} does not retire epoch {number}, which nothing names"
            )
        if not gone:
            return
        retired = self.live.pop(number)
        self.retired += 1
        self._removed.update(i for o, i in retired.members if not self.seats((o, i)))

    # -- rows and messages

    def wrote(self, host: Host, writes: list[StorageOperation]) -> None:
        """A batch is in the engine: what it says of records per epoch is so."""
        for operation in writes:
            if type(operation) is Put and operation.table is Table.STATE and operation.key == b"e":
                self._check_counts(host, operation.value)

    def _check_counts(self, host: Host, row: bytes) -> None:
        counted: dict[int, tuple[int, int]] = {}
        disk = Disk(host.engine, False)
        for key in host.engine.keys(Table.RECORD, b"", None, 1 << 30):
            try:
                coded = raw.record(key, host.engine.get(Table.RECORD, key) or b"")
            except CorruptRow:
                return
            if coded is not None:
                records, size = counted.get(coded.epoch, (0, 0))
                counted[coded.epoch] = (records + 1, size + coded.length)
        said = {e: (n, size) for e, n, size in msgpack.unpackb(row)[1:] if n or size}
        if said != counted:
            self._world.violation(
                f"node {host.ordinal} counts records and bytes per epoch as {said} at slot "
                f"{disk.applied}, but its rows are {counted}"
            )

    def votes(self, host: Host, what: str) -> None:
        """A node votes: it must be a member, and durably have all that admitted it."""
        admitted = self._admitted.get((host.ordinal, host.incarnation))
        if admitted is None:
            self._world.violation(f"node {host.ordinal} {what}, and no layout ever had it")
        if Disk(host.engine).applied < admitted:
            self._world.violation(
                f"node {host.ordinal} {what}, but holds slots up to "
                f"{Disk(host.engine).applied} only: slot {admitted} admitted it"
            )

    # -- what is claimed

    def start(self) -> None:
        """Ask leaders for ever which f they claim."""
        self._world.after(CLAIMS_EVERY, self._look)

    def _look(self) -> None:
        world = self._world
        newest = max(Disk(host.engine, False).applied for host in world.hosts)
        for host in world.hosts:
            if not host.leads or host.machine.applied < newest or len(self.live) == 1:
                continue
            assert host.member is not None
            assert host.member.seat is not None
            claimed = host.member.seat.epochs.failures_now()
            if claimed > 0:
                self._check_claim(host, claimed)
        world.after(CLAIMS_EVERY, self._look)

    def _check_claim(self, host: Host, claimed: int) -> None:
        """A disk lost or rotten counts as if it were whole: f speaks of disks to be lost yet."""
        world = self._world
        disks = [Disk(other.engine) for other in world.hosts]
        self.claims += 1
        for key in host.engine.keys(Table.RECORD, b"", None, 1 << 30):
            row = Disk(host.engine, False).get(Table.RECORD, key)
            coded = None if row is None else raw.record(key, row)
            if coded is None:
                continue
            shards = [disk.shard(coded.value_id) for disk in disks]
            held = len({shard[-1][0] for shard in shards if shard is not None})
            spare = held - coded.data_shards + world.victims_in(coded.size)
            if claimed > spare:
                world.violation(
                    f"node {host.ordinal} claims f = {claimed} of {host.machine.membership.epoch}, "
                    f"but {key!r} of epoch {coded.epoch} bears {spare}"
                )
        epoch = self.write_epoch
        hold = sum(
            disks[o].applied >= epoch.begun or disks[o].accepted(epoch.begun) is not None
            for o, i in epoch.members
            if o < len(disks) and world.hosts[o].incarnation == i
        )
        if claimed > hold - 1 + world.victims_in(len(epoch.members)):
            world.violation(
                f"node {host.ordinal} claims f = {claimed}, but slot {epoch.begun}, which began "
                f"epoch {epoch.number}, is on the disks of {hold} of its members"
            )


def _epoch(machine: Machine, key: bytes) -> int | None:
    """That a key's value is of; None: it has no coded value, or its row is rotten."""
    try:
        record = machine.record(key)
    except CorruptRow:
        return None
    return None if record is None or record.value_id is None else record.epoch
