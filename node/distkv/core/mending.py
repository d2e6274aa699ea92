"""Rows of the core that rotted on disk, written again from memory.

All of the core's state is in memory, so nothing is forgotten while the process runs: what is
written here is what was accepted and promised, and it goes behind whatever of this turn waits
in the outbox, so it never undoes a newer row.
"""

from __future__ import annotations

import struct

from distkv.core.hardstate import PEER_KEY, STATE_KEY
from distkv.core.shared import Shared
from distkv.storage.base import Delete, Table

_SLOT = struct.Struct(">Q")


def rewrite(shared: Shared, table: Table, key: bytes) -> bool:
    """Queue the row for the next batch, which is flushed. False: not one of the core's rows."""
    if table is Table.LOG:
        log, slot = shared.log, _SLOT.unpack(key)[0]
        found = log.entries.get(slot)
        if found is not None:
            log.put(slot, *found)
        else:  # a start passed it over, with all that is below it
            shared.out.writes.append(Delete(table, key))
    elif table is Table.META and key.startswith(PEER_KEY):
        for record in shared.peers.records.values():
            record.dirty = True
        shared.peers.save()
    elif table is not Table.META or key != STATE_KEY:
        return False
    # The row of the hard state goes into every batch that is flushed.
    shared.out.must_flush = True
    return True
