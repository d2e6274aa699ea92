"""A member that knows its cluster: replica, state machine and data plane in one turn.

Made once the list of founders is durable. A node that is not on the newest list of members
has a seat too, but as a learner: it catches up, takes no client requests and never votes.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, get_args

from distkv.core.messages import Message as ConsensusMessage
from distkv.core.replica import Replica
from distkv.data.messages import DataMessage, ShardDropped, ShardGiven, ShardPiece
from distkv.data.plane import NOTHING, DataPlane
from distkv.errors import DistKVError, full_text
from distkv.ids import Member, node_session
from distkv.kernel import Future, Kernel
from distkv.machine.commands import pack_boot, pack_formed, pack_settled, pack_tick
from distkv.machine.interface import Event
from distkv.machine.machine import Machine, is_founded
from distkv.machine.membership import Options as StateOptions
from distkv.machine.snapshot import is_installing
from distkv.member.applied import AppliedState
from distkv.member.catchup import SnapshotReceiver, SnapshotServer
from distkv.member.clients import Clients
from distkv.member.commands import CommandRouter
from distkv.member.coordinator import SeatCoordinator
from distkv.member.healing import Healer
from distkv.member.identity import first_configuration
from distkv.member.latency import LatencySample
from distkv.member.layouts import Epochs
from distkv.member.learners import Learners
from distkv.member.limits import limits_of
from distkv.member.messages import (
    Forward,
    Founding,
    Greeting,
    NotLeader,
    RowsGiven,
    RowsWanted,
    SnapshotPiece,
    SnapshotWanted,
)
from distkv.member.options import MemberOptions
from distkv.member.output import Outgoing, Output
from distkv.member.overview import Overview
from distkv.member.pending import PendingCommands
from distkv.member.reading import ReadServer, as_client_error
from distkv.member.reads import ReadRounds
from distkv.member.report import status_of
from distkv.member.staging import finish_install
from distkv.member.standing import Standing, standing_of
from distkv.member.writing import Writer
from distkv.operations import Operation, Upload
from distkv.storage.base import CorruptRow
from distkv.transport.base import Identity, Lane
from distkv.wire.codec import Unknown

if TYPE_CHECKING:
    from distkv.member.member import Member as Owner

_CONSENSUS = frozenset(get_args(ConsensusMessage))
DATA_STREAM = 1
"""Small data-plane messages on the control lane do not wait for consensus, nor it for them."""
PIECE_OVERHEAD = 256
BOOT_RETRY_SECONDS = 0.25
HOUSEKEEPING_DEADLINE_SECONDS = 10.0


class Seat:
    """See the module."""

    def __init__(self, owner: Owner, founding: Founding, rng: random.Random) -> None:
        self.owner = owner
        self.options: MemberOptions = owner.options
        self.kernel: Kernel = owner.kernel
        self.identity = owner.identity
        self.member: Member = owner.identity.member
        self.boot: int = owner.identity.boot
        self.session = node_session(self.member.incarnation, self.boot)
        self.founding = founding
        self.machine = self._open_machine(founding)
        # Read off the generator, not drawn from it: what it decides later stays what it was.
        state = hashlib.blake2b(repr(rng.getstate()).encode(), digest_size=7)
        self.start = int.from_bytes(state.digest()) + 1
        self.replica = Replica(self.member, self.machine, owner.engine, self.options.replica, rng)
        self.pending = PendingCommands(self.options.resend_after, self.options.pending_commands_max)
        self.healer = Healer(self)
        self.reads = ReadRounds(self.options.pending_reads_max, self.member.incarnation, self.boot)
        self.router = CommandRouter(self.replica, self.pending, self._send, self._replaced)
        self.data = DataPlane(
            self.kernel,
            owner.engine,
            AppliedState(self.machine, self.healer.met),
            SeatCoordinator(self),
            self,
            limits_of(self.options, self.inline_max),
        )
        self.latency = LatencySample(self.kernel, self.data.pace, self.inline_max)
        self.writer = Writer(self)
        self.reader = ReadServer(self)
        self.clients = Clients(self)
        self.learners = Learners(self)
        self.epochs = Epochs(self)
        self.receiver = SnapshotReceiver(self)
        self.server = SnapshotServer(self)
        self.overview = Overview(self)
        self.booted = self._repairs = False
        self.closing = False
        self._boot_asked_at = float("-inf")
        self._quorum_seen: float | None = None
        self._settle_at = 0.0
        self._truncate_at = 0.0
        self._tick_asked_at = float("-inf")
        self.data.load()

    def _open_machine(self, founding: Founding) -> Machine:
        engine = self.owner.engine
        if is_installing(engine):
            finish_install(engine)
        if is_founded(engine):
            return Machine.load(engine)
        machine = Machine.found(
            engine,
            founding.cluster,
            founding.owner,
            first_configuration(founding),
            StateOptions(inline_max=founding.inline_max),
        )
        # These rows must be in the engine before anything is read through it.
        engine.write(machine.drain_writes())
        return machine

    # -- what others of this package ask

    @property
    def inline_max(self) -> int:
        """Larger values are dispersed; equal on all nodes."""
        return self.machine.options.inline_max

    def spawn(self, flow: Coroutine[Any, Any, object], future: Future[object]) -> None:
        """Run a flow; its result or its DistKVError goes to `future`, anything else is a bug."""

        def done(task: Future[object]) -> None:
            if task.error is None:
                future.set_result(task.result())
                return
            if isinstance(task.error, CorruptRow):
                self.healer.met(task.error)
            error = as_client_error(task.error)
            if error is None:
                self.owner.fatal(task.error)
                error = DistKVError(f"internal error: {task.error!r}")
            future.set_exception(error)

        self.kernel.spawn(flow).add_callback(done)

    def _send(self, ordinal: int, message: object) -> None:
        self.owner.send(ordinal, message)

    def _replaced(self) -> list[Member]:
        return self.owner.peers.replaced(self.machine.configuration)

    @property
    def missing(self) -> int | None:
        """Shards this node should hold and does not; None: not counted yet."""
        return self.data.repairer.missing

    # -- ports of the data plane: Outbox

    def send(self, ordinal: int, message: DataMessage, stream: int) -> bool:
        """Pieces, and what must stay behind them, go as bulk; small answers ahead of it."""
        if isinstance(message, ShardPiece | ShardGiven):
            size = len(message.piece) + PIECE_OVERHEAD
            return self.owner.send_bulk(ordinal, message, stream, size)
        if isinstance(message, ShardDropped):
            return self.owner.send_bulk(ordinal, message, stream, PIECE_OVERHEAD)
        if ordinal not in self.owner.peers.up:
            return False
        self.owner.send(ordinal, message, DATA_STREAM)
        return True

    def line(self, ordinal: int) -> tuple[int, int]:
        """See data.ports.Outbox."""
        return self.owner.bulk_line(ordinal)

    # -- clients

    def execute(self, operation: Operation, deadline: float) -> Future[object]:
        """See Member.execute."""
        future = self.clients.execute(operation, deadline)
        self.latency.note(operation, future)
        return future

    def upload(self, length: int | None) -> Upload:
        """See Member.upload."""
        return self.clients.upload(length)

    @property
    def quorum_lost(self) -> bool:
        """Too few members answer, and that for some time."""
        seen = self._quorum_seen
        return seen is not None and self.kernel.now - seen > self.options.no_quorum_after

    def _look_for_quorum(self) -> None:
        configuration = self.machine.configuration
        if (
            self._quorum_seen is None
            or self.owner.peers.members_up(configuration) >= configuration.phase_one
        ):
            self._quorum_seen = self.kernel.now

    def situation(self) -> str:
        """One line on why things may not move, for error messages."""
        configuration = self.machine.configuration
        up = self.owner.peers.members_up(configuration)
        leader = self.replica.leader
        led = "no leader is known" if leader is None else f"node {leader.ordinal} leads"
        full = f"; {full_text(self.full_disks)}" if self.full_disks else ""
        return (
            f"{up} of {configuration.size} nodes answer, {configuration.phase_one} are needed "
            f"to go on; {led}{full}"
        )

    @property
    def full_disks(self) -> list[int]:
        """Ordinals whose nodes say that their disk is full, this one included."""
        own = [self.member.ordinal] if self.owner.disk_full else []
        return sorted({*own, *self.data.disperser.full})

    @property
    def busy(self) -> bool:
        """Requests are under way that can still end well."""
        if self.quorum_lost:
            return False
        return bool(len(self.pending) or len(self.reads) or self.data.budget.used)

    def submit_formed(self, deadline: float) -> None:
        """The owner recorded the formation: let the log say so."""
        command = pack_formed(self.founding.cluster, self.founding.owner)
        self.pending.submit(b"formed", 0, command, deadline)

    # -- peers

    def receive(self, peer: Identity, message: object) -> None:
        """One message."""
        sender = Member(peer.ordinal, peer.incarnation)
        kind = type(message)
        if kind in _CONSENSUS:
            self.replica.step(sender, message)  # type: ignore[arg-type]
        elif isinstance(message, DataMessage):
            self.data.receive(sender, message)
        elif kind is Forward:
            self.router.on_forward(peer.ordinal, message)  # type: ignore[arg-type]
        elif kind is NotLeader:
            self.router.on_not_leader(self.kernel.now)
        elif kind is SnapshotWanted:
            self.server.on_wanted(peer.ordinal, message)  # type: ignore[arg-type]
        elif kind is SnapshotPiece:
            self.receiver.on_piece(peer.ordinal, message)  # type: ignore[arg-type]
        elif kind is RowsWanted:
            self.healer.exchange.on_wanted(peer.ordinal, message)  # type: ignore[arg-type]
        elif kind is RowsGiven:
            self.healer.on_given(peer.ordinal, message)  # type: ignore[arg-type]
        elif kind is Unknown:
            self.owner.suspect(f"node {peer.ordinal}", "unknown_message", str(message))

    def meets(self, peer: Identity, greeting: Greeting) -> int:
        """0, or how many flushes of that directory were told once, more than it started with."""
        member = Member(peer.ordinal, peer.incarnation)
        records = self.replica.records
        more = records.greets(member, greeting.start, greeting.flushes)
        if not more:
            records.heard(member, greeting.flushed)
        return more

    def peer_up(self, peer: Identity) -> None:
        """See Member.peer_up."""
        member = Member(peer.ordinal, peer.incarnation)
        self.replica.peer_up(member)
        self.data.peer_up(member)
        self.receiver.peer_up(peer.ordinal, self.kernel.now)
        if self._quorum_seen is not None:
            self._look_for_quorum()  # at once: the first request may follow right behind
        leader = self.replica.leader
        if leader is not None and leader.ordinal == peer.ordinal:
            self.pending.put_back()

    def peer_down(self, peer: Identity) -> None:
        """See Member.peer_down."""
        self.replica.peer_down(peer.ordinal)
        self.data.peer_down(peer.ordinal)
        self.receiver.peer_down(peer.ordinal)

    def installed(self, slot: int) -> None:
        """A snapshot of the state after `slot` is in the engine."""
        self.machine.reload()
        self.replica.install(slot)
        self.healer.installed()
        self.data.load()
        self.data.apply_events(self.machine.state_events())
        self._check_boot()

    def set_disk_full(self, full: bool) -> None:
        """See Member.disk_full."""
        self.data.keeper.disk_full = full
        if not full:
            self.data.repairer.hurry()

    # -- turns

    def tick(self, ticks: int) -> None:
        """`ticks` times `options.tick` seconds have passed."""
        self.replica.tick(self.owner.wall_ms, ticks)

    def advance(self, out: Output) -> tuple[bool, int]:
        """One round of a turn: (whether anything moved, number of the last Ready or 0)."""
        self.latency.begin()
        self.router.route(self.kernel.now)
        self.reads.start(self._start_read)
        number = 0
        ready = self.healer.ready()
        if ready is not None:
            number = ready.number
            out.writes += ready.writes
            out.must_flush |= ready.must_flush
            for ordinal, message in ready.messages:
                out.messages.append(Outgoing(ordinal, Lane.CONTROL, 0, message))
            for ordinal, message in ready.beats:
                out.messages.append(Outgoing(ordinal, Lane.BEAT, 0, message))
            for ordinal, message in ready.messages_after_flush:
                out.messages_after_flush.append(Outgoing(ordinal, Lane.CONTROL, 0, message))
            for token, slot in ready.reads:
                self.reads.confirmed(token, slot)
        events = self.machine.drain_events()
        if events:
            self._on_events(events)
        for outcome in self.machine.drain_outcomes():
            self.pending.decide(outcome)
        self.reads.applied(self.machine.applied)
        behind = self.replica.chosen > self.machine.applied and not self.replica.held
        return behind or bool(events), number

    @property
    def has_work(self) -> bool:
        """Whether a turn would do anything now."""
        return (
            self.replica.has_work
            or self.data.has_output
            or (self.pending.has_unsent and self.replica.leader is not None)
        )

    def _start_read(self, token: int) -> bool:
        if self.replica.leader is None:
            return False
        self.replica.read(token)
        return True

    def turn_ended(self, out: Output) -> None:
        """Everything was decided: collect rows and acknowledgements of both planes."""
        rows = self.machine.drain_writes()
        out.writes += rows
        if self.healer.rotten:
            out.writes += self.healer.turn_ended(rows)
        waiting = self.data.own_waiting
        drained = self.data.drain(out.number)
        if drained is NOTHING:
            return
        out.writes += drained.writes
        out.must_flush |= bool(drained.after_flush) or self.data.own_waiting > waiting
        for ordinal, _, message in drained.after_flush:
            out.messages_after_flush.append(Outgoing(ordinal, Lane.CONTROL, DATA_STREAM, message))

    def flushed(self, number: int, replica_number: int) -> None:
        """The outputs up to `number` are durable."""
        if replica_number:
            self.replica.persisted(replica_number)
        self.data.flushed(number)

    def _on_events(self, events: list[Event]) -> None:
        self.data.apply_events(events)
        self._check_boot()

    def _check_boot(self) -> None:
        known = self.machine.membership.boots.get(self.member.incarnation)
        if known is not None and (
            known.boot > self.boot or (known.boot == self.boot and known.start != self.start)
        ):
            self.owner.went_back(
                f"boot {known.boot} of this data directory is in the log, and this is another "
                f"process, boot {self.boot}"
            )
            return
        if not self.booted and known is not None and known.boot == self.boot:
            self.booted = True
            self.clients.booted()
        # A node that leaves has no boot in the log any more, but shards that still count.
        if not self._repairs and (self.booted or standing_of(self) is Standing.LEAVING):
            self._repairs = True
            self.data.start()

    # -- housekeeping

    def sweep(self, now: float) -> None:
        """Every `options.sweep` seconds: deadlines, quorum, and what this node owes the log."""
        configuration = self.machine.configuration
        self._look_for_quorum()
        if self.quorum_lost:
            self.pending.refuse_unsent(self.situation())
            self.reads.refuse(self.situation())
            self.clients.refuse_unbooted()
        self.pending.sweep(now, self.situation)
        self.reads.sweep(now, self.situation)
        self._check_boot()
        self.learners.look()
        self.epochs.look()
        if configuration.is_voter(self.member):
            self._owe_boot(now)
            self._owe_settled(now)
        if self.replica.is_leader:
            self._owe_tick(now)
        if now >= self._truncate_at:
            self._truncate_at = now + self.options.truncate_every
            self.replica.truncate(self.machine.applied)
        self.data.start_scrub()
        self.receiver.poll(now)
        self.owner.suspicions.take(now, self.replica.witness.found, self.data.doubts)
        self.healer.poll(now)

    def _owe_boot(self, now: float) -> None:
        if self.booted or now - self._boot_asked_at < BOOT_RETRY_SECONDS:
            return
        self._boot_asked_at = now
        command = pack_boot(self.member.incarnation, self.member.ordinal, self.boot, self.start)
        self.pending.submit(self.session, 0, command, now + HOUSEKEEPING_DEADLINE_SECONDS)

    def _owe_settled(self, now: float) -> None:
        if not self.booted or now < self._settle_at:
            return
        self._settle_at = now + self.options.settle_every
        counter = self.data.disperser.settled_counter
        known = self.machine.membership.boots.get(self.member.incarnation)
        if known is not None and counter > max(known.settled, 1):
            self._to_leader(pack_settled(self.member.incarnation, self.boot, counter))

    def _owe_tick(self, now: float) -> None:
        if now - self._tick_asked_at < 1.0:
            return
        try:
            if not self.machine.due(self.owner.wall_ms):
                return
        except CorruptRow as rot:
            self.healer.met(rot)
            return
        self._tick_asked_at = now
        self.replica.propose([pack_tick()])

    def _to_leader(self, command: bytes) -> None:
        """A command without an outcome: sent once, repeated as long as it is owed."""
        leader = self.replica.leader
        if leader is None:
            return
        if leader == self.member:
            self.replica.propose([command])
        else:
            self._send(leader.ordinal, Forward((command,)))

    def best_successor(self) -> int | None:
        """The follower that is furthest along, to hand leadership over to."""
        others = [p for p in self.replica.status().peers if p.voter and p.member != self.member]
        fit = [peer for peer in others if self.owner.peers.would_lead(peer.member)]
        return max(fit, key=lambda peer: peer.match).member.ordinal if fit else None

    def greeting(self) -> Greeting:
        """How far this node is."""
        return self.overview.greeting()

    def status(self) -> dict[str, object]:
        """See Member.status."""
        return status_of(self)
