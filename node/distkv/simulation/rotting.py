"""Bit rot in what is not a shard: records, names, and chosen entries of the log.

Nothing of the promise is used up by it: the node itself, or a peer, has what it takes to mend
it. An entry that is accepted and not known to be chosen is another matter: a node that lost
one must not vote, which is `tests/unit/core/test_damaged_log.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
        world.note(f"rot in {table.name} at {host.ordinal}")
        host.engine.rot(table, key)


def rotten(host: Host) -> str:
    """What scrubbing has not mended yet."""
    for table in Table:
        for key in host.engine.keys(table, b"", None, 1 << 30):
            try:
                host.engine.get(table, key)
            except CorruptRow:
                return f"has a rotten row in {table.name}: {key.hex()}"
    return ""
