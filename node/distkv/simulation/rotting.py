"""Bit rot in what is not a shard: records, names, and chosen entries of the log.

Nothing of the promise is used up by it while a peer's state is whole: it, or the node itself,
has what it takes to mend it. Nodes that are all damaged, each elsewhere, give each other rows,
but only of slots that both have applied: one that cannot apply its next entry needs a whole state,
which nobody may have then (world 185: two nodes, before there were rows). That is beyond what is
promised, and is left out here; and so are layouts with f = 0, where one node may be the only one
that has a state as new (world 8016: 1+1, the other was behind what the log still held). An entry
that is accepted and not known to be chosen is another matter: a node that lost one must not vote,
which is `tests/unit/core/test_damaged_log.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from distkv.machine.snapshot import TABLES
from distkv.simulation.disk import Disk
from distkv.storage.base import CorruptRow, Table

if TYPE_CHECKING:
    from distkv.simulation.full_world import World
    from distkv.simulation.member_host import Host


def strike(world: World, host: Host) -> None:
    """Let one row rot."""
    if host.member is None or host.member.seat is None or len(world.hosts) == 1:
        return
    table = world.rng.choice((Table.RECORD, Table.RECORD, Table.NAME, Table.LOG))
    end = None
    if table is Table.LOG:
        end = Disk(host.engine).applied.to_bytes(8, "big")
    keys = host.engine.keys(table, b"", end, 1 << 30)
    if keys:
        key = world.rng.choice(keys)
        whole = any(_whole(h) for h in world.hosts if h is not host)
        mended = whole and world.bearable and not world.layouts.bears_nothing
        if table in TABLES and not mended:
            return
        world.note(f"rot in {table.name} at {host.ordinal}")
        host.engine.rot(table, key)


def _whole(host: Host) -> bool:
    """Whether its disk, in use or not, holds a state without a damaged row."""
    return Disk(host.engine).applied > 0 and not rotten(host, TABLES)


def rotten(host: Host, tables: Iterable[Table] = Table) -> str:
    """What scrubbing has not mended yet."""
    for table in tables:
        for key in host.engine.keys(table, b"", None, 1 << 30):
            try:
                host.engine.get(table, key)
            except CorruptRow:
                return f"has a rotten row in {table.name}: {key.hex()}"
    return ""
