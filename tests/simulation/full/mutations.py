"""Known mistakes of a whole node, each a small patch. The simulator must catch them all.

`MUTATIONS[name](patch)` installs one; `patch(owner, attribute, replacement)` is undone later.
Those of the consensus core alone are in `simulation.core_world.mutations`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distkv.coding.checksum import checksum
from distkv.core import leader as leader_module
from distkv.core.messages import Accept
from distkv.core.replica import Replica
from distkv.data import gather, repair, rows
from distkv.data.attempt import Attempt, State
from distkv.data.disperser import Disperser
from distkv.data.grace import Grace
from distkv.data.judge import Verdict, judge
from distkv.data.plane import DataPlane
from distkv.data.shards import ShardKeeper
from distkv.ids import ZERO_BALLOT
from distkv.machine import commands as machine_commands
from distkv.machine import machine as machine_module
from distkv.machine import snapshot, writes
from distkv.machine.interface import OutcomeKind
from distkv.machine.machine import Machine
from distkv.machine.membership import Membership
from distkv.machine.sessions import Session, Sessions
from distkv.machine.snapshot import SnapshotSource
from distkv.member.catchup import SnapshotReceiver
from distkv.member.identity import DirectoryIdentity, open_identity
from distkv.member.output import Outgoing
from distkv.member.reading import ReadServer
from distkv.member.reads import ReadRounds
from distkv.member.seat import Seat
from distkv.member.writing import Writer
from distkv.simulation import member_host
from distkv.simulation.disk import named_values
from distkv.storage.base import Table
from distkv.transport.base import Lane

Patch = Callable[[Any, str, Any], None]
MUTATIONS: dict[str, Callable[[Patch], None]] = {}


def mutation(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTATIONS[function.__name__] = function
    return function


@contextmanager
def installed(name: str) -> Iterator[None]:
    """The mutation is in force inside."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, attribute: str, replacement: Any) -> None:
        undo.append((owner, attribute, owner.__dict__[attribute]))
        setattr(owner, attribute, replacement)

    MUTATIONS[name](patch)
    try:
        yield
    finally:
        for owner, attribute, original in reversed(undo):
            setattr(owner, attribute, original)


# -- dispersal -------------------------------------------------------------------------------


def _needs(patch: Patch, count: Callable[[int, Any], int]) -> None:
    """Holders that suffice, for the coordinator and at apply."""
    patch(Attempt, "need", property(lambda self: count(self.code.data_shards, self.configuration)))
    original = Membership.refusal

    def refusal(self: Membership, value_id: Any, k: int, epoch: int, holders: Any) -> str:
        found = original(self, value_id, k, epoch, holders)
        enough = len(holders) // 2 >= count(k, self.configuration)
        return "" if found == "holders" and enough else found

    patch(Membership, "refusal", refusal)


@mutation
def a_majority_holds_it(patch: Patch) -> None:
    """A value counts as safe on a majority, whatever k_e is."""
    _needs(patch, lambda k, configuration: configuration.size // 2 + 1)


@mutation
def one_holder_too_few(patch: Patch) -> None:
    """k_e + f - 1 durable shards are taken to be enough."""

    _needs(patch, lambda k, configuration: max(1, k + configuration.failures - 1))


@mutation
def shard_acknowledged_before_flush(patch: Patch) -> None:
    """A holder acknowledges what is in its page cache only."""
    original = Seat.turn_ended

    def turn_ended(self: Seat, out: Any) -> None:
        before = len(out.messages_after_flush)
        original(self, out)
        out.messages += out.messages_after_flush[before:]
        del out.messages_after_flush[before:]

    patch(Seat, "turn_ended", turn_ended)


@mutation
def own_shard_counted_before_flush(patch: Patch) -> None:
    """The coordinator counts its own shard as soon as it is written."""
    original = DataPlane.drain

    def drain(self: DataPlane, turn: int) -> Any:
        drained = original(self, turn)
        while self._own_stored:
            self.disperser.on_stored(self.own, self._own_stored.popleft()[1])
        return drained

    patch(DataPlane, "drain", drain)


@mutation
def dispersed_again_under_the_same_id(patch: Patch) -> None:
    """A hedged attempt, or one after a refusal, keeps the value id."""
    original = Disperser.begin

    def reusing(self: Disperser, dispersal: Any, source: Any, data_shards: int) -> Attempt:
        highest = self._counter
        if hasattr(dispersal, "first_counter"):
            self._counter = dispersal.first_counter - 1
        attempt = original(self, dispersal, source, data_shards)
        dispersal.first_counter = attempt.value_id.counter
        self._counter = max(highest, self._counter)
        return attempt

    patch(Disperser, "begin", reusing)


@mutation
def late_acknowledgement_counted(patch: Patch) -> None:
    """An acknowledgement of an attempt that was given up counts for the present one."""
    begun = Disperser.begin
    stored = Disperser.on_stored

    def begin(self: Disperser, dispersal: Any, source: Any, data_shards: int) -> Attempt:
        attempt = begun(self, dispersal, source, data_shards)
        self.__dict__.setdefault("every", {})[attempt.value_id] = dispersal
        return attempt

    def on_stored(self: Disperser, sender: Any, message: Any) -> None:
        stored(self, sender, message)
        dispersal = self.__dict__.get("every", {}).get(message.value_id)
        if dispersal is not None and dispersal.attempts:
            attempt = dispersal.attempts[-1]
            target = attempt.targets.get(sender.ordinal)
            if target is not None and target.state is not State.STORED:
                target.state = State.STORED
                dispersal.on_stored(attempt, target)

    patch(Disperser, "begin", begin)
    patch(Disperser, "on_stored", on_stored)


@mutation
def piece_of_the_seat_instead_of_the_shard(patch: Patch) -> None:
    """The pieces are not turned with the shard numbers."""
    original = Attempt.piece

    def piece(self: Attempt, target: Any) -> Any:
        made = original(self, target)
        if made is None or made.stripe not in self._encoded:
            return made
        wrong = self._encoded[made.stripe][target.member.ordinal]
        if len(wrong) != len(made.piece):
            return made
        return made._replace(piece=wrong, crc=checksum(wrong))

    patch(Attempt, "piece", piece)


@mutation
def shard_index_not_rotated_back(patch: Patch) -> None:
    """Repair rebuilds the shard of the seat's number."""
    patch(repair, "shard_of", lambda ordinal, value_id, size: ordinal)


@mutation
def any_incarnation_holds_it(patch: Patch) -> None:
    """An acknowledgement of whoever sits there now counts, and a directory made anew too."""

    original = Attempt.stored

    def stored(self: Attempt, member: Any, shard: int) -> Any:
        target = self.targets.get(member.ordinal)
        return None if target is None else original(self, target.member, shard)

    patch(Attempt, "stored", stored)
    reachable = Disperser.reachable

    def all_connected(self: Disperser) -> Any:
        configuration, _ = reachable(self)
        own = self._coordinator.member
        up = [m.ordinal for m in configuration.members if m == own or m.ordinal in self._peers]
        return configuration, tuple(up)

    patch(Disperser, "reachable", all_connected)


# -- what a put must satisfy at apply ----------------------------------------------------------


@mutation
def ballot_checked_at_propose_only(patch: Patch) -> None:
    """At apply the barrier is not looked at any more."""
    original = writes._refusal

    def refusal(mutations: Any, barrier: Any, membership: Any, keyspace: Any) -> str:
        return original(mutations, ZERO_BALLOT, membership, keyspace)

    patch(writes, "_refusal", refusal)


@mutation
def barrier_skipped(patch: Patch) -> None:
    """A new leader begins with a no-op: nothing is ever ruled out by an election."""
    patch(
        leader_module.entries, "barrier", lambda stamp, ballot: machine_commands.entry_noop(stamp)
    )


def _without_refusal(patch: Patch, reason: str) -> None:
    original = Membership.refusal

    def refusal(self: Membership, *arguments: Any) -> str:
        found = original(self, *arguments)
        return "" if found == reason else found

    patch(Membership, "refusal", refusal)


@mutation
def boot_not_checked_at_apply(patch: Patch) -> None:
    """A put of an earlier boot takes effect after the new one was announced."""
    _without_refusal(patch, "boot")


@mutation
def settles_what_is_undecided(patch: Patch) -> None:
    """The settled mark passes values under way, and no put is refused for it."""
    patch(Disperser, "settled_counter", property(lambda self: self._counter + 1))
    _without_refusal(patch, "settled")


@mutation
def condition_not_checked_at_apply(patch: Patch) -> None:
    """Compare-and-set sets."""
    patch(writes, "_meets", lambda record, must, version: True)


# -- dropping shards ---------------------------------------------------------------------------


@mutation
def shards_dropped_on_reconnect(patch: Patch) -> None:
    """A new boot seen on a connection is taken for word that earlier values are dead."""
    original = DataPlane.peer_up

    def peer_up(self: DataPlane, member: Any) -> None:
        original(self, member)
        keeper = self.keeper
        for value_id, shard in list(keeper._shards.items()):
            if value_id.incarnation == member.incarnation and not shard.named:
                keeper._drop(value_id)

    patch(DataPlane, "peer_up", peer_up)


@mutation
def shards_dropped_on_timeout(patch: Patch) -> None:
    """A coordinator whose client gave up tells the holders to drop the value."""

    def let_go(self: Writer, dispersals: Any) -> None:
        for dispersal in dispersals.values():
            if not dispersal.closed:
                dispersal.abandon()

    patch(Writer, "_let_go", let_go)


@mutation
def shards_dropped_before_apply(patch: Patch) -> None:
    """The old value goes when the entry that supersedes it is accepted, not when applied."""
    original = Seat.receive

    def receive(self: Seat, peer: Any, message: Any) -> None:
        if isinstance(message, Accept):
            for entry in message.entries:
                for key, _ in named_values(entry):
                    record = self.machine.record(key)
                    if record is not None and record.value_id is not None:
                        keeper = self.data.keeper
                        shard = keeper._find(record.value_id)
                        if shard is not None:
                            keeper._forget(record.value_id)
                            keeper._delete_rows(record.value_id, shard.header.stripes)
        original(self, peer, message)

    patch(Seat, "receive", receive)


@mutation
def shards_dropped_after_a_while(patch: Patch) -> None:
    """Whatever no record names yet is garbage after half a second."""
    original = ShardKeeper.receive

    def receive(self: ShardKeeper, sender: Any, piece: Any, stripes: int = 0) -> None:
        original(self, sender, piece, stripes)

        def collect() -> None:
            shard = self._shards.get(piece.value_id)
            if shard is not None and not shard.named:
                self._drop(piece.value_id)

        self._grace._kernel.call_at(self._grace._kernel.now + 0.5, collect)

    patch(ShardKeeper, "receive", receive)


@mutation
def nothing_is_swept(patch: Patch) -> None:
    """What the applied state rules out is never dropped."""
    patch(ShardKeeper, "_sweep", lambda self: None)


@mutation
def nothing_is_settled(patch: Patch) -> None:
    """Coordinators never say which values are decided."""
    patch(Seat, "_owe_settled", lambda self, now: None)


@mutation
def superseded_shards_stay(patch: Patch) -> None:
    """The grace of a superseded value never begins, so it never ends."""
    patch(Grace, "add", lambda self, value_id: None)


@mutation
def superseded_shards_forgotten_at_restart(patch: Patch) -> None:
    """After a restart only shards that may still be named are remembered."""
    original = ShardKeeper._load_one

    def load_one(self: ShardKeeper, value_id: Any, row: bytes) -> None:
        if judge(self._applied, value_id, rows.unpack_header(row).stamp) is not Verdict.RULED_OUT:
            original(self, value_id, row)

    patch(ShardKeeper, "_load_one", load_one)


@mutation
def no_repair(patch: Patch) -> None:
    """Shards that did not arrive stay missing."""
    patch(repair.Repairer, "lacking", lambda self, value_id, record: [])


# -- exactly once ------------------------------------------------------------------------------


@mutation
def last_sequence_dedup(patch: Patch) -> None:
    """A session remembers only its last sequence: reordered writes are swallowed."""
    original = Machine._write

    def write(self: Any, slot: int, key: bytes, sequence: int, low: int, mutations: Any) -> Any:
        session = self._sessions.find(key, self.log_time_ms)
        if session is not None and session.results:
            last = max(session.results)
            if sequence < last and sequence not in session.results:
                return session.results[last]
        return original(self, slot, key, sequence, low, mutations)

    patch(Machine, "_write", write)


@mutation
def no_dedup(patch: Patch) -> None:
    """Results are not remembered: a retry is applied again."""
    patch(Session, "store", lambda self, *arguments: None)
    patch(Sessions, "stored", lambda self, session: None)


@mutation
def results_not_kept_over_a_restart(patch: Patch) -> None:
    """Pages of results are not read back."""
    patch(Sessions, "_load_page", lambda self, key, raw: None)


@mutation
def session_table_not_in_the_snapshot(patch: Patch) -> None:
    """A snapshot carries the records, but no results of sessions."""
    original = SnapshotSource._walk

    def walk(self: SnapshotSource) -> Any:
        for table, key, value in original(self):
            if table is not Table.STATE or key[:1] not in (b"s", b"p"):
                yield table, key, value

    patch(SnapshotSource, "_walk", walk)


@mutation
def names_not_in_the_snapshot(patch: Patch) -> None:
    """A snapshot lacks the table by value id."""
    tables = (Table.STATE, Table.RECORD, Table.EXPIRY)
    patch(snapshot, "TABLES", tables)


@mutation
def refusal_consumes_the_sequence(patch: Patch) -> None:
    """A refusal by barrier, boot, holders or epoch is remembered as the result."""
    patch(machine_module, "_NOT_CONSUMED", (OutcomeKind.NEEDS_VALUE,))


@mutation
def results_forgotten_too_early(patch: Patch) -> None:
    """When the low mark moves, results of later sequences are forgotten with the earlier ones."""
    original = Session.advance

    def advance(self: Session, low: int, rows: Any) -> None:
        original(self, low, rows)
        self.results.clear()

    patch(Session, "advance", advance)


# -- reads and time ----------------------------------------------------------------------------


@mutation
def reads_without_a_quorum(patch: Patch) -> None:
    """A node answers from what it has applied."""

    def execute(self: ReadServer, operation: Any, deadline: float, future: Any) -> None:
        self._serve(operation, deadline, future)

    patch(ReadServer, "execute", execute)


@mutation
def reads_before_the_index_is_applied(patch: Patch) -> None:
    """A confirmed read is served at once, however far behind this node is."""
    original = ReadRounds.confirmed

    def confirmed(self: ReadRounds, token: int, slot: int) -> None:
        original(self, token, min(slot, 0))

    patch(ReadRounds, "confirmed", confirmed)


@mutation
def expiry_by_the_local_clock(patch: Patch) -> None:
    """A key is gone when this node's clock says so."""
    original = Replica.tick

    def tick(self: Replica, wall_ms: int) -> None:
        original(self, wall_ms)
        keyspace = self.machine.keyspace  # type: ignore[attr-defined]
        keyspace.log_time_ms = wall_ms

    patch(Replica, "tick", tick)


@mutation
def a_shard_is_taken_for_another(patch: Patch) -> None:
    """A reader believes the seat instead of the number that the piece says."""
    original = gather.Gather.on_given

    def on_given(self: Any, given: Any) -> None:
        request = self._requests.get(given.request)
        if request is not None and request.ordinal < self._record.size:
            given = given._replace(shard=request.ordinal)
        original(self, given)

    patch(gather.Gather, "on_given", on_given)


# -- directories and members -------------------------------------------------------------------


@mutation
def same_identity_after_amnesia(patch: Patch) -> None:
    """A directory made anew takes the incarnation of the seat: it votes, having forgotten."""

    def opened(engine: Any, cluster: bytes, ordinal: int, fresh: int) -> DirectoryIdentity:
        return open_identity(engine, cluster, ordinal, 1000 + ordinal)

    patch(member_host, "open_identity", opened)


@mutation
def boot_not_durable(patch: Patch) -> None:
    """The count of starts is written, and not flushed before its value ids are used."""

    def opened(engine: Any, cluster: bytes, ordinal: int, fresh: int) -> DirectoryIdentity:
        engine.flush = lambda: None
        try:
            return open_identity(engine, cluster, ordinal, fresh)
        finally:
            del engine.flush

    patch(member_host, "open_identity", opened)


@mutation
def records_kept_in_memory_over_a_snapshot(patch: Patch) -> None:
    """What was remembered of the records is not forgotten when a snapshot replaces them."""
    original = SnapshotReceiver.on_piece

    def on_piece(self: SnapshotReceiver, ordinal: int, piece: Any) -> None:
        machine = self._seat.machine
        reload = machine.reload

        def keep_the_records() -> None:
            young = dict(machine.keyspace.records._young)
            reload()
            machine.keyspace.records._young = young

        machine.reload = keep_the_records  # type: ignore[method-assign]
        try:
            original(self, ordinal, piece)
        finally:
            machine.reload = reload  # type: ignore[method-assign]

    patch(SnapshotReceiver, "on_piece", on_piece)


@mutation
def acknowledged_when_proposed(patch: Patch) -> None:
    """Consensus messages that wait for the flush leave before it."""
    original = Seat.advance

    def advance(self: Seat, out: Any) -> Any:
        result = original(self, out)
        held = [m for m in out.messages_after_flush if m.lane is Lane.CONTROL]
        out.messages += [Outgoing(*m) for m in held]
        out.messages_after_flush = [m for m in out.messages_after_flush if m not in held]
        return result

    patch(Seat, "advance", advance)
