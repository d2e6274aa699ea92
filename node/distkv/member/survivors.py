"""What is left of a cluster that lost more than f disks, read from the directories that are.

With m > f the shards may suffice although no quorum does (protocol section 7). Nothing is
decided here and, but for a snapshot that a crash left half installed, nothing is written.
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
from distkv.machine.snapshot import is_installing
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


class Survivor:
    """One directory that was not lost; `name` is for messages."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        identity, founding = read_identity(engine), load_founding(engine)
        if identity is None or founding is None or not is_founded(engine):
            raise Empty(f"{name} holds no member of a cluster: leave it out")
        if is_installing(engine):
            _finish_install(name, engine)
        self.identity: DirectoryIdentity = identity
        self.founding: Founding = founding
        self.machine = Machine.load(engine)
        self.hard = HardState(Outbox())
        hint = self.hard.load(engine)
        self.log = Log(Outbox())
        applied = self.machine.applied
        self.log.load(engine, max(hint, applied), applied)
        self._peers = PeerRecords(Outbox(), 1, Witness())
        self._peers.load(engine)
        self._told = engine.get(Table.META, WENT_BACK) is not None

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


def _finish_install(name: str, engine: Engine) -> None:
    try:
        finish_install(engine)
    except StageLost as lost:
        raise CannotRecover(
            f"{name} holds half a state, {lost}: start its node while others run, and it takes "
            "theirs; or leave it out"
        ) from lost


class Slots(NamedTuple):
    """The log above the applied state of the survivor that is furthest along.

    `chosen`: how many of `bodies` some survivor knows to be chosen; the others were accepted
    by one of them and perhaps never chosen. `holes`: slots that nobody left knows.
    """

    first: int
    bodies: tuple[bytes, ...]
    chosen: int
    holes: tuple[int, ...]


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
    """Whose applied state is the newest, of the newest generation."""
    return max(survivors, key=lambda s: (s.identity.generation, s.machine.applied))


def slots_above(base: Survivor, survivors: Sequence[Survivor]) -> Slots:
    """What a new leader that hears exactly these acceptors would propose again."""
    applied = base.machine.applied
    chosen = max(survivor.log.chosen for survivor in survivors)
    last = max(survivor.log.last for survivor in survivors)
    bodies: list[bytes] = []
    holes: list[int] = []
    for slot in range(applied + 1, last + 1):
        found = _best(slot, survivors)
        if found is None:
            holes.append(slot)
            found = entries.noop(base.machine.log_time_ms)
        bodies.append(found)
    return Slots(applied + 1, tuple(bodies), max(0, chosen - applied), tuple(holes))


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
        rounds += [survivor.hard.promised.round, survivor.machine.barrier.round]
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
