"""A simulated machine: the production `Member` on a disk whose flushes take time.

It does what `runtime.driver` does, with the world's clock, and keeps for the checkers what
is durable on its disk.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from distkv.kernel import Future
from distkv.machine.machine import Machine
from distkv.member.identity import DirectoryIdentity, VolumeWentBack, open_identity
from distkv.member.member import Member
from distkv.member.output import Outgoing, Output
from distkv.operations import Operation
from distkv.storage.base import StorageFull
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity, Lane
from distkv.wire.codec import decode

if TYPE_CHECKING:
    from distkv.simulation.full_world import World

FLUSH_TIME = (0.0005, 0.002)
"""Shortest and longest flush of a sound disk, seconds."""


def _nothing() -> None:
    """Nobody is woken."""


class Host:
    """One seat's machine. `alive`: the process runs; the disk outlives it."""

    def __init__(self, world: World, ordinal: int) -> None:
        self.world = world
        self.ordinal = ordinal
        self.engine = MemoryEngine()
        self.alive = False
        self.gone = False
        """Machine and disk were taken away."""
        self.incarnation = 0
        self.boot = 0
        self.generation = 0
        """Counts lives of the process: events of an earlier one are void."""
        self.skew = 0.0
        self.pace = 1.0
        """Seconds of this machine's steady clock in one of the world's."""
        self.flush_time = FLUSH_TIME
        self.scarce = False
        """Only the reserve is left on the disk: what is decided is written, nothing new begins."""
        self.member: Member | None = None
        self.identity: DirectoryIdentity | None = None
        self._unflushed: deque[tuple[int, Output]] = deque()
        self._unwritten: deque[Output] = deque()
        self._flush_wanted = False
        self._flushing = False
        self._turn_due = False
        self._in_turn = False
        self._timer_at = float("inf")
        self._watched: Machine | None = None

    @property
    def unwritten(self) -> bool:
        """A batch waits for space on the disk."""
        return bool(self._unwritten)

    @property
    def machine(self) -> Machine:
        """The state machine of a seated node."""
        assert self.member is not None
        assert self.member.seat is not None
        return self.member.seat.machine

    @property
    def leads(self) -> bool:
        """Elected, with its barrier applied."""
        seated = self.member is not None and self.member.seat is not None
        return seated and self.member.seat.replica.is_leader  # type: ignore[union-attr]

    @property
    def votes(self) -> bool:
        """Whether this directory holds its seat, as far as it knows."""
        seated = self.member is not None and self.member.seat is not None
        return seated and self.machine.configuration.is_voter(self.member.identity.member)  # type: ignore[union-attr]

    @property
    def seated(self) -> bool:
        """Whether a layout that lives has this directory, as far as it knows."""
        if self.member is None or self.member.seat is None:
            return False
        return self.member.identity.member in self.machine.membership.everybody

    @property
    def undecided(self) -> int:
        """Values whose outcome this coordinator never learnt."""
        seated = self.member is not None and self.member.seat is not None
        return self.member.seat.data.disperser.undecided if seated else 0  # type: ignore[union-attr]

    # -- life

    def start(self) -> None:
        """Boot on whatever the disk holds."""
        world = self.world
        assert not self.alive
        assert not self.gone
        fresh = world.rng.getrandbits(62) + 1
        # A node that finds no space when it starts ends at once, and is started again.
        self.engine.full = self.scarce = False
        try:
            identity = open_identity(self.engine, world.cluster, self.ordinal, fresh)
        except VolumeWentBack:  # it crashed between being told of it and halting
            if not world.restoring.halts(self):
                raise
            return
        self.identity = identity
        self.incarnation, self.boot = identity.incarnation, identity.boot
        self.generation += 1
        self.alive = True
        self._unflushed.clear()
        self._unwritten.clear()
        self._flush_wanted = self._flushing = self._turn_due = False
        self.member = Member(
            identity,
            self.engine,
            random.Random(world.rng.getrandbits(64)),
            world.member_options,
            self._room,
            self._report(self.generation),
        )
        self.member.on_work = self.wake
        self._timer_at = float("inf")
        self._watch()
        world.checker.started(self)
        world.network.started(self)
        self.wake()

    def _report(self, generation: int) -> Callable[[str], None]:
        def report(text: str) -> None:
            if self.generation == generation:
                self.world.note(f"node {self.ordinal}: {text}")

        return report

    def _watch(self) -> None:
        """Let the checker see every entry that is handed to the state machine."""
        assert self.member is not None
        if self.member.seat is None or self.member.seat.machine is self._watched:
            return
        machine = self._watched = self.member.seat.machine
        apply = machine.apply

        def watched(slot: int, entry: bytes) -> None:
            apply(slot, entry)
            self.world.checker.applied(self, slot, entry)

        machine.apply = watched  # type: ignore[method-assign]

    def crash(self) -> None:
        """The process dies, and un-flushed writes with it, all or the later ones of them."""
        assert self.alive
        assert self.member is not None
        self.alive = False
        self.world.budget.stopped(self)
        # Flows of the dead process end when they are collected, whenever that is: they must
        # find an (empty) disk, and wake nobody.
        self.member.on_work = _nothing
        self.member = None
        self.generation += 1
        dead = self.engine
        self.engine = dead.crash(self.world.rng)
        dead._closed = False

    @property
    def name(self) -> Identity:
        """Who it is on the network."""
        return Identity(self.world.cluster, 0, self.ordinal, self.incarnation, self.boot)

    def _room(self, ordinal: int, lane: Lane) -> int:
        return self.world.network.room(self.ordinal, ordinal, lane)

    # -- turns, as in runtime.driver

    def wake(self) -> None:
        """Run a turn soon."""
        if self.alive and not self._turn_due and not self._in_turn:
            self._turn_due = True
            self._at(self.world.wake, self._turn)

    def receive(self, sender: Identity, payload: bytes) -> None:
        """A payload of a peer arrived whole."""
        assert self.member is not None
        for message in decode(payload):
            self.member.receive(sender, message)
        self.wake()

    def _at(self, delay: float, callback: object) -> None:
        generation = self.generation

        def run() -> None:
            if self.generation == generation:
                callback()  # type: ignore[operator]

        self.world.after(delay, run)

    @property
    def clock(self) -> float:
        """This machine's steady clock, seconds."""
        return self.world.now * self.pace

    def execute(self, operation: Operation, deadline: float) -> Future[object] | None:
        """A client's operation, to be answered until the world's `deadline`; None if the disk
        blocks this node."""
        if self._unwritten or self.member is None:
            return None
        return self.member.execute(operation, deadline * self.pace)

    def _turn(self) -> None:
        self._turn_due = False
        member = self.member
        assert member is not None
        if self._unwritten and not self._write():
            self._send(member.fail_waiting(self.clock))
            return
        if member.disk_full != self.scarce:
            member.disk_full = self.scarce
        self._in_turn = True
        try:
            output = member.turn(self.clock, self.world.wall_ms(self))
        except StorageFull:
            self.world.halted(self, "no space in the middle of a turn")
            return
        except VolumeWentBack:
            if not self.world.restoring.halts(self):
                raise
            return
        finally:
            self._in_turn = False
        self._unwritten.append(output)
        if not self._write():
            return
        self._send(output.messages)
        self._flush_if_wanted()
        when = member.next_timer() / self.pace
        if when < self._timer_at or self._timer_at <= self.world.now:
            self._timer_at = when
            self._at(max(0.0, when - self.world.now) + 1e-6, self.wake)

    def _write(self) -> bool:
        member = self.member
        assert member is not None
        while self._unwritten:
            output = self._unwritten[0]
            if output.writes:
                try:
                    self.engine.write(output.writes)
                except StorageFull:
                    member.write_refused()
                    member.disk_full = True
                    self._at(0.5, self.wake)
                    return False
                self.world.checker.wrote(self, output.writes)
            self._unwritten.popleft()
            self._unflushed.append((self.engine.written, output))
            self._flush_wanted |= output.must_flush
        return True

    def _send(self, messages: list[Outgoing]) -> None:
        groups: dict[tuple[int, Lane, int], list[object]] = {}
        for ordinal, lane, stream, message in messages:
            self.world.checker.sending(self, message)
            groups.setdefault((ordinal, lane, stream), []).append(message)
        for (ordinal, lane, stream), batch in groups.items():
            self.world.network.send(self, ordinal, lane, stream, batch)
        if groups:
            self.world.network.turn_ended(self)

    def _flush_if_wanted(self) -> None:
        if not self._flush_wanted or self._flushing:
            return
        self._flush_wanted = False
        self._flushing = True
        covered = len(self._unflushed)
        mark = self._unflushed[-1][0]
        low, high = self.flush_time
        delay = self.world.rng.uniform(low, high)
        self._at(delay, lambda: self._flushed(covered, mark))

    def _flushed(self, covered: int, mark: int) -> None:
        self._flushing = False
        if self.world.rng.random() < self.world.faults.crash_at_flush:
            self.world.crash(self)
            return
        self.engine.flush_to(mark)
        self.world.checker.flushed(self)
        member = self.member
        assert member is not None
        number = 0
        released: list[Outgoing] = []
        for _ in range(covered):
            output = self._unflushed.popleft()[1]
            number = output.number
            released += output.messages_after_flush
        member.flushed(number)
        self._watch()
        self._send(released)
        self._turn()
