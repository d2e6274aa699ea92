"""Records with everything that must change with them: names of values, expiry, counts.

A record whose time is over by log time is invisible at once; ticks remove its rows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from distkv.ids import ValueId
from distkv.machine.interface import Event, Named, Record, Superseded
from distkv.machine.membership import Membership
from distkv.machine.records import decode_record, encode_record
from distkv.machine.rows import Rows
from distkv.storage.base import Engine, StorageOperation, Table

EXPIRED_PER_TICK = 1000
"""Keys one tick removes at most, so that no entry takes long to apply."""
RECORDS_KEPT = 4096
"""Decoded records remembered after they were written (at most inline_max bytes each)."""
_PAGE = 1000
_TIME = struct.Struct(">Q")
TIME_BYTES = _TIME.size


def _same(raw: bytes) -> bytes:
    return raw


class Keyspace:
    """Tables RECORD, NAME and EXPIRY. `log_time_ms` is set by the machine at each entry."""

    def __init__(self, engine: Engine, membership: Membership, events: list[Event]) -> None:
        self.records: Rows[Record] = Rows(
            engine, Table.RECORD, encode_record, decode_record, RECORDS_KEPT
        )
        self.names: Rows[bytes] = Rows(engine, Table.NAME, _same, _same)
        self.expiries: Rows[bytes] = Rows(engine, Table.EXPIRY, _same, _same)
        self._membership = membership
        self._events = events
        self.revision = 0
        self.rows = 0
        self.log_time_ms = 0
        self._first_expiry: int | None = None
        self._first_known = False

    # -- reading -------------------------------------------------------------------------

    def visible(self, record: Record | None) -> Record | None:
        """The record, unless its time is over."""
        if record is None or record.expires_ms is None or record.expires_ms > self.log_time_ms:
            return record
        return None

    def get(self, key: bytes) -> Record | None:
        """The record of a key, as reads see it. Raises CorruptRow."""
        return self.visible(self.records.get(key))

    def scan(
        self, start: bytes, end: bytes | None, prefix: bytes, limit: int
    ) -> list[tuple[bytes, Record]]:
        """Up to `limit` visible records in key order with start <= key < end and the prefix."""
        if prefix:
            start = max(start, prefix)
            beyond = successor(prefix)
            end = beyond if end is None else end if beyond is None else min(end, beyond)
        found: list[tuple[bytes, Record]] = []
        while len(found) < limit and (end is None or start < end):
            ask = min(_PAGE, limit - len(found))
            page = self.records.scan(start, end, ask)
            found += [item for item in page if self.visible(item[1]) is not None]
            if len(page) < ask:
                break
            start = page[-1][0] + b"\0"
        return found

    def count(self) -> int:
        """Visible records."""
        return self.rows - sum(len(page) for page in self._due_pages())

    def _due_pages(self) -> list[list[bytes]]:
        first = self.first_expiry_ms()
        if first is None or first > self.log_time_ms:
            return []
        return list(_pages(self.expiries, _TIME.pack(self.log_time_ms + 1)))

    def first_expiry_ms(self) -> int | None:
        """The earliest time at which a key expires."""
        if not self._first_known:
            first = self.expiries.keys(b"", None, 1)
            self._first_expiry = _TIME.unpack_from(first[0])[0] if first else None
            self._first_known = True
        return self._first_expiry

    # -- changing ------------------------------------------------------------------------

    def replace(self, key: bytes, old: Record | None, new: Record | None) -> None:
        """Make `new` the record of `key`; `old`: its row as it is, expired or not."""
        if old is None:
            if new is None:
                return
            self.rows += 1
            old_id, old_expires = None, None
        else:
            if new is None:
                self.rows -= 1
            old_id, old_expires = old.value_id, old.expires_ms
        if new is None:
            self.records.delete(key)
            new_id, new_expires = None, None
        else:
            self.records.put(key, new)
            new_id, new_expires = new.value_id, new.expires_ms
        if old_expires != new_expires:
            self._move_expiry(key, old_expires, new_expires)
        if old_id != new_id:
            self._rename(key, old, new)

    def _move_expiry(self, key: bytes, old: int | None, new: int | None) -> None:
        if old is not None:
            self.expiries.delete(_TIME.pack(old) + key)
            if old == self._first_expiry:
                self._first_known = False
        if new is not None:
            self.expiries.put(_TIME.pack(new) + key, b"")
            if self._first_known and (self._first_expiry is None or new < self._first_expiry):
                self._first_expiry = new

    def _rename(self, key: bytes, old: Record | None, new: Record | None) -> None:
        if new is not None and new.value_id is not None:
            self.names.put(new.value_id.pack(), key)
            self._membership.count(new.epoch, 1, new.length)
            self._events.append(Named(key, new.value_id, new.slot, new))
        if old is not None and old.value_id is not None:
            self.names.delete(old.value_id.pack())
            self._membership.count(old.epoch, -1, -old.length)
            self._events.append(Superseded(old.value_id, old))

    def flush(self) -> None:
        """Remove every record; each coded value is superseded."""
        for page in _pages(self.names, None):
            self._events += [Superseded(ValueId.unpack(raw)) for raw in page]
        for epoch, count in sorted(self._membership.records.items()):
            self._membership.count(epoch, -count, -self._membership.bytes[epoch])
        for table in (self.records, self.names, self.expiries):
            table.clear()
        self.rows = 0
        self._first_expiry, self._first_known = None, True

    def expire(self) -> None:
        """Remove keys that are due, the earliest first, at most EXPIRED_PER_TICK."""
        first = self.first_expiry_ms()
        if first is None or first > self.log_time_ms:
            return
        due = self.expiries.keys(b"", _TIME.pack(self.log_time_ms + 1), EXPIRED_PER_TICK)
        for row in due:
            key = row[TIME_BYTES:]
            self.revision += 1
            self.replace(key, self.records.get(key), None)

    def read_due(self, log_time_ms: int, ticks: int, changes: int) -> None:
        """Read what so many calls of `expire`, and `count`, would at that log time, of which
        expiry rows so many may have been changed before. Raises CorruptRow."""
        if changes:
            self.expiries.keys(b"", None, 1 + changes)  # the first one may be looked for again
        first = self.first_expiry_ms()
        if first is None or first > log_time_ms:
            return
        most = ticks * EXPIRED_PER_TICK + changes
        for row in self.expiries.keys(b"", _TIME.pack(log_time_ms + 1), most):
            self.records.get(row[TIME_BYTES:])

    def read_flushed(self, log_time_ms: int) -> None:
        """Walk over what `flush` and `count` would. Raises CorruptRow."""
        for table, end in ((self.names, None), (self.expiries, _TIME.pack(log_time_ms + 1))):
            for _ in _pages(table, end):
                pass

    def drain(self, into: list[StorageOperation]) -> None:
        """Append all changed rows."""
        self.records.drain(into)
        self.names.drain(into)
        self.expiries.drain(into)


def _pages(table: Rows[bytes], end: bytes | None) -> Iterator[list[bytes]]:
    """All keys below `end`, page by page. Raises CorruptRow."""
    start = b""
    while page := table.keys(start, end, _PAGE):
        yield page
        start = page[-1] + b"\0"


def successor(prefix: bytes) -> bytes | None:
    """The least key above all keys with this prefix; None: there is none."""
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        return None
    return stripped[:-1] + bytes([stripped[-1] + 1])
