"""A value on its way to a node, piece by piece, at the pace of its credit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distkv.api.link.frames import PIECE_MAX, WINDOW, Kind
from distkv.errors import DistKVError

if TYPE_CHECKING:
    from distkv.api.link.calling import LinkCalling


class RemoteUpload:
    """`on_change` is called when there is room again, or it failed."""

    def __init__(
        self, connection: LinkCalling, identity: int, on_change: Callable[[], None]
    ) -> None:
        self.identity = identity
        self.failure: DistKVError | None = None
        self.on_resume: Callable[[], None] | None = None
        self._connection = connection
        self._on_change = on_change
        self._credit = WINDOW

    @property
    def room(self) -> bool:
        """Whether a piece may be sent now."""
        return self._credit > 0 and not self._connection.writing_paused

    def write(self, piece: bytes) -> bool:
        """Send a piece of any size; False: no `room` for more."""
        for at in range(0, len(piece), PIECE_MAX):
            self._connection.send([Kind.UPLOAD_PIECE, self.identity, piece[at : at + PIECE_MAX]])
        self._credit -= len(piece)
        return self.room

    def finish(self) -> None:
        """All pieces were written."""
        self._connection.send([Kind.UPLOAD_END, self.identity])

    def abort(self) -> None:
        """It will not be put."""
        if self._connection.uploads.pop(self.identity, None) is not None:
            self._connection.send([Kind.UPLOAD_ABORT, self.identity])

    def grant(self, amount: int) -> None:
        """The node took so many bytes."""
        self._credit += amount
        if self.room:
            self._on_change()

    def fail(self, failure: DistKVError) -> None:
        """The node refused it or is gone."""
        self.failure = failure
        self._on_change()
