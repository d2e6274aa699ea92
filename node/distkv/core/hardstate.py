"""What a replica must not forget: its promise, its chosen prefix, its count of flushes.

One row of META, written with every batch that somebody waits for. The count of such
batches travels in `Accepted.durable`: a peer that reports fewer than it once did runs on a
volume restored from a snapshot, has forgotten promises, and must not be counted.
"""

from __future__ import annotations

import struct

from distkv.core.outbox import Outbox
from distkv.core.witness import Witness
from distkv.ids import ZERO_BALLOT, Ballot, Member
from distkv.storage.base import Engine, Put, Table

_STATE = struct.Struct(">BQiQQQ")
_PEER = struct.Struct(">BQQ?")
_FORMAT = 1
STATE_KEY = b"core.state"
PEER_KEY = b"core.peer."


class HardState:
    """`promised` grows only. `chosen`: hint, never above what the rows of LOG show."""

    __slots__ = ("_outbox", "batches", "durable_batches", "promised")

    def __init__(self, outbox: Outbox) -> None:
        self.promised = ZERO_BALLOT
        self.batches = 0
        """Batches written that must be flushed, ever."""
        self.durable_batches = 0
        """Those known to be flushed, of which peers may be told."""
        self._outbox = outbox

    def promise(self, ballot: Ballot) -> None:
        """Raise the promise; the row is written before anything that depends on it."""
        assert ballot > self.promised
        self.promised = ballot

    def write(self, chosen: int) -> None:
        """Add the row to the batch in the making and count that batch."""
        self.batches += 1
        row = _STATE.pack(_FORMAT, *self.promised, chosen, self.batches)
        self._outbox.writes.append(Put(Table.META, STATE_KEY, row))

    def load(self, engine: Engine) -> int:
        """Read the row; returns the chosen hint. Raises ValueError for an unknown format."""
        row = engine.get(Table.META, STATE_KEY)
        if row is None:
            return 0
        if row[0] != _FORMAT:
            raise ValueError(f"row {STATE_KEY!r} has format {row[0]}, this version reads {_FORMAT}")
        _, round_, ordinal, incarnation, chosen, batches = _STATE.unpack(row)
        self.promised = Ballot(round_, ordinal, incarnation)
        self.batches = batches
        return int(chosen)


class PeerRecord:
    """What one peer once said to be durable. `regressed`: it came back with less, for good.

    `came_back`: since it said so, a connection to it began, or we did; before that a lower
    count can only be an old message.
    """

    __slots__ = ("below_since", "came_back", "durable", "incarnation", "regressed", "saved")

    def __init__(
        self, incarnation: int, durable: int, regressed: bool, came_back: bool = False
    ) -> None:
        self.incarnation = incarnation
        self.durable = durable
        self.regressed = regressed
        self.came_back = came_back
        self.saved = durable
        self.below_since = -1


class PeerRecords:
    """Durable counts per ordinal; rows are written lazily by `save`."""

    __slots__ = ("_every", "_grace", "_outbox", "_save_at", "_witness", "records", "suspicions")

    def __init__(self, outbox: Outbox, grace: int, every: int, witness: Witness) -> None:
        """`grace`, `every`: ticks before a suspicion, and between two times of saving."""
        self.records: dict[int, PeerRecord] = {}
        self.suspicions: list[Member] = []
        """Peers found to have lost durable state, for status and log."""
        self._outbox = outbox
        self._grace = grace
        self._witness = witness
        self._every = every
        self._save_at = 0

    def counts(self, sender: Member, durable: int, now: int) -> bool:
        """Note `durable`; False if what this peer says must not be counted.

        A lower count may also be an old message that was overtaken, and is 0 until the first
        flush after a start: it is not counted either, but only a peer that came back, and
        says nothing better for `grace` ticks, is suspected.
        """
        record = self.records.get(sender.ordinal)
        if record is None or record.incarnation != sender.incarnation:
            record = PeerRecord(sender.incarnation, -1, False)
            self.records[sender.ordinal] = record
        if record.regressed:
            return False
        if durable >= record.durable:
            record.durable = durable
            record.came_back = False
            record.below_since = -1
            return True
        if not record.came_back or durable == 0:
            return False
        if record.below_since < 0:
            record.below_since = now
        elif now - record.below_since >= self._grace:
            record.regressed = True
            record.saved = -1
            self._suspect(sender, f"{durable} flushes, {record.durable} were told before")
        return False

    def connected(self, member: Member) -> None:
        """A connection to this peer began: it may be another start of it."""
        record = self.records.get(member.ordinal)
        if record is not None and record.incarnation == member.incarnation:
            record.came_back = True

    def _suspect(self, peer: Member, detail: str) -> None:
        self.suspicions.append(peer)
        self._witness.suspect(peer, "durable_regression", detail)

    def trusted(self, member: Member) -> bool:
        """Whether votes of this incarnation count."""
        record = self.records.get(member.ordinal)
        return record is None or record.incarnation != member.incarnation or not record.regressed

    def tick(self, now: int) -> None:
        """Save now and then."""
        if now >= self._save_at:
            self._save_at = now + self._every
            self.save()

    def save(self) -> None:
        """Write what changed; nobody waits for it."""
        for ordinal, record in self.records.items():
            if record.saved != record.durable:
                record.saved = record.durable
                row = _PEER.pack(
                    _FORMAT, record.incarnation, max(record.durable, 0), record.regressed
                )
                self._outbox.writes.append(Put(Table.META, PEER_KEY + b"%d" % ordinal, row))

    def load(self, engine: Engine) -> None:
        """Read the rows."""
        for key, row in engine.scan(Table.META, PEER_KEY, PEER_KEY + b"\xff"):
            _, incarnation, durable, regressed = _PEER.unpack(row)
            ordinal = int(key[len(PEER_KEY) :])
            self.records[ordinal] = PeerRecord(incarnation, durable, regressed, True)
            if regressed:
                self._suspect(Member(ordinal, incarnation), "found before this start")
