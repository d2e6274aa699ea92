"""The replicated log of one node: accepted entries, the chosen prefix, the retained tail.

Kept in memory whole; its size is bounded by the leader's window above the chosen prefix and
by `retain_*` below it. Every change also becomes a row of table LOG in the outbox.
Row: ballot (20 bytes) + entry, under the slot (8 bytes, big endian).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from distkv.core.outbox import Outbox
from distkv.ids import ZERO_BALLOT, Ballot
from distkv.storage.base import CorruptRow, DeleteRange, Engine, Put, StorageError, Table

_BALLOT = struct.Struct(">QiQ")
_SLOT = struct.Struct(">Q")
_PAGE = 1000


def forget_below(first: int) -> DeleteRange:
    """All rows of slots below `first`."""
    return DeleteRange(Table.LOG, _SLOT.pack(0), _SLOT.pack(first))


class Log:
    """`first`: lowest retained slot. `chosen`: all slots up to it are chosen and known.

    `last`: highest slot with an entry, at least `chosen`.
    """

    __slots__ = (
        "_header",
        "_header_ballot",
        "_outbox",
        "_size",
        "chosen",
        "entries",
        "first",
        "last",
    )

    def __init__(self, outbox: Outbox) -> None:
        self.entries: dict[int, tuple[Ballot, bytes]] = {}
        self.first = 1
        self.chosen = 0
        self.last = 0
        self._size = 0
        self._outbox = outbox
        self._header_ballot = ZERO_BALLOT
        self._header = _BALLOT.pack(*ZERO_BALLOT)

    def put(self, slot: int, ballot: Ballot, entry: bytes) -> None:
        """Store `entry` as accepted in `ballot`, over whatever was in the slot."""
        assert slot >= self.first
        if ballot is not self._header_ballot:
            self._header_ballot, self._header = ballot, _BALLOT.pack(*ballot)
        before = self.entries.get(slot)
        if before is not None:
            self._size -= len(before[1])
        self._size += len(entry)
        self.entries[slot] = (ballot, entry)
        if slot > self.last:
            self.last = slot
        self._outbox.writes.append(Put(Table.LOG, _SLOT.pack(slot), self._header + entry))

    def accepted_above(self, slot: int) -> Iterator[tuple[int, Ballot, bytes]]:
        """(slot, ballot, entry) of all entries above `slot`, in order of slots."""
        for above in range(slot + 1, self.last + 1):
            found = self.entries.get(above)
            if found is not None:
                yield above, found[0], found[1]

    def chosen_entries(self, first: int, limit_bytes: int) -> tuple[bytes, ...]:
        """Chosen entries from slot `first` on; at least one, if there is one."""
        return self.run(first, self.chosen, limit_bytes)

    def run(self, first: int, last: int, limit_bytes: int) -> tuple[bytes, ...]:
        """Entries of slots first..last, cut at `limit_bytes` but never to none."""
        found: list[bytes] = []
        size = 0
        for slot in range(first, last + 1):
            entry = self.entries[slot][1]
            size += len(entry)
            if found and size > limit_bytes:
                break
            found.append(entry)
        return tuple(found)

    def truncate(self, upto: int, retain_slots: int, retain_bytes: int) -> None:
        """Drop the oldest rows <= upto until what is kept of them is within the limits."""
        assert upto <= self.chosen
        entries, first = self.entries, self.first
        for _, _, entry in self.accepted_above(upto):
            retain_bytes += len(entry)
        while first <= upto and (upto + 1 - first > retain_slots or self._size > retain_bytes):
            self._size -= len(entries.pop(first)[1])
            first += 1
        self._forget_below(first)

    def install(self, slot: int) -> None:
        """A snapshot of the state after `slot` > chosen replaces everything up to it."""
        for old in [s for s in self.entries if s <= slot]:
            self._size -= len(self.entries.pop(old)[1])
        self.chosen = slot
        self.last = max(slot, self.last)
        self._forget_below(slot + 1)

    def _forget_below(self, first: int) -> None:
        if first > self.first:
            self._outbox.writes.append(forget_below(first))
            self.first = first

    def _load_one(self, engine: Engine, key: bytes, chosen: int) -> None:
        slot = _SLOT.unpack(key)[0]
        try:
            value = engine.get(Table.LOG, key)
        except CorruptRow as rot:
            if slot <= chosen:
                return  # chosen: peers have it, and no promise of ours depends on it
            raise StorageError(
                f"the entry accepted in slot {slot} is damaged: this node would vote as if it had "
                "never accepted it, so it must not go on; wipe its directory and have it replaced"
            ) from rot
        assert value is not None
        self.entries[slot] = (Ballot(*_BALLOT.unpack_from(value)), value[_BALLOT.size :])

    def load(self, engine: Engine, chosen: int, applied: int) -> None:
        """Read table LOG. `chosen`: prefix known to be chosen, by hint or applied state.

        Raises StorageError if an entry that was accepted, or is still to be applied, is damaged.
        """
        start = b""
        while True:
            keys = engine.keys(Table.LOG, start, None, _PAGE)
            for key in keys:
                self._load_one(engine, key, chosen)
            if len(keys) < _PAGE:
                break
            start = keys[-1] + b"\x00"
        self.chosen = chosen
        self.last = max(self.entries, default=chosen)
        self.last = max(self.last, chosen)
        first = chosen + 1
        while first - 1 in self.entries:
            first -= 1
        for slot in [s for s in self.entries if s < first]:
            del self.entries[slot]
        self.first = first
        self._size = sum(len(entry) for _, entry in self.entries.values())
        if first > applied + 1:
            raise StorageError(
                f"the chosen entries {applied + 1} to {first - 1} are damaged and were not applied "
                "yet; wipe the directory of this node and have it replaced"
            )
