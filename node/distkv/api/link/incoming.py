"""A large value arriving from a node."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from distkv.api.link.frames import PIECE_MAX, WINDOW, Kind, LinkError
from distkv.errors import DistKVError
from distkv.kernel import Future

if TYPE_CHECKING:
    from distkv.api.link.calling import LinkCalling


class IncomingDownload:
    """An `operations.Download`; at most WINDOW bytes wait here. Fails with LinkLost too."""

    def __init__(self, connection: LinkCalling, identity: int, length: int) -> None:
        self.length = length
        self._connection = connection
        self._identity = identity
        self._pieces: deque[bytes] = deque()
        self._waiting: Future[bytes] | None = None
        self._failure: DistKVError | None = None
        self._held = 0
        self._ungranted = 0

    def receive(self, piece: bytes) -> None:
        """From the node. Raises LinkError if it sends more than it may."""
        self._held += len(piece)
        if self._held > WINDOW + PIECE_MAX:
            raise LinkError("a download goes past its window")
        if not piece:
            self._connection.downloads.pop(self._identity, None)
        self._pieces.append(piece)
        self._deliver()

    def fail(self, failure: DistKVError) -> None:
        """It ends here."""
        self._connection.downloads.pop(self._identity, None)
        self._failure = failure
        self._deliver()

    def next(self) -> Future[bytes]:
        """See operations.Download."""
        assert self._waiting is None, "one piece at a time"
        future: Future[bytes] = Future()
        self._waiting = future
        self._deliver()
        return future

    def _deliver(self) -> None:
        future = self._waiting
        if future is None:
            return
        if self._pieces:
            piece = self._pieces.popleft() if self._pieces[0] else b""
            self._waiting = None
            self._held -= len(piece)
            self._grant(len(piece))
            future.set_result(piece)
        elif self._failure is not None:
            self._waiting = None
            future.set_exception(self._failure)

    def _grant(self, amount: int) -> None:
        self._ungranted += amount
        open_still = self._identity in self._connection.downloads
        if open_still and self._ungranted >= WINDOW // 4:
            self._connection.send([Kind.CREDIT, self._identity, self._ungranted])
            self._ungranted = 0

    def close(self) -> None:
        """See operations.Download."""
        if self._connection.downloads.pop(self._identity, None) is not None:
            self._connection.send([Kind.CLOSE, self._identity])
        self._pieces.clear()
