"""Several data planes in one process: a network with delays, engines that lose what was not
flushed, and a log that every node applies at its own pace. One kernel, virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from unit.data.dictengine import DictEngine

from distkv.coding.layout import shard_of, stripe_count
from distkv.core.configuration import Configuration
from distkv.data.disperser import DisperserLimits
from distkv.data.messages import DataMessage
from distkv.data.plane import DataPlane, Limits
from distkv.data.ports import Addressed, Dispersed
from distkv.data.repair import RepairLimits
from distkv.data.restripe import RestripeLimits
from distkv.data.scrub import ScrubLimits
from distkv.data.shards import KeeperLimits
from distkv.ids import Ballot, Member, ValueId
from distkv.kernel import Future, Kernel
from distkv.machine.interface import (
    BarrierRaised,
    Booted,
    ConfigurationChanged,
    Event,
    Named,
    Record,
    Settled,
    Superseded,
)
from distkv.storage.base import Delete, Put, Table


class State:
    """The replicated state of one node, as far as shards depend on it."""

    def __init__(self, configuration: Configuration, engine: DictEngine) -> None:
        self.applied = 0
        self.barrier = Ballot(1, 0, configuration.members[0].incarnation)
        self.layouts = {configuration.epoch: configuration}
        self.boots: dict[int, int] = {}
        self.settled: dict[tuple[int, int], int] = {}
        self.names: dict[ValueId, bytes] = {}
        self.records: dict[bytes, Record] = {}
        self._engine = engine

    @property
    def members(self) -> tuple[Member, ...]:
        known = {m: None for layout in self.layouts.values() for m in layout.members}
        return tuple(sorted(known))

    def layout(self, epoch: int) -> Configuration | None:
        return self.layouts.get(epoch)

    def due(self, member: Member) -> tuple[int, int]:
        layouts = [(r, self.layouts.get(r.epoch)) for r in self.records.values()]
        owed = [r for r, layout in layouts if layout is not None and member in layout.members]
        return len(owed), sum(r.length // r.data_shards for r in owed)

    @property
    def configuration(self) -> Configuration:
        return self.layouts[max(self.layouts)]

    @configuration.setter
    def configuration(self, configuration: Configuration) -> None:
        self.layouts[configuration.epoch] = configuration

    def boot_of(self, incarnation: int) -> int:
        return self.boots.get(incarnation, 0)

    def settled_of(self, incarnation: int, boot: int) -> int:
        return self.settled.get((incarnation, boot), 0)

    def key_of(self, value_id: ValueId) -> bytes | None:
        return self.names.get(value_id)

    def record(self, key: bytes) -> Record | None:
        return self.records.get(key)

    def values(self, start: bytes, limit: int) -> list[bytes]:
        return [raw for raw in sorted(v.pack() for v in self.names) if raw >= start][:limit]

    def put(self, key: bytes, record: Record | None) -> list[Event]:
        """Apply a put (or a delete): the record takes the place of the old one."""
        events: list[Event] = []
        old = self.records.pop(key, None)
        if old is not None and old.value_id is not None:
            del self.names[old.value_id]
            self._engine.settle(Delete(Table.NAME, old.value_id.pack()))
            events.append(Superseded(old.value_id, old))
        if record is not None and record.value_id is not None:
            self.records[key] = record
            self.names[record.value_id] = key
            self._engine.settle(Put(Table.NAME, record.value_id.pack(), key))
            events.insert(0, Named(key, record.value_id, record.slot, record))
        return events


class Node:
    """A member: plane, engine, state; its turns and flushes."""

    def __init__(self, world: World, member: Member) -> None:
        self.world = world
        self.member = member
        self.boot = 0
        self.alive = False
        self.engine = DictEngine()
        self.rotten_rows: list[tuple[Table, bytes]] = []
        self.state = State(world.configuration, self.engine)
        self.flush_seconds: Callable[[], float] = lambda: 0.001
        self.start()

    def stamp(self) -> Ballot:
        return max(self.world.leader, self.state.barrier)

    def fatal(self, error: BaseException) -> None:
        raise error

    def rotten(self, table: Table, key: bytes) -> None:
        self.rotten_rows.append((table, key))

    def wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.world.kernel.now * 1000)

    def current(self, deadline: float) -> Future[None]:
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def restripe(self, key: bytes, old: ValueId, value: Dispersed, deadline: float) -> Future[bool]:
        return self.world.restripe(key, old, value)

    def start(self) -> None:
        self.alive = True
        self.boot += 1
        self._turn = 0
        self._armed = False
        self.full: dict[int, None] = {}
        self.plane = DataPlane(
            self.world.kernel,
            self.engine,
            self.state,
            self,
            self,
            self.world.limits,
        )
        self.plane.load()

    # -- Outbox

    def send(self, ordinal: int, message: DataMessage, stream: int) -> bool:
        assert ordinal != self.member.ordinal
        if ordinal not in self.plane.peers:
            return False
        return self.world.transmit(self, ordinal, message, stream)

    def line(self, ordinal: int) -> tuple[int, int]:
        link = (self.member.ordinal, ordinal)
        return self.world.taken.get(link, 0), self.world.queued.get(link, 0)

    # -- turns

    def deliver(self, sender: Member, message: DataMessage) -> None:
        self.plane.receive(sender, message)
        self.wake()

    def wake(self) -> None:
        if not self._armed and self.alive:
            self._armed = True
            self.world.kernel.call_at(self.world.kernel.now, self.turn)

    def turn(self) -> None:
        self._armed = False
        if not self.alive:
            return
        self._turn += 1
        turn, plane = self._turn, self.plane
        writes, after = plane.drain(turn)
        self.engine.write(writes)
        kernel = self.world.kernel
        if after or plane.own_waiting or writes:
            kernel.call_at(
                kernel.now + self.flush_seconds(), lambda: self._flushed(plane, turn, after)
            )

    def _flushed(self, plane: DataPlane, turn: int, after: Sequence[Addressed]) -> None:
        if not self.alive or plane is not self.plane:
            return
        self.engine.flush()
        for ordinal, stream, message in after:
            if ordinal in plane.peers:
                self.world.transmit(self, ordinal, message, stream, force=True)
        plane.flushed(turn)
        self.wake()

    def held(self) -> list[bytes]:
        return self.engine.keys(Table.SHARD)


class World:
    """See the module."""

    def __init__(
        self,
        k: int = 3,
        m: int = 2,
        seed: int = 1,
        keeper: KeeperLimits | None = None,
        disperser: DisperserLimits | None = None,
        repair: RepairLimits | None = None,
        memory: int = 64 << 20,
        scrub: ScrubLimits | None = None,
    ) -> None:
        self.kernel = Kernel()
        self.random = random.Random(seed)
        self.limits = Limits(
            keeper or KeeperLimits(),
            disperser or DisperserLimits(inline_max=64, stripe_bytes=3000),
            repair or RepairLimits(),
            RestripeLimits(settle_seconds=1.0),
            scrub or ScrubLimits(),
            memory,
        )
        members = tuple(Member(i, 1000 + i) for i in range(k + m))
        self.configuration = Configuration(1, k, m, members)
        self.leader = Ballot(1, 0, 1000)
        self.slot = 0
        self.delay: Callable[[int, int, DataMessage], float] = lambda a, b, message: 0.001
        self.lost: Callable[[int, int, DataMessage], bool] = lambda a, b, message: False
        self.capacity = 1 << 30
        self.sent_bytes = 0
        self.refuse_restripes = False
        self.traffic: list[tuple[int, int, DataMessage]] = []
        self._order: dict[tuple[int, int, int], float] = {}
        self.queued: dict[tuple[int, int], int] = {}
        self.taken: dict[tuple[int, int], int] = {}
        self.nodes = [Node(self, member) for member in members]
        for node in self.nodes:
            for other in self.nodes:
                if other is not node:
                    node.plane.peer_up(other.member)

    # -- network

    def transmit(
        self, source: Node, ordinal: int, message: DataMessage, stream: int, force: bool = False
    ) -> bool:
        link = (source.member.ordinal, ordinal)
        size = len(getattr(message, "piece", b"")) + 64
        queued = self.queued.get(link, 0)
        if queued and queued + size > self.capacity and not force:
            source.full[ordinal] = None
            return False
        self.sent_bytes += len(getattr(message, "piece", b""))
        self.traffic.append((*link, message))
        self.queued[link] = queued + size
        self.taken[link] = self.taken.get(link, 0) + size
        target = self.nodes[ordinal]
        when = self.kernel.now + self.delay(*link, message)
        when = max(when, self._order.get((*link, stream), 0.0))
        self._order[(*link, stream)] = when
        planes = source.plane, target.plane

        def arrive() -> None:
            self.queued[link] -= size
            if ordinal in source.full and self.queued[link] * 2 <= self.capacity:
                del source.full[ordinal]
                if source.alive:
                    source.plane.drained(ordinal)
                    source.wake()
            connected = planes == (source.plane, target.plane)
            connected &= source.member.ordinal in target.plane.peers
            if target.alive and connected and not self.lost(*link, message):
                target.deliver(source.member, message)

        self.kernel.call_at(when, arrive)
        return True

    # -- faults

    def cut(self, a: int, b: int) -> None:
        self.nodes[a].plane.peer_down(b)
        self.nodes[b].plane.peer_down(a)

    def join(self, a: int, b: int) -> None:
        self.nodes[a].plane.peer_up(self.nodes[b].member)
        self.nodes[b].plane.peer_up(self.nodes[a].member)

    def kill(self, ordinal: int) -> None:
        node = self.nodes[ordinal]
        node.alive = False
        node.plane.stop()
        for other in range(len(self.nodes)):
            if other != ordinal:
                self.cut(ordinal, other)
        node.engine.crash()

    def restart(self, ordinal: int) -> None:
        node = self.nodes[ordinal]
        node.start()
        for other in self.nodes:
            if other is not node and other.alive:
                self.join(ordinal, other.member.ordinal)

    # -- the log

    def apply(self, change: Callable[[State], list[Event]], only: list[int] | None = None) -> None:
        """One entry, on the nodes given (default: those alive)."""
        for node in self.nodes:
            if node.alive and (only is None or node.member.ordinal in only):
                node.state.applied = self.slot
                node.plane.apply_events(change(node.state))
                node.wake()

    def restripe(self, key: bytes, old: ValueId, value: Dispersed) -> Future[bool]:
        """The log's compare-and-set of the value id: an entry that everybody applies."""
        self.slot += 1
        placed: Future[bool] = Future()
        known = [n.state.records.get(key) for n in self.nodes if n.alive]
        same = known[0] is not None and known[0].value_id == old
        placed.set_result(same and not self.refuse_restripes)
        if same and not self.refuse_restripes:
            assert known[0] is not None
            record = self.record_of(value, self.slot)._replace(version=known[0].version)
            self.apply(lambda state: state.put(key, record))
        return placed

    def put(self, key: bytes, value: Dispersed | None, only: list[int] | None = None) -> None:
        self.slot += 1
        record = None if value is None else self.record_of(value, self.slot)
        self.apply(lambda state: state.put(key, record), only)

    @staticmethod
    def record_of(value: Dispersed, slot: int) -> Record:
        return Record(
            slot,
            None,
            value.length,
            value.checksum,
            None,
            value.value_id,
            value.code.data_shards,
            value.code.size,
            value.code.stripe_bytes,
            value.epoch,
            slot,
            value.holders,
        )

    def barrier(self, ballot: Ballot, only: list[int] | None = None) -> None:
        self.slot += 1
        self.leader = max(self.leader, ballot)

        def change(state: State) -> list[Event]:
            state.barrier = ballot
            return [BarrierRaised(ballot)]

        self.apply(change, only)

    def boot(self, incarnation: int, boot: int) -> None:
        self.slot += 1

        def change(state: State) -> list[Event]:
            state.boots[incarnation] = boot
            return [Booted(incarnation, boot)]

        self.apply(change)

    def settle(self, incarnation: int, boot: int, counter: int) -> None:
        self.slot += 1

        def change(state: State) -> list[Event]:
            state.settled[incarnation, boot] = counter
            return [Settled(incarnation, boot, counter)]

        self.apply(change)

    def replace(self, new: Member) -> None:
        self.slot += 1
        old = self.configuration.members[new.ordinal]
        members = tuple(new if m.ordinal == new.ordinal else m for m in self.configuration.members)
        self.configuration = self.configuration._replace(members=members)

        def change(state: State) -> list[Event]:
            state.configuration = self.configuration
            return [ConfigurationChanged(self.slot, self.configuration, (old,))]

        self.apply(change)

    # -- time

    def step(self, seconds: float) -> None:
        """Let time pass, waking every node's turn as its adapter would."""
        end = self.kernel.now + seconds
        while True:
            for node in self.nodes:
                keeper = node.plane.keeper
                if keeper.shelf.writes or keeper._replies or keeper._stored:
                    node.wake()
            when = self.kernel.next_timer()
            if when is None or when > end:
                self.kernel.run(end)
                return
            self.kernel.run(when)

    def until(
        self, condition: Callable[[], bool], seconds: float = 60.0, grain: float = 0.0005
    ) -> None:
        """Let time pass until `condition`; fails after `seconds` of virtual time."""
        end = self.kernel.now + seconds
        while not condition():
            assert self.kernel.now < end, "the condition was not met in time"
            self.step(grain)

    def wait(self, future: Future[Any], seconds: float = 60.0) -> Any:
        self.until(lambda: future.done, seconds)
        return future.result()

    def run(self, coroutine: Coroutine[Any, Any, Any], seconds: float = 60.0) -> Any:
        return self.wait(self.kernel.spawn(coroutine), seconds)

    # -- whole operations

    def write(self, key: bytes, value: bytes, at: int = 0, seconds: float = 10.0) -> Dispersed:
        """Disperse on node `at` and apply the put everywhere."""
        dispersal = self.nodes[at].plane.disperser.disperse(value)
        self.nodes[at].wake()
        result = self.wait(dispersal.outcome(self.kernel.now + seconds))
        assert isinstance(result, Dispersed)
        self.put(key, result)
        dispersal.close()
        return result

    def read(self, key: bytes, at: int = 0, seconds: float = 10.0) -> bytes:
        record = self.nodes[at].state.record(key)
        assert record is not None
        reading = self.nodes[at].plane.reader.read(record, self.kernel.now + seconds)
        result = self.run(reading)
        assert isinstance(result, bytes)
        return result

    def complete(self, ordinal: int, value: Dispersed) -> bool:
        """Whether a node holds every stripe of its shard."""
        shard = shard_of(ordinal, value.value_id, value.code.size)
        count = stripe_count(value.length, value.code.stripe_bytes)
        return not self.nodes[ordinal].plane.keeper.missing(value.value_id, shard, count)


def sample(length: int, salt: int = 0) -> bytes:
    """Bytes that differ everywhere."""
    return random.Random(length * 1000 + salt).randbytes(length)
