"""What is left of a cluster that lost more than f disks, read from the directories that are.

With m > f the shards may suffice although no quorum does (protocol section 7). Nothing is
decided here and, but for a snapshot that a crash left half installed, nothing is written.

If what was staged of such a snapshot is damaged, the survivor is a half: it has no state, but what
it promised and accepted, and its shards, are as good as anybody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgpack

from distkv.coding.layout import stripe_count
from distkv.core import entries
from distkv.core.hardstate import HardState, PeerRecords
from distkv.core.log import Log
from distkv.core.outbox import Outbox
from distkv.core.witness import Witness
from distkv.data import rows
from distkv.ids import ZERO_BALLOT, Ballot, Member, ValueId
from distkv.machine.interface import Record
from distkv.machine.machine import Machine, is_founded
from distkv.machine.snapshot import installing_slot, is_installing
from distkv.member.identity import (
    WENT_BACK,
    DirectoryIdentity,
    load_founding,
    read_identity,
)
from distkv.member.messages import Founding
from distkv.member.staging import StageLost, finish_install
from distkv.storage.base import CorruptRow, Engine, Table

_PAGE = 500


class CannotRecover(Exception):
    """These directories are not what is left of one cluster; the message says why."""


class Empty(CannotRecover):
    """A directory in which no node ever knew of a cluster."""


class Half(NamedTuple):
    """Of a survivor without a state. `slot`: all up to it was chosen, and it had applied nothing
    above; None: a version that did not note it began the installation."""

    slot: int | None
    why: str


class Survivor:
    """One directory that was not lost; `name` is for messages."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        identity, founding = read_identity(engine), load_founding(engine)
        if identity is None or founding is None or not is_founded(engine):
            raise Empty(f"{name} holds no member of a cluster: leave it out")
        self.identity: DirectoryIdentity = identity
        self.founding: Founding = founding
        self.half = _finish_install(engine)
        self._machine = None if self.half else Machine.load(engine)
        self.hard = HardState(Outbox())
        hint = self.hard.load(engine)
        self.log = Log(Outbox())
        # Without a state only the hint tells what is chosen: entries above it, be they applied
        # or of slots that the lost state skipped, count as accepted.
        applied = hint if self._machine is None else self._machine.applied
        self.log.load(engine, max(hint, applied), applied)
        self._peers = PeerRecords(Outbox(), 1, Witness())
        self._peers.load(engine)
        self._told = engine.get(Table.META, WENT_BACK) is not None

    @property
    def machine(self) -> Machine:
        """The state; a half has none."""
        assert self._machine is not None, f"{self.name} has no state"
        return self._machine

    def can_regain(self, others: Sequence[Survivor]) -> bool:
        """Whether the node of this half would take the state of one of `others`, of the same
        generation, were they started (see member.regaining)."""
        assert self.half is not None
        slot = self.half.slot
        return slot is not None and any(
            other.half is None and other.machine.applied >= slot for other in others
        )

    def went_back(self, others: Sequence[Survivor]) -> bool:
        """Whether the node of this directory would not be counted by all of `others`: it holds
        fewer flushes than one of them was told (see core.hardstate)."""
        return self._told or any(other._would_refuse(self) for other in others)

    def _would_refuse(self, peer: Survivor) -> bool:
        told = self._peers.records.get(peer.member)
        if told is None or self.identity.generation != peer.identity.generation:
            return False
        return told.regressed or (told.start != 0 and peer.hard.batches < told.durable)

    @property
    def member(self) -> Member:
        """Seat and incarnation."""
        return self.identity.member


def _finish_install(engine: Engine) -> Half | None:
    try:
        if is_installing(engine):
            finish_install(engine)
    except StageLost as lost:
        return Half(installing_slot(engine), str(lost))
    return None


class Slots(NamedTuple):
    """The log above the applied state of the survivor that is furthest along.

    `chosen`: how many of `bodies` some survivor knows to be chosen; the others were accepted
    by one of them and perhaps never chosen. `holes`: slots that nobody left knows. `certain`: in
    every slot up to it something was chosen, of which clients may have been told.
    """

    first: int
    bodies: tuple[bytes, ...]
    chosen: int
    holes: tuple[int, ...]
    certain: int

    @property
    def uncertain(self) -> int:
        """Accepted, not known to be chosen."""
        known = self.first + self.chosen
        return len(self.bodies) - self.chosen - sum(slot >= known for slot in self.holes)

    @property
    def gone(self) -> int:
        """Chosen, and nobody left knows what."""
        return sum(slot <= self.certain for slot in self.holes)

    @property
    def unproved(self) -> int:
        """Something was chosen, and what is left was accepted: perhaps that, perhaps not."""
        known = self.first + self.chosen
        gone = sum(known <= slot <= self.certain for slot in self.holes)
        return max(0, self.certain + 1 - known) - gone


NO_SLOTS = Slots(1, (), 0, (), 0)


def check_one_cluster(survivors: Sequence[Survivor]) -> None:
    """Raise CannotRecover unless these are members of the same cluster, each one once."""
    if not survivors:
        raise CannotRecover("no directory of a member is left: nothing can be recovered")
    first = survivors[0]
    for other in survivors[1:]:
        if other.identity.cluster != first.identity.cluster:
            raise CannotRecover(
                f"{other.name} belongs to cluster {other.identity.cluster.hex()}, {first.name} "
                f"to {first.identity.cluster.hex()}"
            )
    ordinals = [survivor.member.ordinal for survivor in survivors]
    for ordinal in ordinals:
        if ordinals.count(ordinal) > 1:
            raise CannotRecover(f"ordinal {ordinal} is given twice")


def furthest(survivors: Sequence[Survivor]) -> Survivor:
    """Whose applied state is the newest, of the newest generation. Raises CannotRecover if
    nobody has a state of that."""
    whole = [s for s in survivors if s.half is None]
    if not whole:
        halves = "; ".join(f"{s.name}: {s.half.why}" for s in survivors if s.half is not None)
        raise CannotRecover(
            f"none of these directories holds a whole state ({halves}): add one that does"
        )
    best = max(whole, key=lambda s: (s.identity.generation, s.machine.applied))
    newer = [s for s in survivors if s.identity.generation > best.identity.generation]
    if newer:
        # From an older state the same generation would be decided twice.
        raise CannotRecover(
            f"an earlier recovery has decided generation {newer[0].identity.generation}, of which "
            f"only {', '.join(s.name for s in newer)} are here, with half a state "
            f"({newer[0].half and newer[0].half.why}): add another directory of that generation"
        )
    return best


def slots_above(base: Survivor, survivors: Sequence[Survivor]) -> Slots:
    """What a new leader that hears exactly these acceptors would propose again.

    It reaches the slots of all halves: no slot is used twice of which a reader was told.
    """
    applied = base.machine.applied
    chosen = max(survivor.log.chosen for survivor in survivors)
    certain = max(chosen, *((s.half and s.half.slot) or 0 for s in survivors))
    last = max(certain, *(survivor.log.last for survivor in survivors))
    bodies: list[bytes] = []
    holes: list[int] = []
    noop = entries.noop(base.machine.log_time_ms)
    for slot in range(applied + 1, last + 1):
        found = _best(slot, survivors)
        if found is None:
            holes.append(slot)
            found = noop
        bodies.append(found)
    return Slots(applied + 1, tuple(bodies), max(0, chosen - applied), tuple(holes), certain)


def _best(slot: int, survivors: Sequence[Survivor]) -> bytes | None:
    """The entry known to be chosen, else the one accepted under the highest ballot."""
    best: tuple[Ballot, bytes] | None = None
    for survivor in survivors:
        found = survivor.log.entries.get(slot)
        if found is None:
            continue
        if slot <= survivor.log.chosen:
            return found[1]
        if best is None or best[0] < found[0]:
            best = found
    return None if best is None else best[1]


def highest_round(survivors: Sequence[Survivor]) -> int:
    """No ballot that these ever promised, accepted or applied has a higher round."""
    rounds = [ZERO_BALLOT.round]
    for survivor in survivors:
        rounds.append(survivor.hard.promised.round)
        if survivor.half is None:
            rounds.append(survivor.machine.barrier.round)
        rounds += [ballot.round for ballot, _ in survivor.log.entries.values()]
    return max(rounds)


def coded_records(machine: Machine) -> Iterator[tuple[bytes, Record]]:
    """Every key whose value is dispersed, in key order."""
    start = b""
    while page := machine.scan(start, None, b"", _PAGE):
        for key, record in page:
            if record.value_id is not None:
                yield key, record
        start = page[-1][0] + b"\0"


def is_readable(record: Record, engines: Sequence[Engine]) -> bool:
    """Whether k_e different shards of every stripe rest in these directories. Checksums of
    the pieces are not looked at here; a rotten one is found when it is read."""
    assert record.value_id is not None
    have: dict[int, int] = {}
    count = stripe_count(record.length, record.stripe_bytes)
    whole = (1 << count) - 1
    for engine in engines:
        found = _shard(engine, record.value_id, whole)
        if found is not None:
            have[found[0]] = have.get(found[0], 0) | found[1]
    if sum(present == whole for present in have.values()) >= record.data_shards:
        return True
    return all(
        sum(present >> stripe & 1 for present in have.values()) >= record.data_shards
        for stripe in range(count)
    )


def _shard(engine: Engine, value_id: ValueId, whole: int) -> tuple[int, int] | None:
    """Number of the shard in this directory, and which stripes of it (as bits) are there."""
    try:
        row = engine.get(Table.SHARD, rows.header_key(value_id))
    except CorruptRow:
        return None
    if row is None:
        return None
    header = rows.unpack_header(row)
    if header.complete:
        return header.shard, whole
    present = 0
    for key in engine.keys(Table.SHARD, *rows.piece_range(value_id), 1 << 20):
        present |= 1 << rows.stripe_of(key)
    return header.shard, present


def text_of(key: bytes) -> str:
    """A key for people."""
    return key.decode("utf-8", "backslashreplace")


def count_commands(bodies: Sequence[bytes]) -> int:
    """Commands of clients and members in these entries."""
    total = 0
    for body in bodies:
        if body[0] == entries.BATCH:
            total += len(msgpack.unpackb(body[entries.HEADER_BYTES :]))
    return total
