"""Single rows of the state from peers, for a node whose own rotted.

Records, names and expiry rows follow from the log up to a slot and from nothing else. So a
peer's row of a slot is the own one, if at that slot the own row was what it is now: not before
its rot was met, not after what is applied here, and not changed here since. Thus nodes whose
states are all damaged, each elsewhere, mend each other, and one bad sector does not cost a
transfer of all metadata. Rows of STATE are not exchanged: which page of a session has which
results may depend on when a node was upgraded, so one of them alone says nothing.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgpack

from distkv.machine.commands import UnknownEntry
from distkv.machine.records import decode_record
from distkv.machine.snapshot import PIECE_BYTES, slot_of
from distkv.member.messages import RowsGiven, RowsWanted
from distkv.storage.base import CorruptRow, Put, Table

if TYPE_CHECKING:
    from distkv.member.seat import Seat

EXCHANGED = (Table.RECORD, Table.NAME, Table.EXPIRY)
ROWS_MAX = 64
"""Rows asked for at once."""
NEVER = 1 << 62
"""No slot is so high: a row that is not to be had from a peer."""
_UNREADABLE = (ValueError, TypeError, IndexError, struct.error, msgpack.UnpackException)

Row = tuple[Table, bytes]


class RowExchange:
    """Asks for rows, gives rows, and holds what was given until it is known to be right."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._given: dict[Row, tuple[int, bytes]] = {}
        """The slot at which a peer has it so, and the row."""
        self._asked = 0

    def ask(self, peers: list[int], rotten: Mapping[Row, int]) -> bool:
        """Ask all of them for what is rotten here; False: it is nothing that they could give."""
        rows = [row for row, since in rotten.items() if row[0] in EXCHANGED and since != NEVER]
        if not rows or not peers:
            return False
        first = self._asked % len(rows)  # what nobody has must not stand before all others
        self._asked = first + ROWS_MAX
        wanted = RowsWanted((*rows[first:], *rows[:first])[:ROWS_MAX])
        for ordinal in peers:
            self._seat.owner.send(ordinal, wanted)
        return True

    def on_wanted(self, ordinal: int, wanted: RowsWanted) -> None:
        """Give what is sound here, at most a piece of a snapshot."""
        engine, given, size = self._seat.owner.engine, [], 0
        try:
            slot = slot_of(engine)
        except CorruptRow as rot:
            self._seat.healer.met(rot)
            return
        if slot != self._seat.machine.drained:
            return  # a batch waits for space: this node is not what it says it is, for now
        for table, key in wanted.rows[:ROWS_MAX]:
            try:
                value = engine.get(table, key) if table in EXCHANGED else None
            except CorruptRow as rot:
                self._seat.healer.met(rot)
                continue
            if value is not None and size < PIECE_BYTES:
                given.append((table, key, value))
                size += len(value)
        self._seat.owner.send(ordinal, RowsGiven(slot, tuple(given)))

    def on_given(self, ordinal: int, given: RowsGiven, rotten: Mapping[Row, int]) -> bool:
        """Whether any of it may be right here; it is taken when `usable` says so."""
        some = False
        for table, key, value in given.rows:
            row = (table, key)
            since = rotten.get(row, NEVER)
            if given.slot < since or not self._is_row(ordinal, row, value):
                continue
            some = True
            before = self._given.get(row)
            if before is None or before[0] < since or given.slot < before[0]:
                self._given[row] = (given.slot, value)  # of the lowest slot: right the soonest
        return some

    def _is_row(self, ordinal: int, row: Row, value: bytes) -> bool:
        try:
            if row[0] is Table.RECORD:
                decode_record(value)
        except (UnknownEntry, *_UNREADABLE) as error:
            detail = f"row {row[1]!r} of table {row[0].name}: {error!r:.100}"
            self._seat.owner.suspect(f"node {ordinal}", "damaged_row", detail)
            return False
        return True

    def forget(self) -> None:
        """The own state is another one."""
        self._given.clear()

    def usable(self, rotten: Mapping[Row, int], drained: int) -> list[Put]:
        """What is right in the state of slot `drained`, which the engine is about to hold.

        `rotten`: the slot from which on each row has not been changed here. A peer may be ahead:
        its row waits until this node is as far.
        """
        found = []
        for row, (slot, value) in list(self._given.items()):
            since = rotten.get(row)
            if since is not None and since <= slot <= drained:
                found.append(Put(*row, value))
            elif since is not None and slot > drained:
                continue
            del self._given[row]
        return found
