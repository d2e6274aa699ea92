"""The data plane of one member: keeper, disperser, reader and repairer behind one door.

The member calls, in this order in each turn: `receive` for every message that arrived,
`apply_events` after it applied entries, `Kernel.run`, then `drain`; its batch written and
flushed, `flushed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from distkv.data.disperser import Disperser, DisperserLimits
from distkv.data.finding import Finder
from distkv.data.losses import Losses
from distkv.data.memory import MemoryBudget
from distkv.data.messages import (
    DataMessage,
    ShardDropped,
    ShardGiven,
    ShardPiece,
    ShardRefused,
    ShardStored,
    ShardWanted,
)
from distkv.data.pace import Pace
from distkv.data.ports import Addressed, Applied, Coordinator, Outbox
from distkv.data.reader import Reader
from distkv.data.repair import Repairer, RepairLimits
from distkv.data.restripe import RestripeLimits, Restriper
from distkv.data.scrub import Scrubber, ScrubLimits
from distkv.data.sending import PolledOutbox, Sender, answers
from distkv.data.shards import KeeperLimits, ShardKeeper
from distkv.ids import Member
from distkv.kernel import Cancelled, Future, Kernel
from distkv.machine.interface import ConfigurationChanged, Event, Named, Superseded
from distkv.storage.base import CorruptRow, Engine, Put, StorageFull, StorageOperation, Table

DOUBTS_MAX = 1000


class Limits(NamedTuple):
    """All bounds of the data plane."""

    keeper: KeeperLimits
    disperser: DisperserLimits
    repair: RepairLimits
    restripe: RestripeLimits
    scrub: ScrubLimits
    memory_in_flight: int = 512 << 20
    """Bytes of values being written or read, over all requests."""


def default_limits() -> Limits:
    """What a node uses when nothing is configured."""
    return Limits(
        KeeperLimits(), DisperserLimits(), RepairLimits(), RestripeLimits(), ScrubLimits()
    )


class Drained(NamedTuple):
    """`after_flush` may leave (as `Outbox.send` would) once the turn's batch is durable."""

    writes: Sequence[StorageOperation]
    after_flush: Sequence[Addressed]


NOTHING = Drained((), ())
"""As most turns of values that are whole in the log."""


class DataPlane:
    """See the module. Construct, `load` (after the machine), then feed it."""

    def __init__(
        self,
        kernel: Kernel,
        engine: Engine,
        applied: Applied,
        coordinator: Coordinator,
        outbox: Outbox,
        limits: Limits,
    ) -> None:
        own = coordinator.member
        self.own = own
        self.peers: dict[int, int] = {}
        outbox = PolledOutbox(kernel, outbox, self.peers, self.drained)
        self.budget = MemoryBudget(limits.memory_in_flight)
        self.keeper = ShardKeeper(kernel, engine, applied, own, limits.keeper)
        self.sender = Sender(outbox, own.ordinal, self._receive_own)
        self.disperser = Disperser(
            kernel,
            coordinator,
            applied,
            outbox,
            self.sender,
            self.keeper,
            self.peers,
            self.budget,
            limits.disperser,
        )
        self.reader = Reader(
            kernel, applied, own, self.sender, self.keeper, self.peers, self.budget
        )
        self.losses = Losses(engine, applied, coordinator.wall_ms)
        self.finder = Finder(kernel, applied, coordinator, self.reader, self.losses)
        self.pace = Pace(kernel, limits.repair.bytes_per_second)
        self.repairer = Repairer(
            kernel, applied, own, self.keeper, self.reader, self.pace, limits.repair
        )
        self.reader.on_lost = self.losses.note
        self.reader.on_whole = self.losses.off
        self.repairer.on_lost = self.finder.suspect
        self.restriper = Restriper(
            kernel,
            applied,
            coordinator,
            self.disperser,
            self.reader,
            self.pace,
            self.peers,
            self.losses,
            limits.restripe,
        )
        self.keeper.shelf.on_rotten = self.repairer.want
        self.reader.on_short = self.repairer.want
        self.doubts: list[tuple[Member, str, str]] = []
        """(who, kind of member.suspicions, detail); emptied by the member."""
        self.keeper.on_doubt = self.reader.on_doubt = self._doubt
        self.scrubber = Scrubber(
            kernel,
            engine,
            coordinator,
            self.pace,
            self._on_rot,
            self._on_lost_framing,
            limits.scrub,
        )
        self._engine = engine
        self._coordinator = coordinator
        self._own_stored: deque[tuple[int, ShardStored]] = deque()

    def _doubt(self, member: Member, kind: str, detail: str) -> None:
        if len(self.doubts) < DOUBTS_MAX:
            self.doubts.append((member, kind, detail))

    def load(self) -> None:
        """Rebuild the tables of the keeper; the applied state must be loaded before."""
        self.keeper.load()
        self.repairer.reloaded()
        self.losses.load()
        self.restriper.layout_changed()

    def rows_mended(self) -> None:
        """Records or names that could not be read can be now: whoever looked passed them over."""
        self.restriper.layout_changed()
        if self.repairer.missing != 0:
            self.repairer.hurry()

    def start(self) -> None:
        """Begin what runs in the background: the node serves from here on."""
        self.repairer.start()
        self.restriper.start()
        for task in (*self.repairer.tasks, *self.restriper.tasks):
            task.add_callback(self._ended)
        self.start_scrub()

    def start_scrub(self) -> None:
        """Begin to read the own disk again, whether or not this node is a member. Idempotent."""
        if not self.scrubber.tasks:
            self.scrubber.start()
            self.scrubber.tasks[0].add_callback(self._ended)

    def _ended(self, task: Future[None]) -> None:
        if task.error is not None and not isinstance(task.error, Cancelled):
            self._coordinator.fatal(task.error)

    def stop(self) -> None:
        """End it; nothing needs to be saved."""
        self.repairer.stop()
        self.restriper.stop()
        self.scrubber.stop()

    def _on_rot(self, table: Table, key: bytes, unreadable: bool) -> None:
        """Scrubbing found a rotten row. What this process remembers of it is written again;
        else a shard is left to repair, and all other rows are the member's."""
        try:
            row = self._engine.get(table, key)
            if row is not None and unreadable:
                self._engine.write([Put(table, key, row)])
                self._engine.reread(table, key)
                if table is Table.SHARD:
                    self.keeper.counters.corrupt += 1
                return
        except (CorruptRow, StorageFull):
            pass
        if table is Table.SHARD:
            self.keeper.shelf.rotten(key)
        else:
            self._coordinator.rotten(table, key)

    def _on_lost_framing(self, places: int) -> None:
        """Rows are readable while the process runs; the next start may refuse the directory."""
        detail = f"{places} places of the engine's files are damaged in all copies"
        self._doubt(self._coordinator.member, "damaged_files", detail)

    # -- peers

    def peer_up(self, member: Member) -> None:
        """A connection to whoever sits (or claims to sit) at an ordinal."""
        if member.ordinal in self.peers:
            self.peer_down(member.ordinal)
        self.sender.disconnected(member.ordinal)
        self.peers[member.ordinal] = member.incarnation
        self.disperser.peer_up(member)
        if self.repairer.missing:
            self.repairer.hurry()
        self.restriper.hurry()
        self.finder.look_again()

    def peer_down(self, ordinal: int) -> None:
        """The connection is gone, with all that was not yet delivered."""
        self.disperser.full.pop(ordinal, None)
        if self.peers.pop(ordinal, None) is not None:
            self.sender.disconnected(ordinal)
            self.disperser.peer_down(ordinal)
            self.reader.peer_down(ordinal)
            self.restriper.hurry()

    def peer_full(self, ordinal: int, full: bool) -> None:
        """What a peer says of its disk: while it is full it is spared."""
        if full:
            self.disperser.full[ordinal] = None
        else:
            self.disperser.full.pop(ordinal, None)

    def refuse(self) -> None:
        """Send refusals now: no turn can end, but they promise nothing."""
        for reply in self.keeper.drain_replies():
            self.sender.send(reply)

    def drained(self, ordinal: int) -> None:
        """The outbox has room for this peer again."""
        self.sender.drained(ordinal)
        self.disperser.drained(ordinal)

    # -- messages

    def receive(self, sender: Member, message: DataMessage) -> None:
        """One message of the data plane, in the order of its stream."""
        if isinstance(message, ShardPiece):
            self.keeper.receive(sender, message)
        elif isinstance(message, ShardStored):
            self.disperser.on_stored(sender, message)
        elif isinstance(message, ShardWanted):
            self.sender.pull(sender.ordinal, answers(self.keeper, sender.ordinal, message))
        elif isinstance(message, ShardGiven):
            self.reader.on_given(sender, message)
        elif isinstance(message, ShardRefused):
            self.disperser.on_refused(sender, message)
        elif isinstance(message, ShardDropped):
            self.keeper.on_dropped(sender, message)

    def _receive_own(self, message: DataMessage) -> None:
        self.receive(self.own, message)

    # -- turns

    def apply_events(self, events: list[Event]) -> None:
        """What the machine said while it applied entries, in log order."""
        self.keeper.on_events(events)
        for event in events:
            if isinstance(event, Named):
                self.repairer.named(event)
                self.restriper.named(event)
            elif isinstance(event, Superseded):
                self.repairer.superseded(event.value_id)
                self.restriper.superseded(event)
                self.losses.off(event.value_id)
            elif isinstance(event, ConfigurationChanged):
                self.restriper.layout_changed()

    def drain(self, turn: int) -> Drained:
        """End of turn number `turn` (they grow): rows to write, answers to hold back."""
        if not self.has_output:
            self.keeper.end_turn(turn)
            return NOTHING
        self.refuse()
        after = []
        for addressed in self.keeper.drain_stored(turn):
            if addressed.ordinal == self.own.ordinal:
                assert isinstance(addressed.message, ShardStored)
                self._own_stored.append((turn, addressed.message))
            else:
                after.append(addressed)
        return Drained(self.keeper.drain_writes() + self.losses.drain_writes(), after)

    @property
    def own_waiting(self) -> int:
        """Own shards that wait for durability: if a turn adds to them, it must be flushed."""
        return len(self._own_stored)

    @property
    def has_output(self) -> bool:
        """Whether `drain` would give anything."""
        return self.keeper.has_output or bool(self.losses.writes)

    def flushed(self, turn: int) -> None:
        """Everything up to the batch of `turn` is durable."""
        self.keeper.flushed(turn)
        while self._own_stored and self._own_stored[0][0] <= turn:
            self.disperser.on_stored(self.own, self._own_stored.popleft()[1])
