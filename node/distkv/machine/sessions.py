"""Exactly once: which sequence numbers of which session were applied, and with what result.

A session keeps a low-water mark (everything below was answered) and the results at or
above it. A plain "last sequence" would swallow writes that reach the log out of order.

Rows in STATE (so that a turn writes only what it changed):
    b"s" + session             -> (format, kind, low, last use in log time)
    b"p" + session + page (8)  -> (format, slot, (sequence, kind, detail), ...) of one entry;
                                  format 1 had no slot here: the slot was the page
    b"x" + session             -> (format, slot): ended there, not opened again
A session that ended has forgotten what was applied under it, so its name must not come back:
else a late copy of the command that opened it, and then one of a write, would apply that
write once more (a leader's clock that jumps ahead ends sessions while copies are under way).
The names of sessions that ended are kept for ENDED_SLOTS slots, whatever clocks do.
A page goes once all its sequences are below the mark; `pages.py` numbers them.
"""

from __future__ import annotations

import struct
from typing import Any

import msgpack

from distkv.ids import SESSION_BYTES, node_session
from distkv.machine.commands import UnknownEntry
from distkv.machine.interface import OutcomeKind
from distkv.machine.pages import Pages
from distkv.machine.records import record_from_fields
from distkv.machine.rows import Rows

FORMAT = 1
PAGE_FORMAT = 2
NODE, OPENED = 0, 1
"""Kinds: of a booted node (ends with the next boot), opened by a gateway (ends when idle)."""

OPENED_MAX = 4096
"""Sessions of gateways; opening one more is refused."""
WINDOW = 65536
"""Sequences at or above low + WINDOW are refused until the low mark moves."""
WEIGHT_MAX = 4 * 2**20
"""Bytes of results (old values) one session may keep; only the low one passes it."""

ENDED_SLOTS = 1 << 20
"""Far longer than any copy of a command is on its way."""

HEAD_PREFIX = b"s"
ENDED_PREFIX = b"x"
PAGE_PREFIX = b"p"
_PAGE = struct.Struct(">Q")
_pack = msgpack.Packer().pack
_APPLIED = OutcomeKind.APPLIED

Result = tuple[OutcomeKind, object]


class Session:
    """State of one session; `weights` only names results that hold old values."""

    __slots__ = ("fresh", "key", "kind", "last_ms", "low", "pages", "results", "weight", "weights")

    def __init__(self, key: bytes, kind: int, last_ms: int, low: int = 0) -> None:
        self.key = key
        self.kind = kind
        self.last_ms = last_ms
        self.low = low
        self.results: dict[int, Result] = {}
        self.pages = Pages()
        self.fresh: list[tuple[int, OutcomeKind, object]] = []
        self.weights: dict[int, int] = {}
        self.weight = 0

    def full(self, sequence: int) -> bool:
        """Whether this sequence must wait for the low mark. Never true for the lowest one."""
        return sequence - self.low >= WINDOW or (self.weight >= WEIGHT_MAX and sequence != self.low)

    def store(self, sequence: int, kind: OutcomeKind, detail: object, weight: int) -> None:
        """Remember a result; it becomes part of a page at the end of the entry."""
        self.results[sequence] = (kind, detail)
        self.fresh.append((sequence, kind, detail))
        if weight:
            self.weights[sequence] = weight
            self.weight += weight

    def advance(self, low: int, rows: Rows[bytes]) -> None:
        """Everything below `low` was answered: forget it."""
        results, weights = self.results, self.weights
        if low - self.low <= len(results):
            for sequence in range(self.low, low):
                results.pop(sequence, None)
                if weights:
                    self.weight -= weights.pop(sequence, 0)
        else:
            self.results = {s: result for s, result in results.items() if s >= low}
            self.weights = {s: weight for s, weight in weights.items() if s >= low}
            self.weight = sum(self.weights.values())
        self.low = low
        for page in self.pages.drop_below(low):
            rows.delete(page_key(self.key, page))


class Sessions:
    """All sessions of nodes and gateways, in memory and in STATE rows."""

    def __init__(self, rows: Rows[bytes], idle_ms: int) -> None:
        self._rows = rows
        self._idle_ms = idle_ms
        self._sessions: dict[bytes, Session] = {}
        self._touched: dict[bytes, Session] = {}
        self._fresh: dict[bytes, Session] = {}
        self._opened = 0
        self._ended: dict[bytes, int] = {}
        """Session -> slot, in the order of slots."""
        self._ending: list[bytes] = []

    def load(self) -> None:
        """Read all rows."""
        start = HEAD_PREFIX
        while rows := self._rows.scan(start, _after(HEAD_PREFIX), 1000):
            for key, raw in rows:
                kind, low, last_ms = _unpacked(raw)
                session = Session(key[1:], kind, last_ms, low)
                self._sessions[session.key] = session
                self._opened += kind == OPENED
            start = rows[-1][0] + b"\0"
        pages = []
        start = PAGE_PREFIX
        while rows := self._rows.scan(start, _after(PAGE_PREFIX), 1000):
            pages += [_unpacked_page(key, raw) for key, raw in rows]
            start = rows[-1][0] + b"\0"
        for _, page, name, results in sorted(pages, key=_slot_and_page):
            self._load_page(self._sessions[name], page, results)
        ended = []
        start = ENDED_PREFIX
        while rows := self._rows.scan(start, _after(ENDED_PREFIX), 1000):
            ended += [(_unpacked(raw)[0], key[1:]) for key, raw in rows]
            start = rows[-1][0] + b"\0"
        self._ended = {key: slot for slot, key in sorted(ended)}

    def _load_page(self, session: Session, page: int, results: tuple[Any, ...]) -> None:
        highest = 0
        for sequence, kind, detail in results:
            highest = max(highest, sequence)
            if sequence >= session.low:
                restored = restore_detail(kind, detail)
                session.store(sequence, OutcomeKind(kind), restored, weigh(restored))
        session.fresh = []
        session.pages.restore(page, highest)

    def find(self, key: bytes, now_ms: int) -> Session | None:
        """The session, unless it is unknown or expired at `now_ms`; counts as a use."""
        session = self._sessions.get(key)
        if session is None:
            return None
        if session.kind == OPENED and session.last_ms + self._idle_ms <= now_ms:
            self.close(key)
            return None
        session.last_ms = now_ms
        self._touched[key] = session
        return session

    def stored(self, session: Session) -> None:
        """The session got a result in this entry."""
        self._fresh[session.key] = session

    def open(self, key: bytes, kind: int, now_ms: int) -> bool:
        """Begin a session (a known one stays as it is). False: too many, or it has ended."""
        if self.find(key, now_ms) is not None:
            return True
        if kind == OPENED:
            if self.has_ended(key):
                return False
            if self._opened >= OPENED_MAX:
                return False
            self._opened += 1
        self._sessions[key] = self._touched[key] = Session(key, kind, now_ms)
        return True

    def has_ended(self, key: bytes) -> bool:
        """Whether this name was used, and is over."""
        return key in self._ended or key in self._ending

    def close(self, key: bytes) -> None:
        """End a session; no error if it is unknown."""
        session = self._sessions.pop(key, None)
        if session is None:
            return
        self._touched.pop(key, None)
        self._fresh.pop(key, None)
        if session.kind == OPENED:
            self._opened -= 1
            self._ending.append(key)
        self._rows.delete(HEAD_PREFIX + key)
        for page in session.pages:
            self._rows.delete(page_key(key, page))

    def close_node(self, incarnation: int, boot: int) -> None:
        """The boot is over."""
        self.close(node_session(incarnation, boot))

    def expire(self, now_ms: int) -> None:
        """End every session that was idle for too long."""
        idle_since = now_ms - self._idle_ms
        due = [
            s.key for s in self._sessions.values() if s.kind == OPENED and s.last_ms <= idle_since
        ]
        # In the order of keys: the dict's own order is lost by a restart.
        for key in sorted(due):
            self.close(key)

    def next_expiry_ms(self) -> int | None:
        """When the first gateway's session will have been idle for too long."""
        times = [s.last_ms for s in self._sessions.values() if s.kind == OPENED]
        return min(times) + self._idle_ms if times else None

    def end_entry(self, slot: int) -> None:
        """Write the pages of the entry at `slot`, and which sessions ended in it."""
        if self._ending or self._ended:
            self._note_ended(slot)
        if not self._fresh:
            return
        for key, session in self._fresh.items():
            fresh = session.fresh
            session.fresh = []
            page = session.pages.add(max(result[0] for result in fresh))
            self._rows.put(page_key(key, page), _pack((PAGE_FORMAT, slot, *fresh)))
        self._fresh = {}

    def _note_ended(self, slot: int) -> None:
        for key in sorted(self._ending):
            self._ended[key] = slot
            self._rows.put(ENDED_PREFIX + key, _pack((FORMAT, slot)))
        self._ending = []
        while self._ended:
            key = next(iter(self._ended))
            if self._ended[key] + ENDED_SLOTS > slot:
                return
            del self._ended[key]
            self._rows.delete(ENDED_PREFIX + key)

    def end_turn(self) -> None:
        """Write the heads of the touched sessions."""
        for key, session in self._touched.items():
            row = _pack((FORMAT, session.kind, session.low, session.last_ms))
            self._rows.put(HEAD_PREFIX + key, row)
        self._touched = {}


def page_key(session: bytes, page: int) -> bytes:
    """Row of this page of the session."""
    return PAGE_PREFIX + session + _PAGE.pack(page)


def weigh(detail: object) -> int:
    """Bytes of old values in a stored result."""
    if type(detail) is not list:
        return 0
    weight = 0
    for result in detail:
        if type(result) is tuple and result[2] is not None and result[2].value is not None:
            weight += result[2].length
    return weight


def restore_detail(kind: int, detail: Any) -> object:
    """A stored detail as it was before it was packed."""
    if kind != _APPLIED:
        return detail
    return [_restore_result(result) for result in detail]


def _restore_result(result: Any) -> object:
    if type(result) is not tuple or result[2] is None:
        return result
    version, existed, previous = result
    return (version, existed, record_from_fields(previous))


def _unpacked(raw: bytes) -> tuple[Any, ...]:
    row = msgpack.unpackb(raw, use_list=False)
    if row[0] != FORMAT:
        raise UnknownEntry(f"a session row has format {row[0]}, this version reads {FORMAT}")
    return tuple(row[1:])


_RawPage = tuple[int, int, bytes, tuple[Any, ...]]
"""Slot, page, session, results."""


def _unpacked_page(key: bytes, raw: bytes) -> _RawPage:
    session = key[1 : 1 + SESSION_BYTES]
    page: int = _PAGE.unpack_from(key, 1 + SESSION_BYTES)[0]
    row = msgpack.unpackb(raw, use_list=False)
    if row[0] == FORMAT:
        return page, page, session, row[1:]
    if row[0] != PAGE_FORMAT:
        raise UnknownEntry(
            f"a page of a session has format {row[0]}, this version reads {PAGE_FORMAT}"
        )
    return row[1], page, session, row[2:]


def _slot_and_page(raw: _RawPage) -> tuple[int, int]:
    return raw[0], raw[1]


def _after(prefix: bytes) -> bytes:
    return prefix[:-1] + bytes([prefix[-1] + 1])
