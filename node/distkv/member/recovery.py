"""Forced recovery: a new generation of a cluster that lost its quorum but not its shards.

A manual step, with every node stopped (protocol section 7). What a leader would do that hears
exactly the survivors is done here, on their directories: every slot gets the entry known to
be chosen, else the one of the highest ballot; lost members are replaced by new ones, whose
directories are made here with the whole metadata and without shards; a barrier above every
ballot rules out what was under way. All directories then hold the same state as chosen, under
the next generation: messages of an older one are refused, so that a lost node that turns up
again changes nothing. Repair fills the new nodes; values with too few shards are told as lost.

The survivor that is furthest along is changed first, in one batch: from then on it *is* the
outcome. A crash later leaves others of the older generation; the same command finishes them.

A survivor whose own state is half installed and damaged is heard like the others and gets that
outcome. Slots that its lost state may have held, and nobody left knows, are told as lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from distkv.core import entries
from distkv.core.hardstate import PEER_KEY, HardState
from distkv.core.outbox import Outbox
from distkv.ids import Ballot, Member
from distkv.machine.commands import change_replace
from distkv.machine.interface import ChangeRefused
from distkv.machine.snapshot import SnapshotSink, SnapshotSource
from distkv.member.identity import (
    WENT_BACK,
    DirectoryIdentity,
    founding_row,
    identity_row,
    read_identity,
)
from distkv.member.staging import UNSTAGE, finish_install, stage_of
from distkv.member.survivors import (
    NO_SLOTS,
    CannotRecover,
    Survivor,
    check_one_cluster,
    coded_records,
    count_commands,
    furthest,
    highest_round,
    is_readable,
    slots_above,
    text_of,
)
from distkv.storage.base import Delete, DeleteRange, Engine, Put, StorageOperation, Table

KEYS_SHOWN = 1000
_END = b"\xff" * 16


class Findings(NamedTuple):
    """What a recovery would keep and lose. `lost_ordinals`: seats that get an empty node."""

    survivors: tuple[int, ...]
    lost_ordinals: tuple[int, ...]
    generation: int
    """The new one."""
    half_done: bool
    """An earlier recovery was broken off after it had decided: this one only finishes it."""
    applied: int
    slots: int
    slots_uncertain: int
    """Of `slots`: accepted by a survivor, not known to be chosen. They are kept."""
    slots_unknown: int
    """Slots that no survivor knows: what they held is lost."""
    slots_gone: int
    """Of `slots_unknown`: chosen for certain, so that clients may have been told."""
    without_state: tuple[int, ...]
    """Survivors of whom only log and shards count: their state is half installed and damaged."""
    remarks: tuple[str, ...]
    """Of these: sentences for a person."""
    commands: int
    keys: int
    keys_lost: int
    lost: tuple[str, ...]
    """Keys whose shards do not suffice, at most KEYS_SHOWN of them."""

    @property
    def phrase(self) -> str:
        """What must be said to go on: it names what is decided, so that it cannot be a habit."""
        slots = f"-and-{self.slots_gone}-slots" if self.slots_gone else ""
        return f"generation-{self.generation}-loses-{self.keys_lost}-keys{slots}"


class Recovery:
    """`survivors`: directories of members, their nodes stopped, opened by the caller.

    Raises CannotRecover if there is nothing to recover, or not this way. Until `carry_out`
    the directories stay as they are.
    """

    def __init__(self, survivors: Sequence[Survivor]) -> None:
        check_one_cluster(survivors)
        members = furthest(survivors).machine.membership.everybody
        # One that is no member has no part in this: it waited to be admitted, has left, or
        # belongs to an older generation that had lost it.
        known = [s for s in survivors if s.member in members]
        if not known:
            raise CannotRecover("none of the directories belongs to a member of the cluster")
        self._base = base = furthest(known)
        newest = base.identity.generation
        machine = base.machine
        self._half_done = any(s.identity.generation != newest for s in known)
        self._generation = newest if self._half_done else newest + 1
        self._check_needed(known)
        # The lost state of a half may have been newer than the one that says who is a member.
        heard = known + [
            s for s in survivors if s.half and s not in known and s.identity.generation == newest
        ]
        self._ballot = Ballot(highest_round(heard) + 1, *base.member)
        self._slots = NO_SLOTS if self._half_done else slots_above(base, heard)
        self._applied = machine.applied
        self._undated = [s.name for s in heard if s.half and s.half.slot is None]
        for slot, body in enumerate(self._slots.bodies, self._slots.first):
            machine.apply(slot, body)
        members = machine.membership.everybody
        self.survivors = tuple(s for s in known if s.member in members)
        here = [s.member for s in self.survivors]
        self.lost_members = tuple(member for member in members if member not in here)

    def _check_needed(self, known: Sequence[Survivor]) -> None:
        if not self._base.machine.formed:
            raise CannotRecover("the cluster was never formed: nothing was stored in it")
        configuration = self._base.machine.configuration
        # Volumes of different moments make no quorum: the older ones are not heard any more.
        sound = [s for s in known if not s.went_back(known)]
        voters = [
            s
            for s in sound
            if configuration.is_voter(s.member) and (s.half is None or s.can_regain(sound))
        ]
        if len(voters) >= configuration.phase_one and not self._half_done:
            raise CannotRecover(
                f"{len(voters)} of {configuration.size} members are left and "
                f"{configuration.phase_one} make a quorum: start them, and replace the lost ones "
                "one by one (distkv admin replace); a forced recovery is not needed"
                + "".join(
                    f". {s.name} holds half a state ({s.half.why}): start its node with the others,"
                    " and it takes theirs"
                    for s in voters
                    if s.half
                )
            )

    def findings(self) -> Findings:
        """Looks at every record: takes a while on large directories."""
        machine = self._base.machine
        engines = [survivor.engine for survivor in self.survivors]
        keys_lost = 0
        lost: list[str] = []
        for key, record in coded_records(machine):
            if not is_readable(record, engines):
                keys_lost += 1
                if len(lost) < KEYS_SHOWN:
                    lost.append(text_of(key))
        slots = self._slots
        return Findings(
            tuple(sorted(s.member.ordinal for s in self.survivors)),
            tuple(member.ordinal for member in self.lost_members),
            self._generation,
            self._half_done,
            self._applied,
            len(slots.bodies),
            slots.uncertain,
            len(slots.holes),
            slots.gone,
            tuple(sorted(s.member.ordinal for s in self.survivors if s.half)),
            self._remarks(),
            count_commands(slots.bodies[slots.chosen :]),
            machine.count(),
            keys_lost,
            tuple(lost),
        )

    def _remarks(self) -> tuple[str, ...]:
        found = [
            f"{s.name} holds half a state ({s.half.why}): its log and shards count, and "
            + (
                "it gets the state of the node that is furthest along"
                if self._to_copy(s)
                # It has promised and accepted in this generation already.
                else "nothing of it is changed: its node takes a state that is new enough from "
                "a peer, once it is started"
            )
            for s in self.survivors
            if s.half
        ]
        if self._slots.unproved:
            found.append(
                f"up to slot {self._slots.certain} all was chosen; of {self._slots.unproved} of "
                "these slots no more is left than what was accepted under the highest ballot, and "
                "where that is not what was chosen, the latter is LOST"
            )
        if self._undated and not self._half_done:
            found.append(
                f"nobody noted how new the state of {', '.join(self._undated)} was: what it held "
                f"beyond slot {self._base.machine.applied} is LOST"
            )
        return tuple(found)

    def _to_copy(self, survivor: Survivor) -> bool:
        return survivor.identity.generation != self._generation and survivor is not self._base

    # -- carrying it out

    def carry_out(self, fresh: Mapping[int, Engine], incarnations: Mapping[int, int]) -> None:
        """Write everything. `fresh`: an empty store for every ordinal of `lost_members`;
        `incarnations`: random numbers for their members, unused if a recovery that was broken
        off has named some already. Idempotent; durable when it returns. Raises CannotRecover
        before anything is written."""
        missing = [m.ordinal for m in self.lost_members if m.ordinal not in fresh]
        if missing:
            raise CannotRecover(f"ordinals {missing} need a new directory each")
        for member in self.lost_members:
            known = read_identity(fresh[member.ordinal])
            if known is not None:
                raise CannotRecover(
                    f"the directory for ordinal {member.ordinal} is not empty: it holds "
                    f"incarnation {known.incarnation}; give an empty one"
                )
        if not self._half_done:
            self._decide(incarnations)
        for survivor in self.survivors:
            if self._to_copy(survivor):
                self._copy(survivor)
        seats = self._base.machine.membership.everybody
        for member in self.lost_members:
            self._make(fresh[member.ordinal], seats[member.ordinal])

    def _decide(self, incarnations: Mapping[int, int]) -> None:
        """The base takes the outcome, in one batch."""
        base, machine = self._base, self._base.machine
        stamp, owner = machine.log_time_ms, machine.membership.owner
        machine.drain_events()
        for ordinal, old in self.lost_members:
            body = change_replace(owner, ordinal, old, incarnations[ordinal])
            machine.apply(machine.applied + 1, entries.configuration(stamp, body))
        refused = [e for e in machine.drain_events() if isinstance(e, ChangeRefused)]
        assert not refused, f"a replacement does not apply: {refused}"
        machine.apply(machine.applied + 1, entries.barrier(stamp, self._ballot))
        base.engine.write([*machine.drain_writes(), *self._rows(base.engine, base.identity)])
        base.engine.flush()

    def _rows(self, engine: Engine, identity: DirectoryIdentity) -> list[StorageOperation]:
        """Everything but the state: an empty log after it, the promise, the generation. The
        barrier of the state is the ballot of the decision, whoever took it, and when."""
        machine = self._base.machine
        outbox = Outbox()
        hard = HardState(outbox)
        hard.load(engine)
        hard.promised = max(hard.promised, machine.barrier)
        hard.write(machine.applied)
        known = machine.membership.boots.get(identity.incarnation)
        if known is not None and known.boot > identity.boot:
            # A volume that went back must not be an earlier process of its own once more.
            identity = identity._replace(boot=known.boot)
        return [
            DeleteRange(Table.LOG, b"", _END),
            # Whose directory is older than it was is no matter any more: this is a new beginning.
            DeleteRange(Table.META, PEER_KEY, PEER_KEY + b"\xff"),
            Delete(Table.META, WENT_BACK),
            *outbox.writes,
            founding_row(self._base.founding._replace(generation=self._generation)),
            identity_row(identity._replace(generation=self._generation)),
        ]

    def _copy(self, survivor: Survivor) -> None:
        """The same state in another survivor's directory; its shards stay."""
        engine = survivor.engine
        engine.write([UNSTAGE])
        for number, body in enumerate(self._pieces()):
            engine.write([Put(Table.META, stage_of(number), body)])
        finish_install(engine)
        engine.write(self._rows(engine, survivor.identity))
        engine.flush()

    def _make(self, engine: Engine, member: Member) -> None:
        """A new member: the state without shards; the identity last, as the sign of all."""
        sink = SnapshotSink()
        engine.write(sink.begin(self._base.machine.applied))
        for body in self._pieces():
            engine.write(sink.take(body))
        cluster = self._base.identity.cluster
        new = DirectoryIdentity(cluster, self._generation, *member, 0)
        engine.write(self._rows(engine, new))
        engine.flush()

    def _pieces(self) -> Iterator[bytes]:
        source = SnapshotSource(self._base.engine.view())
        try:
            number, last = 0, False
            while not last:
                piece = source.piece(number)
                assert piece is not None, "pieces come in order"
                body, last = piece
                number += 1
                yield body
        finally:
            source.close()
