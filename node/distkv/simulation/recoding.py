"""What must be true of re-striping: no version changes, and in the end nothing is under-coded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack

from distkv.machine.machine import Machine
from distkv.simulation import disk as raw
from distkv.storage.base import Table

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host

RESTRIPE = 9
"""Kind of the mutation in the log."""


class RecodingCheck:
    """Sees every slot once, as the first node applies it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._revisions: dict[int, int] = {}
        self.restriped = 0

    def applied(self, machine: Machine, slot: int, entry: bytes) -> None:
        """The state is after `slot`."""
        self._revisions[slot] = machine.keyspace.revision
        before = self._revisions.get(slot - 1)
        mutations = _mutations(entry)
        keys = [m[1] for m in mutations if len(m) > 1]
        for mutation in mutations:
            if mutation[0] != RESTRIPE or keys.count(mutation[1]) > 1:
                continue
            record = machine.keyspace.records.get(mutation[1])
            if record is None or record.value_id is None:
                continue
            if record.value_id.pack() != mutation[3]:
                continue
            self.restriped += 1
            if before is not None and record.version > before:
                self._world.violation(
                    f"re-striping at slot {slot} gave {mutation[1]!r} version {record.version}"
                )


def _mutations(entry: bytes) -> list[Any]:
    found: list[Any] = []
    for command in raw.commands_of(entry):
        fields = msgpack.unpackb(command, use_list=False)
        if fields[0] == 1:
            found += fields[5]
    return found


def under_coded(world: World, host: Host) -> str:
    """At rest, with all members there, every record is coded as the newest layout wants."""
    if not all(h.votes for h in world.hosts):
        return ""
    layout = host.machine.configuration
    for key, row in host.engine.scan(Table.RECORD, b"", None, 1 << 30):
        fields = msgpack.unpackb(row)
        if fields[0] == 2 and (fields[7], fields[10]) != (layout.data_shards, layout.epoch):
            return (
                f"has {key!r} coded with {fields[7]} data shards under epoch {fields[10]} instead "
                f"of {layout.data_shards} under {layout.epoch}"
            )
    return ""
