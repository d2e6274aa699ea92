"""Rotten rows of a running node that are not shards: metadata, and the log.

What the process remembers is written again: the log, promises and identity are in memory
whole, and so are most small rows. Rows of the replicated state that are not remembered are
asked of all peers (`row_exchange`). By turns with that, for what they cannot give, the state is
taken anew from one of them, as a snapshot of a slot that is not below the own one; while it is
on its way this node applies nothing, so it never goes back in time. It votes and accepts as
before: what it promised and accepted did not rot, or it could not run at all.

A single row does not always help: an engine whose block is damaged names a sound row next to it
when it walks, and many rows one by one take longer than all of them at once. Then, too, the
state is taken anew. If that did not help either, the disk is reported and tried again seldom.

A read that meets a rotten row waits for it; an entry that would need one is not applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.core.ready import Ready
from distkv.errors import Corrupt, DeadlineExceeded, DistKVError
from distkv.kernel import Future, TimedOut
from distkv.machine.records import encode_record
from distkv.machine.snapshot import TABLES, slot_of
from distkv.member.identity import own_row
from distkv.member.messages import RowsGiven
from distkv.member.row_exchange import NEVER, Row, RowExchange
from distkv.member.staging import is_staged
from distkv.storage.base import (
    CorruptRow,
    DeleteRange,
    Engine,
    Put,
    StorageFull,
    StorageOperation,
    Table,
)

if TYPE_CHECKING:
    from distkv.member.seat import Seat

WAIT_SECONDS = 0.5
"""Before peers are asked again."""
MANY = 16
"""So many rows are met without a pause of CALM_SECONDS: now a whole state is asked for, too."""
CALM_SECONDS = 10.0
AGAIN = 10
"""A row that is met so often, though it is sound or was mended, is not what is damaged."""
VAIN_SECONDS = 60.0
"""Until a state is asked for again, if the last one did not help."""
OFFICE_SECONDS = 10.0
"""A leader that asks for a state lets another lead, at most so often: perhaps nobody has one."""
_NOTED_MAX = 4096


class Healer:
    """One for each seat. `rotten`: rows of the state that wait to be replaced, and the slot from
    which on each is what it is now; NEVER if no row of a peer will do."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._engine: Engine = seat.owner.engine
        self.rotten: dict[Row, int] = {}
        self.exchange = RowExchange(seat)
        self._again: dict[Row, int] = {}
        """How often each was met since the last whole state without having to be waited for."""
        self._cured: tuple[float, frozenset[Row]] = (float("-inf"), frozenset())
        """When the last state was taken, and rows that only it could help."""
        self._not_before = self._leads_until = float("-inf")
        self._without: set[int] = set()
        """Peers that had no sound state to give since the first of these."""
        self._givers: set[int] = set()
        """Peers that have had a row sound that is rotten here, since then."""
        self.found: dict[str, int] = {}
        """Rotten rows met since the start, by table."""
        self.mended = 0
        """Of those, written again one by one."""
        self.rows_taken = 0
        """Of those, as a peer has them."""
        self.states_taken = 0
        """Times the whole state was taken anew from a peer."""
        self._fewer: Future[None] = Future()
        """Done when less is rotten."""
        self._stuck = False
        """The next entry to apply needs a rotten row."""
        self._next_ordinal = 0
        self._states_next = False
        """Rows were asked for last, and now it is a whole state's turn."""
        self._ask_at = 0.0
        self._met = 0
        """Rows that had to be waited for, without a pause."""
        self._met_at = float("-inf")

    @property
    def waiting(self) -> bool:
        """A part of the state cannot be read until a peer gave its own."""
        return bool(self.rotten)

    def on_rot(self, table: Table, key: bytes) -> None:
        """A row fails its checksum. Idempotent while it waits to be replaced."""
        row = (table, key)
        if row in self.rotten:
            return
        if table in TABLES:
            self._on_rotten_state(row)
            return
        self._count(table)
        if is_staged(table, key):
            self._seat.receiver.drop_stage()
            self.mended += 1
            detail = f"a staged piece of a snapshot, {key!r}, is damaged: another one is asked for"
            self._seat.owner.suspect("own disk", "rotten row", detail)
        elif self._from_memory(table, key):
            self.mended += 1
        else:
            detail = f"row {key!r} of table {table.name} is damaged and nobody remembers it"
            self._seat.owner.suspect("own disk", "rotten row", detail)

    def _on_rotten_state(self, row: Row) -> None:
        readable = self._is_readable(row)
        again = self._again.get(row, 0)
        if again < AGAIN:
            if readable and self._is_passable(row):
                self._seat.data.rows_mended()  # whoever walked ended there
                self._note(row)  # it was met before it was mended, or in an older view
                return
            if not readable and self._from_memory(*row):
                self._count(row[0])
                self.mended += 1
                self._note(row)
                return
        self._count(row[0])
        self._wait_for(row, NEVER if readable else self._seat.machine.drained)

    def _count(self, table: Table) -> None:
        self.found[table.name] = self.found.get(table.name, 0) + 1

    def _wait_for(self, row: Row, since: int) -> None:
        if self._now > self._met_at + CALM_SECONDS:
            self._met = 0
        self._met += 1
        self._met_at = self._now
        if not self.rotten:
            self._without.clear()
            self._givers.clear()
            self._states_next &= self._met > MANY
        self.rotten[row] = since
        self._ask_at = 0.0
        taken, cured = self._cured
        if since == NEVER and row in cured and self._now < taken + VAIN_SECONDS:
            self._not_before = self._now + VAIN_SECONDS
            detail = (
                f"table {row[0].name} is damaged at {row[1]!r} again, right after the whole state "
                "was taken anew: give this node another disk"
            )
            self._seat.owner.suspect("own disk", "rotten row", detail)

    @property
    def _now(self) -> float:
        return self._seat.kernel.now

    def _is_readable(self, row: Row) -> bool:
        try:
            self._engine.get(*row)
        except CorruptRow:
            return False
        return True

    def _is_passable(self, row: Row) -> bool:
        """Whether a walk gets past it: RocksDB names the row before a damaged block."""
        try:
            self._engine.scan(*row, None, 2)
        except CorruptRow as rot:
            return (rot.table, rot.key) != row  # else the next one is rotten itself
        return True

    def _note(self, row: Row) -> None:
        if len(self._again) >= _NOTED_MAX:
            self._again.clear()
        self._again[row] = self._again.get(row, 0) + 1

    def _from_memory(self, table: Table, key: bytes) -> bool:
        seat = self._seat
        if seat.replica.rewrite(table, key):
            return True
        row: bytes | None = None
        if table is Table.RECORD and self._is_written():
            record = seat.machine.keyspace.records.remembered(key)
            row = None if record is None else encode_record(record)
        elif table is Table.META:
            row = own_row(key, seat.identity, seat.founding)
        if row is None:
            return False
        try:
            # By itself and at once: what this turn changes comes behind it.
            self._engine.write([Put(table, key, row)])
        except StorageFull:
            return False
        return True

    def _is_written(self) -> bool:
        """Whether what was drained is in the engine: a batch may wait for space. What is
        remembered is newer than the state there is then, and must not get into it."""
        try:
            return slot_of(self._engine) == self._seat.machine.drained
        except CorruptRow:
            return False

    def ready(self) -> Ready | None:
        """The replica's next output. An entry that needs a rotten row waits, unapplied."""
        replica = self._seat.replica
        while True:
            try:
                return replica.ready()
            except CorruptRow as rot:
                # Not for ever: what does not help AGAIN times is waited for.
                self.on_rot(rot.table, rot.key)
                replica.held = self._stuck = (rot.table, rot.key) in self.rotten

    # -- what peers have

    def poll(self, now: float) -> None:
        """Ask those that are up, until the rows or a whole state came."""
        seat = self._seat
        if not seat.receiver.active:
            seat.replica.held = self._stuck  # a transfer that failed held it
        if not self.rotten or now < self._ask_at:
            return
        self._drop_sound()
        self._ask_at = now + WAIT_SECONDS
        up = [m.ordinal for m in seat.machine.configuration.members if m != seat.member]
        up = [ordinal for ordinal in up if ordinal in seat.owner.peers.up]
        self._states_next = not self._states_next
        if self._states_next and self.exchange.ask(up, self.rotten):
            return
        self._states_next = False
        if up and self.rotten and not seat.receiver.active and now >= self._not_before:
            self._hand_over(now)
            self._next_ordinal += 1
            seat.receiver.take_anew(up[self._next_ordinal % len(up)], now)

    def _hand_over(self, now: float) -> None:
        """Before the state comes: no peer's is as new as a leader's while clients write, and from
        its first piece on nothing is applied."""
        seat = self._seat
        if seat.replica.is_leader and now >= self._leads_until:
            self._leads_until = now + OFFICE_SECONDS
            successor = seat.best_successor()
            if successor is not None:
                seat.replica.transfer(successor)

    def _drop_sound(self) -> None:
        """What only a state could help may have been replaced by the log since."""
        for row in [row for row, since in self.rotten.items() if since == NEVER]:
            insisted = self._again.get(row, 0) >= AGAIN
            if not insisted and self._is_readable(row) and self._is_passable(row):
                del self.rotten[row]
                self._less_is_rotten()

    def on_given(self, ordinal: int, given: RowsGiven) -> None:
        """A peer has rows that were asked for."""
        if self.exchange.on_given(ordinal, given, self.rotten):
            self._givers.add(ordinal)
            self._seat.owner.poke()

    def turn_ended(self, changed: list[StorageOperation]) -> list[StorageOperation]:
        """`changed`: rows that the log replaces in this turn. Returns those that peers gave."""
        # Once each: what FLUSH removes may be put again in the same turn.
        gone = list(dict.fromkeys(row for o in changed for row in self._changed_by(o)))
        for row in gone:
            del self.rotten[row]
        given = self.exchange.usable(self.rotten, self._seat.machine.drained)
        for table, key, _ in given:
            del self.rotten[table, key]
            gone.append((table, key))
        self.rows_taken += len(given)
        self.mended += len(gone)
        if gone:
            for row in gone:
                self._note(row)
            if given and self._met <= MANY:  # the next ones, while this works
                self._states_next, self._ask_at = False, 0.0
            self._less_is_rotten()
        return [*given]

    def _changed_by(self, operation: StorageOperation) -> list[Row]:
        if isinstance(operation, DeleteRange):
            table, start, end = operation
            found = [row for row in self.rotten if row[0] is table and start <= row[1] < end]
        else:
            found = [(operation.table, operation.key)]
        return [row for row in found if self.rotten.get(row, NEVER) != NEVER]

    def _less_is_rotten(self) -> None:
        seat = self._seat
        self._stuck = False
        if not self.rotten and seat.receiver.anew and self._met <= MANY:
            seat.receiver.give_up()
        if not seat.receiver.active:  # else `poll` looks at it when that has ended
            seat.replica.held = False
        seat.data.rows_mended()
        self._wake()

    def installed(self) -> None:
        """The state was replaced by a peer's."""
        self._seat.replica.held = self._stuck = False
        self._again.clear()
        self.exchange.forget()
        self._met = 0
        if self.rotten:
            cured = frozenset(row for row, since in self.rotten.items() if since == NEVER)
            self._cured = (self._now, cured)
            self.rotten.clear()
            self._wake()

    def _wake(self) -> None:
        fewer, self._fewer = self._fewer, Future()
        fewer.set_result(None)

    async def wait(self, row: Row, deadline: float) -> bool:
        """Until it is sound; whether that took any waiting. Raises `too_late` at the deadline."""
        waited = False
        while row in self.rotten:
            waited = True
            try:
                await self._seat.kernel.within(deadline, self._fewer)
            except TimedOut:
                raise self.too_late() from None
        return waited

    def refused(self, ordinal: int) -> None:
        """This peer was asked for its state, and has none that would do."""
        self._without.add(ordinal)
        self._ask_at = 0.0

    def too_late(self) -> DistKVError:
        """What a read is told that waited for a row until its deadline."""
        seat = self._seat
        others = {m.ordinal for m in seat.machine.configuration.members if m != seat.member}
        if others <= self._without - self._givers:
            return Corrupt(
                "metadata on the disk of this node are damaged, and no node has a sound copy now"
            )
        return DeadlineExceeded(
            "metadata on the disk of this node are damaged, and no peer replaced them before the "
            "deadline; ask another node or try again"
        )

    def met(self, rot: CorruptRow) -> None:
        """Somebody read a rotten row."""
        self.on_rot(rot.table, rot.key)
