"""Rotten rows of a running node that are not shards: metadata, and the log.

What the process remembers is written again: the log, promises and identity are in memory
whole, and so are most small rows. If a row of the replicated state is not remembered, the
state is taken anew from a peer, as a snapshot of a slot that is not below the own one; while
it is on its way this node applies nothing, so it never goes back in time. It votes and accepts
as before: what it promised and accepted did not rot, or it could not run at all.

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
from distkv.storage.base import CorruptRow, Engine, Put, StorageFull, Table

if TYPE_CHECKING:
    from distkv.member.seat import Seat

WAIT_SECONDS = 0.5
"""Before another peer is asked for its state."""


class Healer:
    """One for each seat. `rotten`: rows of the state that wait to be replaced."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._engine: Engine = seat.owner.engine
        self.rotten: dict[tuple[Table, bytes], None] = {}
        self._without: set[int] = set()
        """Peers that had no sound state to give, or an older one, since the first of these."""
        self.found: dict[str, int] = {}
        """Rotten rows met since the start, by table."""
        self.mended = 0
        """Of those, written again from memory."""
        self.states_taken = 0
        """Times the whole state was taken anew from a peer."""
        self._healed: Future[None] = Future()
        self._stuck = False
        """The next entry to apply needs a rotten row."""
        self._next_ordinal = 0
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
            self.rotten[table, key] = None
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

    # -- taking the state anew

    def poll(self, now: float) -> None:
        """Ask the next peer that is up, until one gives its state."""
        seat = self._seat
        if not self.rotten or seat.receiver.active:
            return
        seat.replica.held = self._stuck  # a transfer that failed held it
        if now < self._ask_at:
            return
        self._ask_at = now + WAIT_SECONDS
        if seat.replica.is_leader:
            successor = seat.best_successor()
            if successor is not None:
                seat.replica.transfer(successor)
        up = [m.ordinal for m in seat.machine.configuration.members if m != seat.member]
        up = [ordinal for ordinal in up if ordinal in seat.owner.peers.up]
        if up:
            self._next_ordinal += 1
            seat.receiver.take_anew(up[self._next_ordinal % len(up)], now)

    def installed(self) -> None:
        """The state was replaced by a peer's."""
        self._seat.replica.held = self._stuck = False
        if self.rotten:
            self.states_taken += 1
            self.rotten.clear()
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
        if others <= self._without:
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
