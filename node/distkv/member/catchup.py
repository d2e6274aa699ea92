"""A snapshot of the metadata, in pieces, from any peer: for a node the log cannot help.

The receiver pulls one piece at a time and stages it on disk; the old state stays in use.
With the last piece the staged rows replace the state in one go (`staging`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from distkv.machine.snapshot import SnapshotSource, is_installing
from distkv.member.messages import SnapshotPiece, SnapshotWanted
from distkv.member.staging import StageLost, Transfer, finish_install
from distkv.storage.base import CorruptRow, StorageFull, Table

if TYPE_CHECKING:
    from distkv.member.seat import Seat

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


class SnapshotReceiver(Transfer):
    """Fetches and installs a snapshot when the replica says it needs one."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(seat.owner)
        self._seat = seat
        self._anew = False

    @property
    def anew(self) -> bool:
        """It is to replace a state that is damaged, not one that is behind."""
        return self.active and self._anew

    def poll(self, now: float) -> None:
        """Begin, ask again, or take another peer."""
        if self.active:
            self._ask_again(now)
            return
        peer = self._seat.replica.needs_snapshot
        if peer is not None:
            self._anew = False
            self._begin(peer, now)

    def take_anew(self, peer: int, now: float) -> None:
        """The own state is damaged: replace it by one that is not older."""
        assert not self.active, "one at a time"
        self._anew = True
        self._begin(peer, now)

    def peer_down(self, ordinal: int) -> None:
        """Nothing comes from this peer now. What it gave already is kept for a moment."""
        if ordinal == self._peer and self._sink.number == 0:
            self.give_up()

    def peer_up(self, ordinal: int, now: float) -> None:
        """What this peer was asked for on another connection may be lost."""
        if ordinal == self._peer:
            self._ask(now)

    def _least(self) -> int:
        return self._seat.machine.applied + (not self._anew)

    def _refused(self, piece: SnapshotPiece, ordinal: int) -> None:
        if self._anew and not piece.piece and not piece.body:
            self._seat.healer.refused(ordinal)

    def _coming(self) -> None:
        if self._anew:
            # While a damaged state is replaced, the own one must not get ahead of what comes.
            self._seat.replica.held = True

    def _complete(self, slot: int) -> None:
        seat = self._seat
        try:
            finish_install(seat.owner.engine)
        except StageLost as lost:
            seat.healer.on_rot(Table.META, lost.key)
            if is_installing(seat.owner.engine):
                raise  # it rotted since it was checked; the next start takes another state
            return
        except StorageFull:
            if is_installing(seat.owner.engine):
                raise  # the old state is gone; the next start goes on with it
            return
        seat.healer.states_taken += self._anew
        seat.installed(slot)
