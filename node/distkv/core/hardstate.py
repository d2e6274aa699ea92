"""What a replica must not forget: its promise, its chosen prefix, its count of flushes.

One row of META, written with every batch that somebody waits for. The count of such
batches travels in `Accepted.durable` and in greetings: a peer that starts with fewer than it once
told runs on a volume restored from a snapshot, has forgotten promises, and must not be counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from distkv.core.outbox import Outbox
from distkv.core.witness import Witness
from distkv.ids import ZERO_BALLOT, Ballot, Member
from distkv.storage.base import Delete, Engine, Put, Table

_STATE = struct.Struct(">BQiQQQ")
_PEER = struct.Struct(">BiQQQ?")
_FORMAT = 1
_PEER_FORMAT = 2
_PER_SEAT = 8
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

    `start`: random number of the start of its process that said so; 0 if it did not greet yet.
    `unknown`: there is a new connection, and who is at its other end has not greeted.
    """

    __slots__ = ("dirty", "durable", "regressed", "start", "unknown")

    def __init__(self, start: int, durable: int, regressed: bool) -> None:
        self.start = start
        self.durable = durable
        self.regressed = regressed
        self.dirty = False
        self.unknown = False


class PeerRecords:
    """Durable counts per ordinal; rows are written lazily by `save`.

    A process counts on from what its directory held when it started. All that an earlier
    process of that directory ever told was flushed, so a later one cannot have started with
    less, unless the directory is not what it was: a volume restored from a snapshot, or a log
    whose end was lost. It is judged by the count with which it *started*, because with what it
    has flushed since it may be past any number again. A seat has a record for each directory
    that sat there lately: somebody may restore the one that was given up.
    """

    __slots__ = ("_every", "_outbox", "_save_at", "_votes", "_witness", "records", "suspicions")

    def __init__(
        self,
        outbox: Outbox,
        every: int,
        witness: Witness,
        votes: Callable[[Member], bool] = lambda member: False,
    ) -> None:
        """`every`: ticks between two times of saving. `votes`: who is never forgotten."""
        self.records: dict[Member, PeerRecord] = {}
        self.suspicions: list[Member] = []
        """Peers found to have lost durable state, for status and log."""
        self._outbox = outbox
        self._witness = witness
        self._every = every
        self._votes = votes
        self._save_at = 0

    def _of(self, member: Member) -> PeerRecord:
        record = self.records.get(member)
        if record is None:
            record = self.records[member] = PeerRecord(0, 0, False)
            seat = [known for known in self.records if known.ordinal == member.ordinal]
            others = [known for known in seat if not self._votes(known)]
            if len(others) > _PER_SEAT:
                del self.records[others[0]]
                self._outbox.writes.append(Delete(Table.META, _key(others[0])))
        return record

    def connected(self, peer: Member) -> None:
        """It may be another start of it, so until it greets nothing that it says counts:
        a count of the new start would be taken for one of the old."""
        self._of(peer).unknown = True

    def greets(self, peer: Member, start: int, flushes: int) -> int:
        """A process of that peer, with `flushes` batches counted when it started.

        Returns 0, or the greater count that was told before: then nothing that it says
        counts any more.
        """
        record = self._of(peer)
        record.unknown = False
        if record.start != start and not record.regressed:
            # Of a process that was not greeted by, the count may be one of this very start.
            record.regressed = record.start != 0 and flushes < record.durable
            record.start = start
            record.dirty = True
            if record.regressed:
                self._suspect(peer, f"{flushes} flushes, {record.durable} were told before")
        return record.durable if record.regressed else 0

    def heard(self, peer: Member, durable: int) -> None:
        """So many batches are durable there: what a later process of it is measured by."""
        record = self._of(peer)
        if durable > record.durable and not record.regressed:
            record.durable = durable
            record.dirty = True

    def counts(self, sender: Member, durable: int) -> bool:
        """Note `durable`; False if what this peer says with it must not be counted.

        A lower count is an old message that was overtaken, or nothing was flushed since the
        process started; both are no news of what is durable now.
        """
        record = self._of(sender)
        if record.regressed or record.unknown or durable < record.durable:
            return False
        if durable > record.durable:
            record.durable = durable
            record.dirty = True
        return True

    def _suspect(self, peer: Member, detail: str) -> None:
        self.suspicions.append(peer)
        self._witness.suspect(peer, "durable_regression", detail)

    def trusted(self, member: Member) -> bool:
        """Whether votes of this incarnation count."""
        record = self.records.get(member)
        return record is None or not (record.regressed or record.unknown)

    def tick(self, now: int) -> None:
        """Save now and then."""
        if now >= self._save_at:
            self._save_at = now + self._every
            self.save()

    def save(self) -> None:
        """Write what changed; nobody waits for it."""
        for member, record in self.records.items():
            if record.dirty:
                record.dirty = False
                row = _PEER.pack(
                    _PEER_FORMAT, *member, record.start, record.durable, record.regressed
                )
                self._outbox.writes.append(Put(Table.META, _key(member), row))

    def load(self, engine: Engine) -> None:
        """Read the rows."""
        for _, raw in engine.scan(Table.META, PEER_KEY, PEER_KEY + b"\xff"):
            if raw[0] != _PEER_FORMAT:
                continue  # without the start that told the count nothing can be measured by it
            _, ordinal, incarnation, start, durable, regressed = _PEER.unpack(raw)
            member = Member(ordinal, incarnation)
            self.records[member] = PeerRecord(start, durable, regressed)
            if regressed:
                self._suspect(member, "found before this start")


def _key(member: Member) -> bytes:
    return PEER_KEY + b"%d.%d" % member
