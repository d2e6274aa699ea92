"""Idempotency keys: sessions of a single write that open with it and end by time.

All times here are the machine's steady ones, log time without leaps: a leader's clock that
jumps ahead must not end a key whose client may still try again, or of whose command a copy is
still on its way.

There may be very many of them, so they are rows only, never objects in memory:
    b"i" + session             -> (format, ends, sequence, kind, detail)
    b"j" + ends (8) + session  -> nothing
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import msgpack

from distkv.machine.commands import UnknownEntry
from distkv.machine.interface import OutcomeKind
from distkv.machine.rows import Rows
from distkv.machine.sessions import restore_detail

FORMAT = 1
ONCE_MAX = 1_000_000
"""Idempotency keys remembered at a time; a write with one more is refused."""
EXPIRED_PER_TICK = 1000

_ROW = b"i"
_QUEUE = b"j"
_QUEUE_END = b"k"
_TIME = struct.Struct(">Q")


class Stored(NamedTuple):
    """What a known idempotency key was answered."""

    ends_ms: int
    sequence: int
    kind: OutcomeKind
    detail: object


class Once:
    """See the module. `count` is part of the head row of the state."""

    def __init__(self, rows: Rows[bytes], life_ms: int) -> None:
        self._rows = rows
        self._life_ms = life_ms
        self.count = 0

    @property
    def full(self) -> bool:
        """No more keys are taken."""
        return self.count >= ONCE_MAX

    def read_ahead(self, session: bytes) -> None:
        """Read what `find` would. Raises CorruptRow."""
        self._rows.get(_ROW + session)

    def find(self, session: bytes, now_ms: int) -> Stored | None:
        """The stored answer, unless its time is over."""
        raw = self._rows.get(_ROW + session)
        if raw is None:
            return None
        version, ends_ms, sequence, kind, detail = msgpack.unpackb(raw, use_list=False)
        if version != FORMAT:
            raise UnknownEntry(f"a key row has format {version}, this version reads {FORMAT}")
        if ends_ms <= now_ms:
            self._remove(session, ends_ms)
            return None
        return Stored(ends_ms, sequence, OutcomeKind(kind), restore_detail(kind, detail))

    def store(
        self, session: bytes, sequence: int, kind: OutcomeKind, detail: object, now_ms: int
    ) -> None:
        """Remember the answer of a session that is not known."""
        ends_ms = now_ms + self._life_ms
        row = msgpack.packb((FORMAT, ends_ms, sequence, kind, detail))
        self._rows.put(_ROW + session, row)
        self._rows.put(_QUEUE + _TIME.pack(ends_ms) + session, b"")
        self.count += 1

    def _remove(self, session: bytes, ends_ms: int) -> None:
        self._rows.delete(_ROW + session)
        self._rows.delete(_QUEUE + _TIME.pack(ends_ms) + session)
        self.count -= 1

    def expire(self, now_ms: int) -> None:
        """Forget what is due, a bounded number at a time."""
        if not self.count:
            return
        for key in self._rows.keys(_QUEUE, _QUEUE + _TIME.pack(now_ms + 1), EXPIRED_PER_TICK):
            self._remove(key[1 + _TIME.size :], _TIME.unpack_from(key, 1)[0])

    def read_due(self, now_ms: int, ticks: int, changes: int) -> None:
        """Walk over what so many calls of `expire` would. Raises CorruptRow."""
        if self.count:
            most = ticks * EXPIRED_PER_TICK + changes
            self._rows.keys(_QUEUE, _QUEUE + _TIME.pack(now_ms + 1), most)

    def next_expiry_ms(self) -> int | None:
        """When the first key's time is over."""
        if not self.count:
            return None
        first = self._rows.keys(_QUEUE, _QUEUE_END, 1)
        return _TIME.unpack_from(first[0], 1)[0] if first else None
