"""A snapshot of the metadata, in pieces, from any peer: for a node the log cannot help.

The receiver pulls one piece at a time and stages it on disk; the old state stays in use.
With the last piece the staged rows replace the state in one go. A crash in the middle of
that leaves the mark `installing` and all stages: `finish_install` does it again at start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.core.log import forget_below
from distkv.machine.snapshot import (
    SnapshotError,
    SnapshotSink,
    SnapshotSource,
    is_installing,
    slot_of,
)
from distkv.member.messages import SnapshotPiece, SnapshotWanted
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

PIECE_TIMEOUT_SECONDS = 1.0
TRIES_MAX = 5
SERVED_MAX = 4
"""Snapshots given at once; each pins a view of the engine."""
SERVED_IDLE_SECONDS = 30.0


class SnapshotServer:
    """Gives pieces of views of the own state."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._sources: dict[tuple[int, int], tuple[SnapshotSource, float]] = {}

    def on_wanted(self, ordinal: int, wanted: SnapshotWanted) -> None:
        """Answer with the piece, or with an empty one if it cannot be had here."""
        key = (ordinal, wanted.transfer)
        self._drop_idle()
        source, piece = None, None
        try:
            source = self._source(key, wanted.piece)
            piece = None if source is None else source.piece(wanted.piece)
        except CorruptRow as rot:
            self._seat.healer.met(rot)
            if source is not None:
                self._sources.pop(key)[0].close()
        if source is None or piece is None:
            answer = SnapshotPiece(wanted.transfer, wanted.piece, 0, False, b"")
        else:
            body, last = piece
            answer = SnapshotPiece(wanted.transfer, wanted.piece, source.slot, last, body)
        self._seat.owner.send(ordinal, answer)

    def _source(self, key: tuple[int, int], piece: int) -> SnapshotSource | None:
        now = self._seat.kernel.now
        found = self._sources.get(key)
        if found is not None:
            self._sources[key] = (found[0], now)
            return found[0]
        if piece != 0:
            return None
        for other in [other for other in self._sources if other[0] == key[0]]:
            self._sources.pop(other)[0].close()  # whoever begins again wants no more of that
        if len(self._sources) >= SERVED_MAX:
            return None
        if self._seat.healer.waiting:
            return None
        view = self._seat.owner.engine.view()
        try:
            source = SnapshotSource(view)
        except CorruptRow:
            view.close()
            raise
        self._sources[key] = (source, now)
        return source

    def _drop_idle(self) -> None:
        now = self._seat.kernel.now
        for key, (source, used) in list(self._sources.items()):
            if now - used > SERVED_IDLE_SECONDS:
                source.close()
                del self._sources[key]

    def close(self) -> None:
        """Release every view."""
        for source, _ in self._sources.values():
            source.close()
        self._sources.clear()


class SnapshotReceiver:
    """Fetches and installs a snapshot when the replica says it needs one."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        self._transfer = 0
        self._peer = -1
        self._sink = SnapshotSink()
        self._asked_at = 0.0
        self._tries = 0
        self._anew = False

    @property
    def active(self) -> bool:
        """A snapshot is on its way."""
        return self._peer >= 0

    @property
    def anew(self) -> bool:
        """It is to replace a state that is damaged, not one that is behind."""
        return self.active and self._anew

    def poll(self, now: float) -> None:
        """Begin, ask again, or take another peer."""
        if self._peer < 0:
            peer = self._seat.replica.needs_snapshot
            if peer is not None:
                self._anew = False
                self._begin(peer, now)
        elif now - self._asked_at > PIECE_TIMEOUT_SECONDS:
            self._tries += 1
            if self._tries > TRIES_MAX or self._peer not in self._seat.owner.peers.up:
                self.give_up()
            else:
                self._ask(now)

    def take_anew(self, peer: int, now: float) -> None:
        """The own state is damaged: replace it by one that is not older."""
        assert not self.active, "one at a time"
        self._anew = True
        self._begin(peer, now)

    def _begin(self, peer: int, now: float) -> None:
        self._transfer += 1
        self._peer = peer
        self._sink = SnapshotSink()
        self._tries = 0
        if self._written([UNSTAGE]):
            self._ask(now)

    def _written(self, operations: list[StorageOperation]) -> bool:
        """False: the disk is full; the transfer ends, and another begins later."""
        try:
            self._seat.owner.write_now(operations)
        except StorageFull:
            self.give_up()
        return self.active

    def give_up(self) -> None:
        """Whatever else of it comes is not taken."""
        self._peer = -1

    def peer_down(self, ordinal: int) -> None:
        """Nothing comes from this peer now. What it gave already is kept for a moment."""
        if ordinal == self._peer and self._sink.number == 0:
            self.give_up()

    def peer_up(self, ordinal: int, now: float) -> None:
        """What this peer was asked for on another connection may be lost."""
        if ordinal == self._peer:
            self._ask(now)

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._seat.owner.send(self._peer, SnapshotWanted(self._transfer, self._sink.number))

    def on_piece(self, ordinal: int, piece: SnapshotPiece) -> None:
        """Stage it and ask for the next one; the last makes the new state."""
        seat = self._seat
        expected = (self._peer, self._transfer, self._sink.number)
        if (ordinal, piece.transfer, piece.piece) != expected:
            return
        least = seat.machine.applied + (not self._anew)
        if not piece.body or piece.slot < least:
            self.give_up()  # not to be had there, or the log caught up meanwhile
            if self._anew and not piece.piece and not piece.body:
                seat.healer.refused(ordinal)
            return
        if self._anew:
            # While a damaged state is replaced, the own one must not get ahead of what comes.
            seat.replica.held = True
        try:
            self._sink.take(piece.body)
        except SnapshotError as error:
            seat.owner.suspect(f"node {ordinal}", "damaged_snapshot", str(error))
            self.give_up()
            return
        if not self._written([Put(Table.META, stage_of(piece.piece), piece.body)]):
            return
        self._tries = 0
        if self._sink.done:
            self.give_up()
            try:
                finish_install(seat.owner.engine)
            except StorageFull:
                if is_installing(seat.owner.engine):
                    raise  # the old state is gone; the next start goes on with it
                return
            seat.healer.states_taken += self._anew
            seat.installed(piece.slot)
        else:
            self._ask(seat.kernel.now)


_STAGE = b"stage"
UNSTAGE = DeleteRange(Table.META, _STAGE, _STAGE + b"\xff" * 5)
"""Forget what was staged."""


def stage_of(number: int) -> bytes:
    """Where a piece is staged, in table META."""
    return _STAGE + number.to_bytes(4, "big")


def finish_install(engine: Engine) -> None:
    """Make the staged snapshot the state. Idempotent: begins by removing what is there.

    What was accepted in slots that the new state covers may not be what was chosen there. It goes
    with the last batch: a start right after that would take it for chosen, and tell others.
    """
    sink = SnapshotSink()
    engine.write(sink.begin())
    while not sink.done:
        body = engine.get(Table.META, stage_of(sink.number))
        assert body is not None, "a snapshot is installed only when all its pieces are staged"
        rows = sink.take(body)
        if sink.done:
            rows += [UNSTAGE, forget_below(slot_of(engine) + 1)]
        engine.write(rows)
