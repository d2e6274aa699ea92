"""Rotten rows of a running node that are not shards: metadata, and the log.

What the process remembers is written again: the log, promises and identity are in memory
whole, and so are most small rows. Rows of the replicated state that are not remembered are
asked of all peers (`row_exchange`). By turns with that, for what they cannot give, the state is
taken anew from one of them, as a snapshot of a slot that is not below the own one; while it is
on its way this node applies nothing, so it never goes back in time. It votes and accepts as
before: what it promised and accepted did not rot, or it could not run at all.

A read that meets a rotten row waits for that; an entry that would need one is not applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.core.ready import Ready
from distkv.errors import Corrupt, DeadlineExceeded, DistKVError
from distkv.kernel import Future, TimedOut
from distkv.machine.records import encode_record
from distkv.machine.snapshot import TABLES
from distkv.member.identity import own_row
from distkv.member.messages import RowsGiven
from distkv.member.row_exchange import Row, RowExchange
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


class Healer:
    """One for each seat. `rotten`: rows of the state that wait to be replaced, and the slot from
    which on each is what it is now."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._engine: Engine = seat.owner.engine
        self.rotten: dict[Row, int] = {}
        self.exchange = RowExchange(seat)
        self._without: set[int] = set()
        """Peers that had no sound state to give, or an older one, since the first of these."""
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
        self._healed: Future[None] = Future()
        self._stuck = False
        """The next entry to apply needs a rotten row."""
        self._next_ordinal = 0
        self._states_next = False
        """Rows were asked for last, and now it is a whole state's turn."""
        self._ask_at = 0.0

    @property
    def waiting(self) -> bool:
        """A part of the state cannot be read until a peer gave its own."""
        return bool(self.rotten)

    def on_rot(self, table: Table, key: bytes) -> None:
        """A row fails its checksum. Idempotent while it waits to be replaced."""
        if (table, key) in self.rotten:
            return
        self.found[table.name] = self.found.get(table.name, 0) + 1
        if self._from_memory(table, key):
            self.mended += 1
        elif table in TABLES:
            if not self.rotten:
                self._without.clear()
                self._givers.clear()
                self._states_next = False
            self.rotten[table, key] = self._seat.machine.drained
            self._ask_at = 0.0
        else:
            detail = f"row {key!r} of table {table.name} is damaged and nobody remembers it"
            self._seat.owner.suspect("own disk", "rotten row", detail)

    def _from_memory(self, table: Table, key: bytes) -> bool:
        seat = self._seat
        if seat.replica.rewrite(table, key):
            return True
        row: bytes | None = None
        if table is Table.RECORD:
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

    def ready(self) -> Ready | None:
        """The replica's next output. An entry that needs a rotten row waits, unapplied."""
        replica = self._seat.replica
        while True:
            try:
                return replica.ready()
            except CorruptRow as rot:
                self.on_rot(rot.table, rot.key)
                replica.held = self._stuck = (rot.table, rot.key) in self.rotten

    # -- what peers have

    def poll(self, now: float) -> None:
        """Ask those that are up, until the rows or a whole state came."""
        seat = self._seat
        if seat.receiver.active:
            return
        seat.replica.held = self._stuck  # a transfer that failed held it
        if not self.rotten or now < self._ask_at:
            return
        self._ask_at = now + WAIT_SECONDS
        up = [m.ordinal for m in seat.machine.configuration.members if m != seat.member]
        up = [ordinal for ordinal in up if ordinal in seat.owner.peers.up]
        self._states_next = not self._states_next
        if self._states_next and self.exchange.ask(up, self.rotten):
            return
        self._states_next = False
        self._ask_for_state(up, now)

    def _ask_for_state(self, up: list[int], now: float) -> None:
        seat = self._seat
        if seat.replica.is_leader:
            successor = seat.best_successor()
            if successor is not None:
                seat.replica.transfer(successor)
        if up:
            self._next_ordinal += 1
            seat.receiver.take_anew(up[self._next_ordinal % len(up)], now)

    def on_given(self, ordinal: int, given: RowsGiven) -> None:
        """A peer has rows that were asked for."""
        if self.exchange.on_given(given, self.rotten):
            self._givers.add(ordinal)
            self._seat.owner.poke()

    def turn_ended(self, changed: list[StorageOperation]) -> list[StorageOperation]:
        """`changed`: rows that the log replaces in this turn. Returns those that peers gave."""
        waited = len(self.rotten)
        for operation in changed:
            if isinstance(operation, DeleteRange):
                table, start, end = operation
                for row in [r for r in self.rotten if r[0] is table and start <= r[1] < end]:
                    del self.rotten[row]
            else:
                self.rotten.pop((operation.table, operation.key), None)
        mended = self.exchange.usable(self.rotten, self._seat.machine.drained)
        for table, key, _ in mended:
            del self.rotten[table, key]
        self.rows_taken += len(mended)
        if mended:  # the next ones, while this works
            self._states_next, self._ask_at = False, 0.0
        self.mended += waited - len(self.rotten)
        if len(self.rotten) < waited:
            self._stuck = False
            if not self._seat.receiver.active:  # else `poll` looks at it when that has ended
                self._seat.replica.held = False
            if not self.rotten:
                self._all_sound()
                self._seat.data.rows_mended()
        return [*mended]

    def installed(self) -> None:
        """The state was replaced by a peer's."""
        self._seat.replica.held = self._stuck = False
        if self.rotten:
            self.states_taken += 1
            self.rotten.clear()
            self._all_sound()

    def _all_sound(self) -> None:
        healed, self._healed = self._healed, Future()
        healed.set_result(None)

    async def wait(self, deadline: float) -> None:
        """Until the rows that are rotten now are sound. Raises `too_late` at the deadline."""
        if not self.rotten:
            return
        try:
            await self._seat.kernel.within(deadline, self._healed)
        except TimedOut:
            raise self.too_late() from None

    def refused(self, ordinal: int) -> None:
        """This peer was asked for its state, and has none that would do."""
        self._without.add(ordinal)

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
