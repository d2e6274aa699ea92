"""One simulated process: the production replica, a disk, and the loop around them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from distkv.core.entries import HEADER_BYTES, is_configuration
from distkv.core.messages import Accepted, Message, Promise
from distkv.core.ready import Ready
from distkv.core.replica import Replica
from distkv.ids import Ballot, Member
from distkv.simulation.core_machine import ChainMachine, ChainState, unpack_configuration
from distkv.storage.base import Put, Table
from distkv.storage.memory import MemoryEngine

if TYPE_CHECKING:
    from distkv.simulation.core_base import Base

_BALLOT_BYTES = 20
_LEARNED = bytes(_BALLOT_BYTES)
_Vote = tuple[int, int, bytes, bytes]


class Process:
    """`up`: running. `reads`: token -> (slot that the answer must reach, latest time)."""

    def __init__(self, world: Base, member: Member) -> None:
        self.world = world
        self.member = member
        self.engine = MemoryEngine()
        self.up = False
        self.life = 0
        self.paused_until = 0.0
        self.wall_offset = 0
        self.pace = world.rng.uniform(0.9, 1.1) if world.faults.clock else 1.0
        """Of its steady clock: how long its ticks are."""
        self.reads: dict[int, tuple[int, float]] = {}
        self.zombie = False
        self.restored = False
        """Its volume went back to a snapshot: nothing that it says may count."""
        self._votes: list[_Vote] = []
        self.boot()

    def boot(self) -> None:
        """Start on whatever the disk holds."""
        world = self.world
        self.machine = ChainMachine(world.genesis, self.engine, self._applied)
        rng = random.Random(world.rng.getrandbits(64))
        self.replica = Replica(self.member, self.machine, self.engine, world.options, rng)
        self._unflushed: list[tuple[int, int, list[tuple[int, Message]]]] = []
        self._wanted = False
        self._flushing = False
        self._snapshot_asked = False
        self.up = True
        self.life += 1
        self.reads = {}
        self._greet()
        if not self.restored:
            world.checker.restarted(self.member, self.replica.ballot, self.replica._log)
        world.at(world.rng.random() * world.options.tick, self._tick, self.life)
        self.turn()

    def _greet(self) -> None:
        """Nobody gets a message of this start before its greeting, or counts it."""
        for other in self.world.processes:
            if other is not self and other.up:
                self.greeted_by(other)
                other.greeted_by(self)

    def greeted_by(self, other: Process) -> None:
        """With this each connection begins."""
        self.replica.records.greets(other.member, other.life, other.replica.flushes)

    def crash(self) -> None:
        """Power loss: any suffix of the batches that are not flushed is gone."""
        self.up = False
        self.engine = self.engine.crash(self.world.rng)
        survived = self.engine.written
        self._votes = [v for v in self._votes if v[0] <= survived]

    def _applied(self, slot: int, entry: bytes) -> None:
        self.world.checker.applied(self.member, slot, entry)
        self.world.trace(slot)
        if is_configuration(entry) and self._is_seated_by(entry):
            self.world.seated(self)

    def _is_seated_by(self, entry: bytes) -> bool:
        new = unpack_configuration(entry[HEADER_BYTES:])
        now = self.machine.configuration
        return new.is_voter(self.member) and not now.is_voter(self.member)

    # -- the loop

    def _tick(self, life: int) -> None:
        if not self.up or life != self.life:
            return
        world = self.world
        tick = world.options.tick * self.pace
        world.at(max(tick, self.paused_until - world.now), self._tick, life)
        if world.now < self.paused_until:
            return
        self.replica.tick(int(world.now) + self.wall_offset)
        if self.reads:
            self._check_reads()
        self.turn()

    def _check_reads(self) -> None:
        late = next(iter(self.reads.values()))[1]
        if self.world.now > late:
            raise AssertionError(f"a read of {self.member} was never answered")

    def receive(self, sender: Member, message: Message) -> None:
        """A message arrives."""
        self.replica.step(sender, message)
        self.turn()

    def turn(self) -> None:
        """Drain the replica."""
        replica = self.replica
        while (ready := replica.ready()) is not None:
            self._take(ready)
        if replica.needs_snapshot is not None and not self._snapshot_asked:
            self._snapshot_asked = True
            self.world.fetch_snapshot(self, replica.needs_snapshot)
        if self._wanted and not self._flushing:
            self._wanted, self._flushing = False, True
            self.world.at(self.world.flush_time(), self._flushed, self.life, self.engine.written)

    def _take(self, ready: Ready) -> None:
        batch = ready.writes + self.machine.drain_writes()
        if batch:
            self.engine.write(batch)
            self._note_votes(ready)
        for ordinal, message in ready.messages + ready.beats:
            self._sending(message)
            self.world.send(self, ordinal, message)
        self._unflushed.append((ready.number, self.engine.written, ready.messages_after_flush))
        self._wanted |= ready.must_flush
        for token, slot in ready.reads:
            floor, _ = self.reads.pop(token)
            if slot >= 0:
                self.world.reads_served += 1
                if slot < floor:
                    raise AssertionError(f"stale read: index {slot}, but {floor} was acknowledged")

    def _note_votes(self, ready: Ready) -> None:
        mark = self.engine.written
        for operation in ready.writes:
            if isinstance(operation, Put) and operation.table is Table.LOG:
                ballot = operation.value[:_BALLOT_BYTES]
                if ballot != _LEARNED:
                    slot = int.from_bytes(operation.key, "big")
                    self._votes.append((mark, slot, ballot, operation.value[_BALLOT_BYTES:]))

    def _sending(self, message: Message) -> None:
        if self.restored:
            return
        if type(message) is Promise:
            self.world.checker.promised(self.member, message.ballot)
        elif type(message) is Accepted:
            self.world.checker.acknowledged(self.member, message.ballot, message.upto)

    def _flushed(self, life: int, mark: int) -> None:
        if not self.up or life != self.life:
            return
        world = self.world
        chance = world.faults.crash_at_flush
        if chance and world.faulty and world.rng.random() < chance:
            if world.rng.random() < 0.5:
                self.engine.flush_to(mark)
            world.crash(self)
            return
        self.engine.flush_to(mark)
        self._flushing = False
        checker = world.checker
        left: list[_Vote] = []
        for vote in self._votes:
            if vote[0] > mark:
                left.append(vote)
            elif not self.restored:
                checker.accepted(self.member, *vote[1:])
        self._votes = left
        number = 0
        while self._unflushed and self._unflushed[0][1] <= mark:
            number, _, messages = self._unflushed.pop(0)
            for ordinal, message in messages:
                self._sending(message)
                world.send(self, ordinal, message)
        if number:
            self.replica.persisted(number)
        self.turn()

    # -- clients and snapshots

    def read(self, token: int) -> None:
        """A client starts a linearizable read here."""
        latest = self.world.now + 3.0 * self.world.options.read_timeout
        latest = max(latest, self.paused_until + 3.0 * self.world.options.read_timeout)
        self.reads[token] = (self.world.checker.top, latest)
        self.replica.read(token)
        self.turn()

    def propose(self, command: bytes, origin: int | None) -> bool:
        """A client's command reaches this process."""
        taken = self.replica.propose([command])
        if taken and origin is not None:
            self.replica.hurry(origin)
        self.turn()
        return taken

    def snapshot_arrives(self, life: int, state: ChainState | None) -> None:
        """The state streamed from a peer is here."""
        if not self.up or life != self.life:
            return
        self._snapshot_asked = False
        if state is not None and state.applied > self.machine.applied:
            self.world.checker.installed(self.member, state)
            self.machine.restore(state)
            self.replica.install(state.applied)
        self.turn()

    @property
    def promised(self) -> Ballot:
        """For traces."""
        return self.replica.ballot
