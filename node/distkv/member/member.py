"""One member of the cluster: consensus, state machine and data plane together, without I/O.

Peer messages, connections, client operations, flushes and time come in; one `Output` a turn
goes out. The asyncio adapter (`runtime.driver`) and the simulator drive the same class.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from distkv.data.messages import Refusal, ShardPiece, ShardRefused
from distkv.errors import BadRequest, DiskFull, NotFormed, ShuttingDown
from distkv.ids import Member as Seated
from distkv.kernel import Future, Kernel
from distkv.member.formation import check_founding, may_found
from distkv.member.identity import (
    WENT_BACK,
    DirectoryIdentity,
    VolumeWentBack,
    founding_row,
    identity_row,
    load_founding,
)
from distkv.member.messages import MENDING, Founding, Greeting, SnapshotPiece, WentBack
from distkv.member.options import MemberOptions
from distkv.member.output import Outgoing, Output
from distkv.member.peers import Peers
from distkv.member.regaining import Regaining
from distkv.member.report import health_fields, state_without_seat
from distkv.member.seat import DATA_STREAM, Seat
from distkv.member.staging import StageLost
from distkv.member.suspicions import SuspicionLog
from distkv.member.wire import register_messages
from distkv.operations import Operation, Upload
from distkv.storage.base import Engine, Put, StorageFull, StorageOperation, Table
from distkv.transport.base import Identity, Lane

register_messages()

LATE_SECONDS = 0.05
"""A turn that comes later than this was held up: what it missed does not count as silence of
others, whose messages may wait unread."""
TURN_ROUNDS_MAX = 100
"""A turn that feeds itself longer than this goes on in the next one."""


def _nothing() -> None:
    """Nobody listens."""


class Member:
    """See the module. Owns the kernel; `room(ordinal, lane)` is bytes the transport still takes."""

    def __init__(
        self,
        identity: DirectoryIdentity,
        engine: Engine,
        rng: random.Random,
        options: MemberOptions,
        room: Callable[[int, Lane], int],
        report: Callable[[str], None],
    ) -> None:
        self.identity = identity
        self.engine = engine
        self.options = options
        self.kernel = Kernel()
        self.peers = Peers(identity.member)
        self.suspicions = SuspicionLog(report)
        self.wall_ms = 0
        self._rng = rng
        self._room = room
        self._disk_full = False
        self._number = 0
        self._out = Output(0)
        self._bulk_this_turn: dict[int, int] = {}
        self._bulk_taken: dict[int, int] = {}
        self._most_room = 0
        """Of a bulk queue, so far: that of an empty one, sooner or later."""
        self.starved: dict[int, int] = {}
        """Ordinals whose bulk queue had no room, and the bytes that were to go there."""
        self._numbers: deque[tuple[int, int]] = deque()
        self._founding = load_founding(engine)
        self._founding_durable_at = 0
        self._ticked = 0.0
        self._next_tick = 0.0
        self._next_sweep = 0.0
        self._next_greeting = 0.0
        self._fatal: BaseException | None = None
        self._poked = False
        self.on_work: Callable[[], None] = _nothing
        """Called when something outside a turn made work for one."""
        self.on_identity: Callable[[DirectoryIdentity], None] = lambda identity: None
        """Called when the generation of the cluster was learnt."""
        self.seat: Seat | None = None
        self._regaining: Regaining | None = None  # then there is no seat
        if self._founding is not None:
            self._take_seat(self._founding)

    # -- what comes in

    @property
    def disk_full(self) -> bool:
        """The engine refuses writes: nothing new is taken until it accepts them again."""
        return self._disk_full

    @disk_full.setter
    def disk_full(self, full: bool) -> None:
        self._disk_full = full
        self._next_greeting = 0.0
        if self.seat is not None:
            self.seat.set_disk_full(full)

    def is_member(self, ordinal: int, incarnation: int) -> bool:
        """Whether a layout that lives has it, as far as this node knows."""
        seat = self.seat
        return (
            seat is not None and Seated(ordinal, incarnation) in seat.machine.membership.everybody
        )

    def write_refused(self) -> None:
        """A batch waits for space. A snapshot must not come before it: rows of the older state
        would be written over those of the newer one."""
        if self.seat is not None:
            self.seat.receiver.give_up()

    def set_repair_rate(self, bytes_per_second: int) -> None:
        """Of repair, and of all work in the background, from now on."""
        self.options = replace(self.options, repair_bytes_per_second=bytes_per_second)
        if self.seat is not None:
            self.seat.data.pace.limit(bytes_per_second)

    def receive(self, peer: Identity, message: object) -> None:
        """One message of an authenticated peer of this cluster."""
        kind = type(message)
        if kind is Greeting:
            self._on_greeting(peer, message)  # type: ignore[arg-type]
        elif peer.ordinal in self.peers.forgetful:
            return
        elif kind is WentBack:
            self._went_back(peer, message)  # type: ignore[arg-type]
        elif kind is Founding:
            self._learn_founding(peer, message)  # type: ignore[arg-type]
        elif self.seat is not None:
            self.seat.receive(peer, message)
        elif kind is SnapshotPiece and self._regaining is not None:
            self._regaining.on_piece(peer.ordinal, message)  # type: ignore[arg-type]
        elif kind is ShardPiece:
            self._refuse_piece(peer, message)  # type: ignore[arg-type]

    def _refuse_piece(self, peer: Identity, piece: ShardPiece) -> None:
        """Without a seat there is nowhere to put it. Silence would hold the write up until it
        goes round this node, and a value that is coded anew for minutes (full world 6835266)."""
        refused = ShardRefused(piece.value_id, piece.shard, Refusal.NOT_MEMBER)
        self.send(peer.ordinal, refused, DATA_STREAM)

    def _on_greeting(self, peer: Identity, message: Greeting) -> None:
        if self.peers.up.get(peer.ordinal) != peer:
            return  # of an earlier connection: it says nothing of the process that is there now
        if self.seat is not None and message.start:
            more = self.seat.meets(peer, message)
            if more:
                self.peers.forgetful.add(peer.ordinal)
                self.send(peer.ordinal, WentBack(message.start, more))
                return
        self.peers.greetings[peer.ordinal] = message
        if self.seat is not None:
            self.seat.data.peer_full(peer.ordinal, message.disk_full)
        if not message.founded and self._founding is not None:
            self.send(peer.ordinal, self._founding)

    def _went_back(self, peer: Identity, message: WentBack) -> None:
        """Halt: what this directory has forgotten may be what others count on."""
        seat = self.seat
        if seat is None or message.start != seat.start:
            return  # meant for another directory, which sat here a moment ago
        if message.flushes > seat.replica.flushes:
            self.went_back(
                f"node {peer.ordinal} was told of {message.flushes} flushes of this data "
                f"directory, which started with {seat.replica.flushes}"
            )

    def outdated(self, peer: Identity) -> None:
        """This peer refuses us for our boot: it has met a later one of this directory."""
        self.went_back(
            f"node {peer.ordinal} has met a later start of this data directory than this one, "
            f"which is boot {self.identity.boot}"
        )
        self.poke()

    def went_back(self, proof: str) -> None:
        """This directory was a later one before: the node halts, and never starts on it again."""
        reason = (
            f"{proof}: it was restored from a snapshot or a backup, or lost the end of its log. "
            "It has forgotten promises that others count on, so this node must not go on with "
            "it: wipe the directory and replace the node (distkv admin replace --help)"
        )
        self.fatal(VolumeWentBack(reason))
        with suppress(StorageFull):  # then it will be found out again
            self.engine.write([Put(Table.META, WENT_BACK, reason.encode())])

    def peer_up(self, peer: Identity) -> None:
        """The transport has a new connection to this peer."""
        self.peers.connected(peer)
        self.send(peer.ordinal, self._greeting())
        if self.seat is not None:
            self.seat.peer_up(peer)

    def peer_down(self, peer: Identity) -> None:
        """The connection is gone."""
        if self.peers.disconnected(peer) and self.seat is not None:
            self.seat.peer_down(peer)

    def drained(self, ordinal: int, lane: Lane) -> None:
        """The transport has room again."""
        if self.seat is not None and lane is Lane.BULK:
            self.seat.data.drained(ordinal)

    def suspect(self, source: str, kind: str, detail: str) -> None:
        """Count a misbehaviour."""
        self.suspicions.add(self.kernel.now, source, kind, detail)

    # -- clients and owner

    def execute(self, operation: Operation, deadline: float) -> Future[object]:
        """Start a client operation; the future fails with DistKVError only."""
        if self.seat is None:
            future: Future[object] = Future()
            future.set_exception(NotFormed(self._waiting()[1]))
            return future
        self.poke()
        return self.seat.execute(operation, deadline)

    def poke(self) -> None:
        """There is something to do: run a turn, or another round of the present one."""
        self._poked = True
        self.on_work()

    def upload(self, length: int | None) -> Upload:
        """Begin a value that arrives in pieces. Raises NotFormed, Busy, TooLarge."""
        if self.seat is None:
            raise NotFormed(self._waiting()[1])
        return self.seat.upload(length)

    def found(self, founding: Founding) -> None:
        """The owner's one-time command to ordinal 0. Raises BadRequest."""
        may_found(self.identity, founding)
        check_founding(self.identity, founding)
        if self._founding is not None:
            if self._founding != founding:
                raise BadRequest(
                    "this cluster was founded already, with other members or another owner: "
                    "a formed cluster is never founded again"
                )
            return
        self._accept_founding(founding)

    def _learn_founding(self, peer: Identity, founding: Founding) -> None:
        if self._founding is not None:
            if self._founding != founding:
                self.suspect(f"node {peer.ordinal}", "other_founders", repr(founding))
            return
        try:
            check_founding(self.identity, founding)
        except BadRequest as error:
            self.suspect(f"node {peer.ordinal}", "impossible_founders", str(error))
            return
        self._accept_founding(founding)

    def _accept_founding(self, founding: Founding) -> None:
        self._founding = founding
        self.identity = self.identity._replace(generation=founding.generation)
        self._out.writes += [founding_row(founding), identity_row(self.identity)]
        self.on_identity(self.identity)
        self.sit_once_durable()
        for ordinal in self.peers.up:
            # A peer on the list may vote as soon as it holds the list durably itself.
            self._out.messages_after_flush.append(Outgoing(ordinal, Lane.CONTROL, 0, founding))

    def sit_once_durable(self) -> None:
        """Take the seat when all that is written by now is flushed."""
        self._regaining = None
        self._out.must_flush = True
        self._founding_durable_at = self._number + 1

    def _take_seat(self, founding: Founding) -> None:
        try:
            self.seat = Seat(self, founding, self._rng)
        except StageLost as lost:
            self._regaining = Regaining(self, lost)
            return
        self._ticked = self._next_tick = self.kernel.now
        self.seat.set_disk_full(self._disk_full)
        for ordinal, peer in self.peers.up.items():
            self.seat.peer_up(peer)
            self.send(ordinal, self._greeting())
            said = self.peers.greetings.get(ordinal)
            if said is not None:
                self._on_greeting(peer, said)

    def _waiting(self) -> tuple[str, str]:
        return state_without_seat(self._founding is not None, self._regaining is not None)

    # -- what goes out

    def send(self, ordinal: int, message: object, stream: int = 0) -> None:
        """Queue a control message for this turn."""
        self._out.messages.append(Outgoing(ordinal, Lane.CONTROL, stream, message))

    def send_bulk(self, ordinal: int, message: object, stream: int, size: int) -> bool:
        """Queue a bulk message if the transport has room for it; False: wait for `drained`."""
        if ordinal not in self.peers.up:
            return False
        queued, room = self._bulk_this_turn.get(ordinal, 0), self._room(ordinal, Lane.BULK)
        self._most_room = max(self._most_room, room)
        if room - queued < size:
            self.starved[ordinal] = size
            return False
        self._bulk_this_turn[ordinal] = queued + size
        self._bulk_taken[ordinal] = self._bulk_taken.get(ordinal, 0) + size
        self.poke()
        self._out.messages.append(Outgoing(ordinal, Lane.BULK, stream, message))
        return True

    def bulk_line(self, ordinal: int) -> tuple[int, int]:
        """See data.ports.Outbox."""
        queued = self._most_room - self._room(ordinal, Lane.BULK)
        standing = max(0, queued) + self._bulk_this_turn.get(ordinal, 0)
        return self._bulk_taken.get(ordinal, 0), standing

    def turn(self, now: float, wall_ms: int) -> Output:
        """Do all that is to be done now."""
        if self._fatal is not None:
            raise self._fatal
        self.wall_ms = wall_ms
        kernel = self.kernel
        kernel.run(now)
        self._periodic(now)
        if self.starved:
            self._feed_starved()
        seat = self.seat
        replica_number = 0
        if seat is not None:
            for _ in range(TURN_ROUNDS_MAX):
                self._poked = False
                moved, number = seat.advance(self._out)
                replica_number = number or replica_number
                kernel.run(now)
                if not moved and not self._poked:
                    break
        output = self._out
        self._number += 1
        output.number = self._number
        if seat is not None:
            seat.turn_ended(output)
        if replica_number:
            self._numbers.append((self._number, replica_number))
        self._out = Output(0)
        self._bulk_this_turn = {}
        return output

    def _feed_starved(self) -> None:
        for ordinal, size in list(self.starved.items()):
            if self._room(ordinal, Lane.BULK) >= size or ordinal not in self.peers.up:
                del self.starved[ordinal]
                if self.seat is not None:
                    self.seat.data.drained(ordinal)

    def flushed(self, number: int) -> None:
        """All outputs up to `number` are durable."""
        if self.seat is None:
            if self._founding is not None and number >= self._founding_durable_at > 0:
                self._take_seat(self._founding)
            return
        replica_number = 0
        while self._numbers and self._numbers[0][0] <= number:
            replica_number = self._numbers.popleft()[1]
        self.seat.flushed(number, replica_number)

    def fail_waiting(self, now: float) -> list[Outgoing]:
        """No turn can run (the disk is full): whoever waits is told, now.

        Returns what may be sent all the same: the news of it, and refusals of shards, so
        that no peer waits for this one as if it were only slow.
        """
        self.kernel.now = max(self.kernel.now, now)
        kept, self._out.messages = self._out.messages, []
        self._greet(now)
        if self.seat is not None:
            self.seat.data.refuse()
            full = DiskFull("the disk of this node is full; write through another node")
            self.seat.pending.fail(full, "the disk of this node became full")
            self.seat.reads.refuse("the disk of this node is full; ask another node")
        sent, self._out.messages = self._out.messages, kept
        return sent

    def stop_taking(self) -> None:
        """The process is to end: refuse new requests, go on with those under way."""
        if self.seat is not None:
            self.seat.closing = True

    def shut_down(self) -> None:
        """The process is about to end: whoever still waits is told."""
        if self.seat is not None:
            stopping = ShuttingDown("the node is stopping; nothing was changed")
            self.seat.pending.fail(stopping, "the node stopped")
            self.seat.reads.refuse("the node is stopping; ask another")

    @property
    def has_work(self) -> bool:
        """Whether a turn would do anything now, timers apart."""
        if self._poked or self._out.messages or self._out.writes or self.kernel.busy:
            return True
        return self.seat is not None and self.seat.has_work

    def next_timer(self) -> float:
        """When `turn` must be called at the latest."""
        when = self._next_greeting
        seat = self.seat
        if seat is not None:
            when = min(when, self._plan_tick(seat))
        timer = self.kernel.next_timer()
        return when if timer is None else min(timer, when)

    def write_now(self, operations: list[StorageOperation]) -> None:
        """Rows that are read back before the turn ends: in front of it, as a batch of their own."""
        self.engine.write(operations)
        self._out.must_flush = True

    def fatal(self, error: BaseException) -> None:
        """A bug in a flow: the next turn raises it, which halts the node."""
        self._fatal = error

    def _periodic(self, now: float) -> None:
        seat = self.seat
        if seat is not None:
            tick = self.options.tick
            if now - self._ticked >= tick:
                self._ticked += max(0.0, now - self._next_tick - LATE_SECONDS)
                ticks = int((now - self._ticked) / tick)
                self._ticked += ticks * tick
                seat.tick(ticks)
                self._plan_tick(seat)
            if now >= self._next_sweep:
                seat.sweep(now)
                self._next_sweep = now + self.options.sweep
        elif self._regaining is not None:
            self._regaining.poll(now)
        self._greet(now)

    def _plan_tick(self, seat: Seat) -> float:
        self._next_tick = self._ticked + seat.replica.ticks_to_wait() * self.options.tick
        return self._next_tick

    def _greet(self, now: float) -> None:
        if now >= self._next_greeting:
            self._next_greeting = now + self.options.greeting_every
            greeting = self._greeting()
            for ordinal in self.peers.up:
                self._out.messages.append(Outgoing(ordinal, Lane.BEAT, 0, greeting))

    def _greeting(self) -> Greeting:
        if self.seat is not None:
            return self.seat.greeting()
        state = "" if self._regaining is None else MENDING
        return Greeting(self._founding is not None, False, self._disk_full, 0, state=state)

    # -- status

    def health(self) -> dict[str, object]:
        """See operations.Store."""
        if self.seat is None:
            state, detail = self._waiting()
            return {"serving": False, "state": state, "detail": detail}
        return health_fields(self.seat)

    def status(self) -> dict[str, object]:
        """Plain data for the status page, INFO and the owner."""
        identity = self.identity
        own: dict[str, object] = {
            "cluster": identity.cluster.hex(),
            "generation": identity.generation,
            "ordinal": identity.ordinal,
            "incarnation": identity.incarnation,
            "boot": identity.boot,
            "disk_full": self._disk_full,
            "suspicions": self.suspicions.status(),
            "peers_up": sorted(self.peers.up),
        }
        if self.seat is None:
            return own | self.health() | {"formed": False, "role": "none", "leader": None}
        return own | self.seat.status()
