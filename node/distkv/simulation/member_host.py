"""A simulated machine: the production `Member` on a disk whose flushes take time.

It does what `runtime.driver` does, with the world's clock, and keeps for the checkers what
is durable on its disk.
"""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING

from distkv.data import rows as shard_rows
from distkv.ids import ValueId
from distkv.kernel import Future
from distkv.member.identity import DirectoryIdentity, open_identity
from distkv.member.member import Member
from distkv.member.output import Output
from distkv.operations import Operation
from distkv.storage.base import Put, StorageFull, Table
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity, Lane

if TYPE_CHECKING:
    from distkv.simulation.full_world import World

ROOM = 4 << 20


class Host:
    """One seat's machine. `alive`: the process runs; the disk outlives it."""

    def __init__(self, world: World, ordinal: int) -> None:
        self.world = world
        self.ordinal = ordinal
        self.engine = MemoryEngine()
        self.alive = False
        self.incarnation = 0
        self.boot = 0
        self.generation = 0
        """Counts lives of the process: events of an earlier one are void."""
        self.skew = 0.0
        self.flush_time = (0.0005, 0.002)
        self.member: Member | None = None
        self.identity: DirectoryIdentity | None = None
        self._unflushed: deque[tuple[int, Output]] = deque()
        self._unwritten: deque[Output] = deque()
        self._flush_wanted = False
        self._flushing = False
        self._turn_due = False
        self._in_turn = False
        self._timer_at = float("inf")

    # -- life

    def start(self) -> None:
        """Boot on whatever the disk holds."""
        world = self.world
        assert not self.alive
        fresh = world.rng.getrandbits(62) + 1
        was_full, self.engine.full = self.engine.full, False
        identity = open_identity(self.engine, world.cluster, self.ordinal, fresh)
        self.engine.full = was_full
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
            world.note,
        )
        self.member.on_work = self.wake
        self.wake()

    def crash(self) -> None:
        """The process dies, and un-flushed writes with it, all or the later ones of them."""
        assert self.alive
        self.alive = False
        self.member = None
        self.generation += 1
        self.engine = self.engine.crash(self.world.rng)

    @property
    def name(self) -> Identity:
        """Who it is on the network."""
        return Identity(self.world.cluster, 0, self.ordinal, self.incarnation, self.boot)

    def _room(self, ordinal: int, lane: Lane) -> int:
        return ROOM

    # -- turns, as in runtime.driver

    def wake(self) -> None:
        """Run a turn soon."""
        if self.alive and not self._turn_due and not self._in_turn:
            self._turn_due = True
            self._at(0.0, self._turn)

    def _at(self, delay: float, callback: object) -> None:
        generation = self.generation

        def run() -> None:
            if self.generation == generation:
                callback()  # type: ignore[operator]

        self.world.after(delay, run)

    def execute(self, operation: Operation, deadline: float) -> Future[object] | None:
        """A client's operation; None if the disk blocks this node."""
        if self._unwritten or self.member is None:
            return None
        return self.member.execute(operation, deadline)

    def _turn(self) -> None:
        self._turn_due = False
        member = self.member
        assert member is not None
        if self._unwritten and not self._write():
            member.fail_waiting(self.world.now)
            return
        self._in_turn = True
        output = member.turn(self.world.now, self.world.wall_ms(self))
        self._in_turn = False
        self._unwritten.append(output)
        if not self._write():
            return
        self._send(output)
        self._flush_if_wanted()
        when = member.next_timer()
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
                    member.disk_full = True
                    self._at(0.5, self.wake)
                    return False
            self._unwritten.popleft()
            self._unflushed.append((self.engine.written, output))
            self._flush_wanted |= output.must_flush
        if member.disk_full:
            member.disk_full = False
        return True

    def _send(self, output: Output) -> None:
        for ordinal, lane, stream, message in output.messages:
            self.world.network.send(self, ordinal, lane, stream, message)

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
        member = self.member
        assert member is not None
        number = 0
        released = Output(0)
        for _ in range(covered):
            output = self._unflushed.popleft()[1]
            number = output.number
            released.messages += output.messages_after_flush
        member.flushed(number)
        self._send(released)
        self._turn()

    # -- for the checkers

    def durable_shards(self) -> dict[ValueId, int]:
        """Complete shards whose rows are durable: value id -> shard number."""
        lost = {row for undo in self.engine._pending for row in ((t, k) for t, k, _ in undo)}
        found: dict[ValueId, int] = {}
        for key, raw in self.engine.scan(Table.SHARD, shard_rows.HEADERS, None, 1 << 30):
            header = shard_rows.unpack_header(raw)
            value_id = shard_rows.value_of(key)
            if not header.complete or (Table.SHARD, key) in lost:
                continue
            pieces = [shard_rows.piece_key(value_id, s) for s in range(header.stripes)]
            rows = [(Table.SHARD, piece) for piece in pieces]
            if any(row in lost or row in self.engine._rotten for row in rows):
                continue
            if all(self.engine.get(*row) is not None for row in rows):
                found[value_id] = header.shard
        return found


__all__ = ["Host", "Put"]
