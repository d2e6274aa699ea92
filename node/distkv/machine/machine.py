"""The replicated state machine: what the log means, in rows of a storage engine.

All state is in the tables STATE, RECORD, NAME and EXPIRY. After every turn the caller
writes `drain_writes()` in one atomic batch, so a crash leaves the state of some applied
slot exactly, and `Machine.load` goes on from there.
"""

from __future__ import annotations

from typing import Any

import msgpack

from distkv.core.configuration import Configuration
from distkv.ids import Ballot, ValueId, node_session
from distkv.machine import commands as c
from distkv.machine import parsing
from distkv.machine.interface import (
    NOT_CONSUMED,
    BarrierRaised,
    Booted,
    ChangeRefused,
    ConfigurationChanged,
    Event,
    Formed,
    Outcome,
    OutcomeKind,
    Record,
    Settled,
)
from distkv.machine.keyspace import Keyspace
from distkv.machine.membership import CONFIGURATION_ROW, Boot, Membership, Options, Refused
from distkv.machine.once import Once
from distkv.machine.rows import HEAD_ROW, Rows
from distkv.machine.sessions import NODE, OPENED, Sessions, weigh
from distkv.machine.snapshot import check_not_installing, is_installing
from distkv.machine.writes import VALUE_ID_AT, execute
from distkv.storage.base import Engine, StorageOperation, Table

FORMAT = 2
LEAP_MS = 60_000
"""Log time that passes between two entries counts no more than this for idempotency keys."""
_new = tuple.__new__
_APPLIED = OutcomeKind.APPLIED
_REFUSED = OutcomeKind.REFUSED

Fields = tuple[Any, ...]


def _same(raw: bytes) -> bytes:
    return raw


class Machine:
    """Implements machine.interface.StateMachine. Make one with `found` or `load`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._outcomes: list[Outcome] = []
        self._events: list[Event] = []
        self._broken = False
        self._reset()

    def _reset(self) -> None:
        self.applied = 0
        self.barrier = Ballot(0, 0, 0)
        self.log_time_ms = 0
        self._steady_ms = 0
        """Log time without what a leader's clock leapt ahead: what idempotency keys live by,
        whose clients may still try again however a clock jumped."""
        self._drained = -1
        self._sessions_due = 0
        self._rows: Rows[bytes] = Rows(self._engine, Table.STATE, _same, _same)
        self.membership = Membership(self._rows)
        self.keyspace = Keyspace(self._engine, self.membership, self._events)

    @classmethod
    def found(
        cls,
        engine: Engine,
        cluster: bytes,
        owner: str,
        configuration: Configuration,
        options: Options | None = None,
    ) -> Machine:
        """The state at slot 0; `drain_writes` holds its rows. Raises ValueError."""
        assert not is_founded(engine), "a directory is founded once"
        machine = cls(engine)
        machine.membership.found(cluster, owner, configuration, options or Options())
        machine._derive()
        return machine

    @classmethod
    def load(cls, engine: Engine) -> Machine:
        """The state at the engine's applied slot.

        Raises InstallInterrupted if a snapshot was only half installed, UnknownEntry for
        rows of a newer version.
        """
        machine = cls(engine)
        machine.reload()
        return machine

    def reload(self) -> None:
        """Forget everything in memory and read the engine's rows (after an installed snapshot).

        Undrained outcomes and events are dropped; `state_events` tells what is true now.
        """
        check_not_installing(self._engine)
        self._outcomes.clear()
        self._events.clear()
        self._reset()
        raw = self._rows.get(HEAD_ROW)
        assert raw is not None, "the directory was never founded"
        version, *head = msgpack.unpackb(raw, use_list=False)
        if version != FORMAT:
            raise c.UnknownEntry(f"the state has format {version}, this version reads {FORMAT}")
        self.applied, self.log_time_ms, revision, rows, once, barrier, self._steady_ms = head
        self.barrier = Ballot(*barrier)
        self.membership.load()
        self.keyspace.revision, self.keyspace.rows = revision, rows
        self.keyspace.log_time_ms = self.log_time_ms
        self._derive()
        self._sessions.load()
        self._once.count = once
        self._drained = self.applied
        self._broken = False

    def _derive(self) -> None:
        options = self.membership.options
        self.options = options
        self.configuration = self.membership.configuration
        self.formed = self.membership.formed
        self._sessions = Sessions(self._rows, options.session_idle_ms)
        self._once = Once(self._rows, options.once_life_ms)

    # -- applying ------------------------------------------------------------------------

    def apply(self, slot: int, entry: bytes) -> None:
        """Apply the entry of slot applied + 1. Raises UnknownEntry: halt the node, and
        CorruptRow: nothing was changed, and it can be tried again once the row is mended."""
        assert slot == self.applied + 1, f"slot {slot} does not follow {self.applied}"
        assert not self._broken, "an entry failed half way: load again"
        kind, stamp = c.entry_kind(entry), c.entry_stamp(entry)
        batch: list[Fields] = []
        if kind == c.BATCH:
            batch = parsing.parse_batch(entry)
            self._read_ahead(batch, max(stamp, self.log_time_ms))
        elif kind == c.BARRIER:
            ballot = parsing.parse_barrier(entry)
        elif kind == c.CONFIGURATION:
            change = parsing.parse_change(entry)
            self.membership.read_ahead(change)
        # From here on nothing may fail: a half applied entry is never drained.
        self._broken = True
        if stamp > self.log_time_ms:
            self._steady_ms = self._steady_at(stamp)
            self.log_time_ms = self.keyspace.log_time_ms = stamp
        if kind == c.BATCH:
            self._apply_batch(slot, batch)
        elif kind == c.BARRIER and ballot > self.barrier:
            self.barrier = ballot
            self._events.append(BarrierRaised(ballot))
        elif kind == c.CONFIGURATION:
            self._apply_change(slot, change)
        self._sessions.end_entry(slot)
        self.applied = slot
        self._broken = False

    def _steady_at(self, stamp_ms: int) -> int:
        return self._steady_ms + min(stamp_ms - self.log_time_ms, LEAP_MS)

    def _read_ahead(self, batch: list[Fields], log_time_ms: int) -> None:
        """Meet rotten rows before anything is changed. Raises CorruptRow: apply it later."""
        records = self.keyspace.records
        ticks = touched = 0
        flushes = False
        for command in batch:
            if command[0] == c.WRITE:
                touched += len(command[5])
                for mutation in command[5]:
                    if mutation[0] == c.FLUSH:
                        flushes = True
                    else:
                        records.get(mutation[1])
                    at = VALUE_ID_AT.get(mutation[0])
                    if at is not None:
                        self.keyspace.names.get(mutation[at])
                if command[4]:
                    self._once.read_ahead(command[1])
            elif command[0] == c.TICK:
                ticks += 1
        if ticks or flushes:
            self.keyspace.read_due(log_time_ms, ticks, 2 * touched)
        if flushes:
            self.keyspace.read_flushed(log_time_ms)
        if ticks:
            steady = self._steady_at(log_time_ms)
            self._once.read_due(steady, ticks, touched)

    def _apply_batch(self, slot: int, batch: list[Fields]) -> None:
        for command in batch:
            if command[0] == c.WRITE:
                _, key, sequence, low, implicit, mutations = command
                if implicit:
                    decision = self._write_once(slot, key, sequence, mutations)
                else:
                    decision = self._write(slot, key, sequence, low, mutations)
                self._outcomes.append(_new(Outcome, (key, sequence, *decision)))
            else:
                _APPLY[command[0]](self, command)

    def _write(
        self, slot: int, key: bytes, sequence: int, low: int, mutations: tuple[Fields, ...]
    ) -> tuple[OutcomeKind, object]:
        session = self._sessions.find(key, self.log_time_ms)
        if session is None:
            return OutcomeKind.UNKNOWN_SESSION, "no such session"
        # A mark above the own sequence counts only up to it, and no mark ever goes back.
        if low > session.low and sequence > session.low:
            session.advance(min(low, sequence), self._rows)
        stored = session.results.get(sequence)
        if stored is not None:
            return stored
        if sequence < session.low:
            return OutcomeKind.UNKNOWN_SESSION, "this sequence number was answered before"
        if not self.formed:
            return _REFUSED, "not_formed"
        if session.full(sequence):
            return _REFUSED, "window"
        decision = execute(mutations, slot, self.barrier, self.membership, self.keyspace)
        if decision[0] not in NOT_CONSUMED:
            session.store(sequence, *decision, weigh(decision[1]))
            self._sessions.stored(session)
        return decision

    def _write_once(
        self, slot: int, key: bytes, sequence: int, mutations: tuple[Fields, ...]
    ) -> tuple[OutcomeKind, object]:
        stored = self._once.find(key, self._steady_ms)
        if stored is not None:
            if stored.sequence == sequence:
                return stored.kind, stored.detail
            return OutcomeKind.UNKNOWN_SESSION, "an idempotency key has one sequence number"
        if not self.formed:
            return _REFUSED, "not_formed"
        if self._once.full:
            return _REFUSED, "sessions"
        decision = execute(mutations, slot, self.barrier, self.membership, self.keyspace)
        if decision[0] not in NOT_CONSUMED:
            self._once.store(key, sequence, *decision, self._steady_ms)
        return decision

    def _boot(self, command: Fields) -> None:
        _, incarnation, ordinal, boot, start = command
        session = node_session(incarnation, boot)
        known = self.membership.boots.get(incarnation)
        if self.membership.seat_of(incarnation) != ordinal:
            self._outcomes.append(Outcome(session, 0, _REFUSED, "coordinator"))
            return
        if known is not None and (
            boot < known.boot or (boot == known.boot and start != known.start)
        ):
            self._outcomes.append(Outcome(session, 0, _REFUSED, "boot"))
            return
        if known is None or boot > known.boot:
            if known is not None:
                self._sessions.close_node(incarnation, known.boot)
            self.membership.set_boot(incarnation, Boot(ordinal, boot, 0, start))
            self._sessions.open(session, NODE, self.log_time_ms)
            self._events.append(Booted(incarnation, boot))
        self._outcomes.append(Outcome(session, 0, _APPLIED, [True]))

    def _settled(self, command: Fields) -> None:
        _, incarnation, boot, counter = command
        known = self.membership.boots.get(incarnation)
        if known is not None and known.boot == boot and counter > known.settled:
            self.membership.set_boot(incarnation, known._replace(settled=counter))
            self._events.append(Settled(incarnation, boot, counter))

    def _open(self, command: Fields) -> None:
        session = command[1]
        if self._sessions.open(session, OPENED, self.log_time_ms):
            self._outcomes.append(Outcome(session, 0, _APPLIED, [True]))
        elif self._sessions.has_ended(session):
            self._outcomes.append(Outcome(session, 0, OutcomeKind.UNKNOWN_SESSION, "it has ended"))
        else:
            self._outcomes.append(Outcome(session, 0, _REFUSED, "sessions"))

    def _tick(self, command: Fields) -> None:
        self.keyspace.expire()
        self._once.expire(self._steady_ms)
        self._sessions.expire(self.log_time_ms)

    def _form(self, command: Fields) -> None:
        if self.membership.form(*command[1:]):
            self.formed = True
            self._events.append(Formed())

    def _apply_change(self, slot: int, change: Fields) -> None:
        boots = dict(self.membership.boots)
        try:
            removed = self.membership.change(slot, change)
        except Refused as refused:
            self._events.append(ChangeRefused(slot, str(refused)))
            return
        for member in removed:
            if member.incarnation in boots:
                self._sessions.close_node(member.incarnation, boots[member.incarnation].boot)
        self.configuration = self.membership.configuration
        self._events.append(ConfigurationChanged(slot, self.configuration, removed))

    # -- draining ------------------------------------------------------------------------

    def drain_writes(self) -> list[StorageOperation]:
        """Rows changed since the last drain; to be written before anything else is read."""
        assert not self._broken, "a half applied entry must not become durable"
        writes: list[StorageOperation] = []
        if self._drained == self.applied:
            return writes
        self._drained = self.applied
        self._sessions.end_turn()
        self.membership.end_turn()
        self._rows.put(HEAD_ROW, self._head())
        self._rows.drain(writes)
        self.keyspace.drain(writes)
        return writes

    def _head(self) -> bytes:
        keyspace = self.keyspace
        head: bytes = msgpack.packb(
            (
                FORMAT,
                self.applied,
                self.log_time_ms,
                keyspace.revision,
                keyspace.rows,
                self._once.count,
                self.barrier,
                self._steady_ms,
            )
        )
        return head

    @property
    def drained(self) -> int:
        """The slot whose state the engine holds once all that was drained is written."""
        return self._drained

    def drain_outcomes(self) -> list[Outcome]:
        """Commands decided since the last drain, in log order."""
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def drain_events(self) -> list[Event]:
        """What the data plane must know, in log order."""
        events = self._events[:]
        self._events.clear()
        return events

    def state_events(self) -> list[Event]:
        """The present state as events: for the data plane after `load` and `reload`."""
        events: list[Event] = [BarrierRaised(self.barrier)]
        for incarnation, (_, boot, settled, _) in sorted(self.membership.boots.items()):
            events.append(Booted(incarnation, boot))
            events.append(Settled(incarnation, boot, settled))
        events.append(ConfigurationChanged(self.applied, self.configuration, ()))
        if self.formed:
            events.append(Formed())
        return events

    # -- reading -------------------------------------------------------------------------

    def record(self, key: bytes) -> Record | None:
        """The record as of log time. Raises CorruptRow."""
        return self.keyspace.get(key)

    def scan(
        self, start: bytes, end: bytes | None, prefix: bytes, limit: int
    ) -> list[tuple[bytes, Record]]:
        """Up to `limit` records in key order, start <= key < end, with the prefix."""
        return self.keyspace.scan(start, end, prefix, limit)

    def count(self) -> int:
        """Number of keys as of log time."""
        return self.keyspace.count()

    def key_of(self, value_id: ValueId) -> bytes | None:
        """The key whose record names this value."""
        return self.keyspace.names.get(value_id.pack())

    def next_expiry_ms(self) -> int | None:
        """When the next key expires (in the past: a tick is overdue)."""
        return self.keyspace.first_expiry_ms()

    def due(self, wall_ms: int) -> bool:
        """Whether a tick stamped `wall_ms` would remove anything (keys, sessions), or is needed
        for the time of idempotency keys to go on."""
        # An earlier leader's clock may have been ahead of this one: what is over by log time is.
        wall_ms = max(wall_ms, self.log_time_ms)
        first = self.keyspace.first_expiry_ms()
        if first is not None and first <= wall_ms:
            return True
        once = self._once.next_expiry_ms()
        if once is not None:
            still = wall_ms - self.log_time_ms >= LEAP_MS
            if still or once <= self._steady_at(wall_ms):
                return True
        # Uses only move a session's end away, so an old answer stays a lower bound.
        if wall_ms < self._sessions_due:
            return False
        idle = self._sessions.next_expiry_ms()
        self._sessions_due = wall_ms + self.options.session_idle_ms if idle is None else idle
        return idle is not None and idle <= wall_ms


_APPLY = {
    c.BOOT: Machine._boot,
    c.SETTLED: Machine._settled,
    c.OPEN: Machine._open,
    c.TICK: Machine._tick,
    c.FORMED: Machine._form,
}


def is_founded(engine: Engine) -> bool:
    """Whether the engine holds a state (or half a snapshot of one)."""
    return engine.get(Table.STATE, CONFIGURATION_ROW) is not None or is_installing(engine)
