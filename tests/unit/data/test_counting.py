"""Whatever happens to shards and records, in any order: what is missing is counted right."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from unit.data.dictengine import DictEngine
from unit.data.world import World

from distkv.coding.checksum import checksum
from distkv.coding.layout import shard_of
from distkv.core.configuration import Configuration
from distkv.data import rows
from distkv.data.dispersal import Dispersed
from distkv.data.judge import Verdict, judge
from distkv.data.messages import Code, ShardDropped, ShardPiece
from distkv.data.repair import RepairLimits
from distkv.data.shards import KeeperLimits
from distkv.ids import VALUE_ID_BYTES, Ballot, Member, ValueId
from distkv.machine.interface import ConfigurationChanged, Event, Superseded
from distkv.storage.base import Table

OWN = 0
STRIPE_BYTES = 30
GRACE, SETTLE = 5.0, 2.0
WRITERS = (Member(1, 1001), Member(2, 1002))
KEYS, LATEST, LAYOUTS = 4, 8, 5
picks = st.integers(0, LATEST - 1)
"""Of the latest values, the newest first."""
keys = st.integers(0, KEYS - 1).map(lambda n: b"k%d" % n)


def stripes_of(value_id: ValueId) -> int:
    return 1 + value_id.counter % 3


class Counting(RuleBasedStateMachine):
    """One node, its real data plane and engine; the log and its peers are made up."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            keeper=KeeperLimits(grace_seconds=GRACE), repair=RepairLimits(settle_seconds=SETTLE)
        )
        for ordinal in range(1, 5):
            self.world.kill(ordinal)
        self.node = self.world.nodes[OWN]
        self.slot = 0
        self.turn = 0
        self.values = [ValueId(WRITERS[0].incarnation, 1, 1)]
        self.used: set[ValueId] = set()
        self.epochs: dict[ValueId, int] = {}
        """Write epoch when the first piece of a value came: under another it is never named."""
        self.elsewhere: set[ValueId] = set()
        """Named under a layout without this node: nobody sends it pieces of these."""
        self.started()

    def started(self) -> None:
        self.plane = self.node.plane
        self.node._armed = True  # turns are this test's
        # Repair itself does nothing here, but counts what is on its way.
        self.plane.repairer.tasks = [self.world.kernel.spawn(_nothing())]

    def value(self, pick: int) -> ValueId:
        return self.values[max(-len(self.values), -1 - pick)]

    # -- what happens

    @rule(key=keys, writer=st.sampled_from(WRITERS), named=st.booleans(), ends=st.booleans())
    def value_is_written(self, key: bytes, writer: Member, named: bool, ends: bool) -> None:
        """A new one; its whole shard arrives, unless the newest layout leaves this node out."""
        self.values.append(ValueId(writer.incarnation, 1, len(self.values) + 1))
        self.whole_shard_arrives(0)
        if named:
            self.plane.apply_events(self.put(key, self.values[-1]))
        if ends:
            self.turn_ends(True)

    @rule(writer=st.sampled_from(WRITERS))
    def value_begins(self, writer: Member) -> None:
        self.values.append(ValueId(writer.incarnation, 1, len(self.values) + 1))

    def piece(self, value_id: ValueId, stripe: int, slot: int) -> ShardPiece:
        count = stripes_of(value_id)
        code = Code(3, 5, STRIPE_BYTES)
        body = bytes([value_id.counter % 256, stripe] * 5)
        last = count if stripe == count - 1 else 0
        shard = shard_of(OWN, value_id, 5)
        stamp = Ballot(0, 0, 0) if slot else Ballot(1, 0, 1000)
        key = b"key" if slot else b""
        crc = checksum(body)
        return ShardPiece(
            value_id, shard, stripe, last, code, 1, stamp, slot, key, STRIPE_BYTES, crc, body
        )

    @rule(pick=picks, stripe=st.integers(0, 2))
    def piece_arrives(self, pick: int, stripe: int) -> None:
        value_id = self.value(pick)
        newest = self.node.state.configuration
        if self.node.member not in newest.members or value_id in self.elsewhere:
            return
        self.epochs.setdefault(value_id, newest.epoch)
        sender = next(m for m in WRITERS if m.incarnation == value_id.incarnation)
        self.plane.receive(sender, self.piece(value_id, stripe % stripes_of(value_id), 0))

    @rule(pick=picks)
    def whole_shard_arrives(self, pick: int) -> None:
        for stripe in range(stripes_of(self.value(pick))):
            self.piece_arrives(pick, stripe)

    @rule(pick=picks, stripe=st.integers(0, 2), early=st.booleans())
    def piece_is_rebuilt(self, pick: int, stripe: int, early: bool) -> None:
        value_id = self.value(pick)
        count = stripes_of(value_id)
        slot = self.slot + early
        newest = self.node.state.configuration
        if value_id in self.elsewhere:
            return
        if early and self.node.member in newest.members:
            self.epochs.setdefault(value_id, newest.epoch)
        elif not self._due(value_id):
            return
        if slot:
            piece = self.piece(value_id, stripe % count, slot)
            self.plane.keeper.receive(self.node.member, piece, stripes=count)

    def put(self, key: bytes, value_id: ValueId | None) -> list[Event]:
        state = self.node.state
        self.slot += 1
        state.applied = self.slot
        if value_id is None:
            return state.put(key, None)
        possible = judge(state, value_id, Ballot(1, 0, 1000), 1) is Verdict.POSSIBLE
        epoch = state.configuration.epoch
        if value_id in self.used or not possible or self.epochs.get(value_id, epoch) != epoch:
            return []
        self.used.add(value_id)
        if self.node.member not in state.configuration.members:
            self.elsewhere.add(value_id)
        length = stripes_of(value_id) * STRIPE_BYTES
        code = Code(3, 5, STRIPE_BYTES)
        value = Dispersed(value_id, code, length, 0, Ballot(1, 0, 1000), epoch, ())
        return state.put(key, self.world.record_of(value, self.slot))

    def put_picked(self, key: bytes, pick: int | None) -> list[Event]:
        return self.put(key, None if pick is None else self.value(pick))

    @rule(entries=st.lists(st.tuples(keys, st.none() | picks), min_size=1, max_size=3))
    def entries_are_applied(self, entries: list[tuple[bytes, int | None]]) -> None:
        """In one turn: the events are handed over when the state is behind all of them."""
        events = [event for key, pick in entries for event in self.put_picked(key, pick)]
        self.plane.apply_events(events)

    @rule(entries=st.lists(st.tuples(keys, st.none() | picks), max_size=4))
    def snapshot_is_installed(self, entries: list[tuple[bytes, int | None]]) -> None:
        for key, pick in entries:
            self.put_picked(key, pick)
        self.plane.load()

    @rule()
    def everything_is_flushed_away(self) -> None:
        gone = list(self.node.state.names)
        for key in list(self.node.state.records):
            self.put(key, None)
        self.plane.apply_events([Superseded(value_id) for value_id in gone])

    @rule(writer=st.sampled_from(WRITERS), back=picks)
    def values_are_settled(self, writer: Member, back: int) -> None:
        before = self.node.state.settled_of(writer.incarnation, 1)
        self.world.settle(writer.incarnation, 1, max(before, len(self.values) - back))

    @rule(pick=picks)
    def coordinator_gives_up(self, pick: int) -> None:
        value_id = self.value(pick)
        if value_id in self.used:
            return
        self.used.add(value_id)
        sender = next(m for m in WRITERS if m.incarnation == value_id.incarnation)
        self.plane.receive(sender, ShardDropped((value_id,)))

    @precondition(lambda self: len(self.node.state.layouts) < LAYOUTS)
    @rule(left_out=st.sampled_from([False, False, True]))
    def layout_changes(self, left_out: bool) -> None:
        """To one that leaves out this node, or has it."""
        state = self.node.state
        now = state.configuration
        left_out &= self.node.member in now.members and len(state.layouts) + 1 < LAYOUTS
        own = Member(OWN, 5555) if left_out else self.node.member
        new = Configuration(now.epoch + 1, 3, 2, (own, *now.members[1:]))
        state.layouts[new.epoch] = new
        self.plane.apply_events([ConfigurationChanged(self.slot, new, ())])

    @rule()
    def empty_layouts_are_retired(self) -> None:
        state = self.node.state
        for epoch in list(state.layouts)[:-1]:
            if not any(record.epoch == epoch for record in state.records.values()):
                del state.layouts[epoch]

    # -- the disk

    @rule(pick=st.integers(0, 999), how=st.sampled_from(["scrub", "read", "find"]))
    def row_rots(self, pick: int, how: str) -> None:
        """And is found by whoever reads it."""
        engine = self.node.engine
        found = engine.keys(Table.SHARD)
        if not found:
            return
        key = found[pick % len(found)]
        header = key[:1] == rows.HEADERS
        value_id = rows.value_of(key) if header else ValueId.unpack(key[:VALUE_ID_BYTES])
        engine.rotten[Table.SHARD, key] = None
        if how == "scrub":
            self.plane._on_rot(Table.SHARD, key, True)
        elif how == "read":
            self.plane.keeper.read(value_id, 0 if header else rows.stripe_of(key))
        else:
            self.plane.keeper.holds(value_id)

    @rule(flushed=st.booleans())
    def turn_ends(self, flushed: bool) -> None:
        self.turn += 1
        writes, _ = self.plane.drain(self.turn)
        self.node.engine.write(writes)
        if flushed:
            self.node.engine.flush()
            self.plane.flushed(self.turn)

    @rule(power=st.booleans())
    def restarts(self, power: bool) -> None:
        """kill -9, or a power loss, too: what was not flushed is gone."""
        self.plane.stop()
        if power:
            self.node.engine.crash()
        self.turn = 0
        self.node.start()
        self.started()

    @rule(seconds=st.sampled_from([0.001, 0.5, SETTLE, GRACE]))
    def time_passes(self, seconds: float) -> None:
        self.world.kernel.run(self.world.kernel.now + seconds)

    # -- what must hold

    @invariant()
    def missing_is_what_the_rows_say(self) -> None:
        repairer, state = self.plane.repairer, self.node.state
        told = repairer.missing
        table = self._table()
        complete = [v for v in state.names if self._complete(table, v)]
        assert self.plane.keeper.standing() == len(complete)
        due = [v for v in state.names if self._due(v)]
        settling = repairer._settling
        assert all(v in state.names for v in settling)
        if self.node.member not in state.members:
            assert told is None
            return
        lacking = [v for v in due if v not in complete and v not in settling]
        assert told == len(lacking), (told, lacking, complete, due, settling)

    def _due(self, value_id: ValueId) -> bool:
        state = self.node.state
        record = state.records.get(state.names.get(value_id, b""))
        return record is not None and self.node.member in state.layouts[record.epoch].members

    def _table(self) -> dict[bytes, bytes]:
        """As it will be when this turn's rows are written."""
        engine = self.node.engine
        tables = {Table.SHARD: dict(engine.tables[Table.SHARD])}
        for operation in self.plane.keeper.shelf.writes:
            DictEngine._apply(tables, operation)
        return tables[Table.SHARD]

    def _complete(self, table: dict[bytes, bytes], value_id: ValueId) -> bool:
        header = table.get(rows.header_key(value_id))
        keys = [rows.piece_key(value_id, stripe) for stripe in range(stripes_of(value_id))]
        whole = all(key in table for key in keys)
        assert (header is not None and rows.unpack_header(header).complete) <= whole
        return header is not None and whole


async def _nothing() -> None:
    return


Counting.TestCase.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestCounting = Counting.TestCase


def test_a_header_found_rotten_while_counting_is_counted() -> None:
    node = Counting()
    node.value_is_written(key=b"k0", writer=WRITERS[0], named=True, ends=False)
    node.restarts(power=False)
    node.value_is_written(key=b"k1", writer=WRITERS[0], named=True, ends=True)
    node.row_rots(pick=1, how="read")
    node.missing_is_what_the_rows_say()
