"""Known mistakes in the replicated state, reads, time, directories and members."""

from __future__ import annotations

from typing import Any

from simulation.full.mutating import Patch, mutation

from distkv.core.replica import Replica
from distkv.data import gather
from distkv.machine import machine as machine_module
from distkv.machine import snapshot
from distkv.machine.interface import OutcomeKind
from distkv.machine.machine import Machine
from distkv.machine.sessions import Session, Sessions
from distkv.machine.snapshot import SnapshotSource
from distkv.member.catchup import SnapshotReceiver
from distkv.member.identity import DirectoryIdentity, open_identity
from distkv.member.output import Outgoing
from distkv.member.reading import ReadServer
from distkv.member.reads import ReadRounds
from distkv.member.row_exchange import RowExchange
from distkv.member.seat import Seat
from distkv.member.writing import Writer
from distkv.simulation import member_host
from distkv.storage.base import Table
from distkv.transport.base import Lane

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
    patch(Sessions, "_load_page", lambda self, session, page, results: None)


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
    patch(machine_module, "NOT_CONSUMED", (OutcomeKind.NEEDS_VALUE,))


@mutation
def computed_under_a_new_number(patch: Patch) -> None:
    """What had to be read first is put under another number than the command that said so."""
    original = Writer._with_old_value

    async def with_old_value(self: Writer, write: Any, identity: Any, deadline: float) -> Any:
        self._answered(identity)
        return await original(self, write, self._identify(write), deadline)

    patch(Writer, "_with_old_value", with_old_value)


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

    def tick(self: Replica, wall_ms: int, ticks: int) -> None:
        original(self, wall_ms, ticks)
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
    original = SnapshotReceiver._complete

    def complete(self: SnapshotReceiver, slot: int) -> None:
        machine = self._seat.machine
        reload = machine.reload

        def keep_the_records() -> None:
            young = dict(machine.keyspace.records._young)
            reload()
            machine.keyspace.records._young = young

        machine.reload = keep_the_records  # type: ignore[method-assign]
        try:
            original(self, slot)
        finally:
            machine.reload = reload  # type: ignore[method-assign]

    patch(SnapshotReceiver, "_complete", complete)


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


@mutation
def rows_of_any_slot_taken(patch: Patch) -> None:
    """A rotten row is replaced by a peer's of a state that is not the own one."""
    original = RowExchange.usable
    patch(
        RowExchange,
        "usable",
        lambda self, rotten, _: original(self, dict.fromkeys(rotten, 0), 1 << 62),
    )
