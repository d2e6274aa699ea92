"""Pieces of a snapshot, staged on disk beside the old state until all are there and sound.

They are all read and verified before anything of the old state is removed. A crash in the middle
of the swap leaves the mark `installing` and all stages: `finish_install` does it again at start.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from distkv.core.log import forget_below
from distkv.machine.snapshot import SnapshotError, SnapshotSink
from distkv.member.messages import SnapshotPiece, SnapshotWanted
from distkv.storage.base import (
    CorruptRow,
    DeleteRange,
    Engine,
    Put,
    StorageError,
    StorageFull,
    StorageOperation,
    Table,
)

if TYPE_CHECKING:
    from distkv.member.member import Member as Owner

PIECE_TIMEOUT_SECONDS = 1.0
TRIES_MAX = 5

_STAGE = b"stage"
UNSTAGE = DeleteRange(Table.META, _STAGE, _STAGE + b"\xff" * 5)
"""Forget what was staged."""


class StageLost(StorageError):
    """A staged piece is damaged or missing, so the snapshot cannot be installed; nothing was
    changed. `key`: its row in table META."""

    def __init__(self, number: int, why: str) -> None:
        super().__init__(f"piece {number} of a staged snapshot {why}")
        self.key = stage_of(number)


def stage_of(number: int) -> bytes:
    """Where a piece is staged, in table META."""
    return _STAGE + number.to_bytes(4, "big")


def is_staged(table: Table, key: bytes) -> bool:
    """Whether this row is a staged piece."""
    return table is Table.META and key.startswith(_STAGE)


def _staged(engine: Engine, number: int) -> bytes:
    try:
        body = engine.get(Table.META, stage_of(number))
    except CorruptRow as rot:
        raise StageLost(number, "fails its checksum") from rot
    if body is None:
        raise StageLost(number, "is missing")
    return body


def check_stage(engine: Engine) -> int:
    """Read all that is staged; the slot of the snapshot. Raises StageLost."""
    sink = SnapshotSink()
    while not sink.done:
        number = sink.number
        try:
            sink.take(_staged(engine, number))
        except SnapshotError as error:
            raise StageLost(number, f"is none: {error}") from error
    return sink.slot


def finish_install(engine: Engine) -> None:
    """Make the staged snapshot the state. Idempotent: begins by removing what is there.

    What was accepted in slots that the new state covers may not be what was chosen there. It goes
    with the last batch: a start right after that would take it for chosen, and tell others.
    Raises StageLost before anything was changed, and StorageFull.
    """
    slot = check_stage(engine)
    sink = SnapshotSink()
    engine.write(sink.begin(slot))
    while not sink.done:
        rows = sink.take(_staged(engine, sink.number))
        if sink.done:
            rows += [UNSTAGE, forget_below(slot + 1)]
        engine.write(rows)


class Transfer:
    """Pulls the pieces of one snapshot from a peer, one at a time, and stages them."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._transfer = 0
        self._peer = -1
        self._sink = SnapshotSink()
        self._asked_at = 0.0
        self._tries = 0

    @property
    def active(self) -> bool:
        """A snapshot is on its way."""
        return self._peer >= 0

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
            self._owner.write_now(operations)
        except StorageFull:
            self.give_up()
        return self.active

    def give_up(self) -> None:
        """Whatever else of it comes is not taken."""
        self._peer = -1

    def drop_stage(self) -> None:
        """What is staged is damaged: forget it."""
        self.give_up()
        with suppress(StorageFull):  # the next transfer begins with that
            self._owner.write_now([UNSTAGE])

    def _ask_again(self, now: float) -> None:
        if now - self._asked_at > PIECE_TIMEOUT_SECONDS:
            self._tries += 1
            if self._tries > TRIES_MAX or self._peer not in self._owner.peers.up:
                self.give_up()
            else:
                self._ask(now)

    def _ask(self, now: float) -> None:
        self._asked_at = now
        self._owner.send(self._peer, SnapshotWanted(self._transfer, self._sink.number))

    def on_piece(self, ordinal: int, piece: SnapshotPiece) -> None:
        """Stage it and ask for the next one; the last makes the new state."""
        expected = (self._peer, self._transfer, self._sink.number)
        if (ordinal, piece.transfer, piece.piece) != expected:
            return
        if not piece.body or piece.slot < self._least():
            self.give_up()  # not to be had there, or too old
            self._refused(piece, ordinal)
            return
        self._coming()
        try:
            self._sink.take(piece.body)
        except SnapshotError as error:
            self._owner.suspect(f"node {ordinal}", "damaged_snapshot", str(error))
            self.give_up()
            return
        if not self._written([Put(Table.META, stage_of(piece.piece), piece.body)]):
            return
        self._tries = 0
        if self._sink.done:
            self.give_up()
            self._complete(piece.slot)
        else:
            self._ask(self._owner.kernel.now)

    # -- what depends on whose state it is to be

    def _least(self) -> int:
        """Slot of the oldest snapshot that will do."""
        raise NotImplementedError

    def _refused(self, piece: SnapshotPiece, ordinal: int) -> None:
        """There is none to be had from this peer."""

    def _coming(self) -> None:
        """A piece that will do has come."""

    def _complete(self, slot: int) -> None:
        """All are staged: install them."""
        raise NotImplementedError
