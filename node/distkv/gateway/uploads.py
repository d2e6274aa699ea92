"""Values that arrive at a gateway: passed on at once, and kept until they are safe.

A kept value can be sent again, to another node, under the same session and sequence. Beyond
`retained_max` nothing more is kept: if its node is lost, such a put fails honestly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from distkv.api.link.client import LinkClient
from distkv.api.link.lost import LinkLost
from distkv.api.link.outbound import RemoteUpload
from distkv.errors import DistKVError, NoQuorum

if TYPE_CHECKING:
    from distkv.gateway.store import GatewayStore

UNSENT_MAX = 256 * 1024
"""Bytes waiting for a node's credit above which the client is asked to pause."""


class GatewayUpload:
    """An `operations.Upload`. `target` is the node that has it, or is getting it."""

    def __init__(self, store: GatewayStore, length: int | None) -> None:
        self.on_resume: Callable[[], None] | None = None
        self.failure: DistKVError | None = None
        self.target: LinkClient | None = None
        self._store = store
        self._length = length
        self._remote: RemoteUpload | None = None
        self._pieces: list[bytes] = []
        self._next = 0
        """Position of the first piece that was not sent to `target`."""
        self._dropped = False
        """Pieces that were sent are not kept any more."""
        self._unsent = 0
        self._charged = 0
        self._retained = True
        self._finished = False
        self._complete = False
        self._closed = False
        self._paused = False
        self._pumping = False
        self._refused_by: set[LinkClient] = set()
        self._waiting: Callable[[], None] | None = None
        self._find_target()

    # -- operations.Upload

    def write(self, piece: bytes) -> bool:
        """See operations.Upload."""
        if self._closed or self.failure is not None:
            return True
        self._pieces.append(piece)
        self._unsent += len(piece)
        if self._retained:
            self._charged += len(piece)
            self._store.retained.take(len(piece))
            if self._store.retained.used > self._store.options.retained_max:
                self._stop_retaining()
        self._pump()
        self._paused = self._unsent > UNSENT_MAX
        return not self._paused

    def finish(self) -> None:
        """See operations.Upload."""
        self._finished = True
        self._pump()

    def abort(self) -> None:
        """See operations.Upload."""
        self.release()

    # -- for the request that puts it

    def ready_at(self, node: LinkClient, callback: Callable[[], None]) -> bool:
        """Whether `node` has all of it; if not, it is sent, and `callback` called on any change."""
        self._waiting = None
        if self.target is not node or (self._remote is None and self._complete):
            self._move(node)
        if self._complete and self._remote is not None and self._remote.failure is None:
            return True
        self._waiting = callback
        return False

    def taken(self) -> RemoteUpload:
        """Hand it to the request that is sent now; for another try it is sent anew."""
        remote, self._remote = self._remote, None
        assert remote is not None, "the node does not have this value"
        return remote

    def release(self) -> None:
        """It is not needed any more."""
        if self._closed:
            return
        self._closed = True
        self._waiting = None
        self._store.forget_upload(self)
        if self._remote is not None:
            self._remote.abort()
            self._remote = None
        self._pieces = []
        charged, self._charged = self._charged, 0
        self._store.retained.give(charged)

    # -- sending

    def nodes_changed(self) -> None:
        """A node came, or serves again."""
        if self.target is None and not self._closed and self.failure is None:
            self._refused_by.clear()
            self._find_target()

    def _find_target(self) -> None:
        node = self._store.nodes.pick(self._refused_by)
        if node is not None:
            self._move(node)

    def _move(self, node: LinkClient) -> None:
        """Send it (again, from its first byte) to `node`."""
        if self._remote is not None:
            self._remote.abort()
            self._remote = None
        if self._dropped:
            self._fail(
                NoQuorum(
                    "the node that was getting this value is lost, and the value was too large "
                    "to be kept (gateway retained_max); nothing was changed"
                )
            )
            return
        self._complete = False
        self._next = 0
        self._unsent = sum(map(len, self._pieces))
        self.target = node
        self._remote = node.upload(self._length, self._changed)
        if self._remote is None:
            self.target = None
        else:
            self._pump()

    def _stop_retaining(self) -> None:
        self._retained = False
        charged, self._charged = self._charged, 0
        self._store.retained.give(charged)
        self._drop_sent()

    def _drop_sent(self) -> None:
        if self._next and not self._retained:
            del self._pieces[: self._next]
            self._next = 0
            self._dropped = True

    def _changed(self) -> None:
        """The node took bytes, refused the upload, or is lost."""
        if self._closed:
            return
        remote = self._remote
        if remote is None:
            return
        if remote.failure is None:
            self._pump()
            return
        failure, self._remote = remote.failure, None
        node, self.target = self.target, None
        if not isinstance(failure, LinkLost) and node is not None:
            self._refused_by.add(node)
            remote.abort()
        other = self._store.nodes.pick(self._refused_by)
        if other is not None:
            self._move(other)
        elif not isinstance(failure, LinkLost):
            self._fail(failure)
        self._notify()

    def _pump(self) -> None:
        remote = self._remote
        if remote is None or self._pumping or self._complete:
            return
        self._pumping = True
        while self._next < len(self._pieces) and remote.room:
            piece = self._pieces[self._next]
            self._next += 1
            self._unsent -= len(piece)
            remote.write(piece)
        self._drop_sent()
        self._pumping = False
        if self._finished and self._next == len(self._pieces):
            self._complete = True
            remote.finish()
            self._notify()
        elif self._paused and self._unsent <= UNSENT_MAX:
            self._resume()

    def _resume(self) -> None:
        self._paused = False
        if self.on_resume is not None:
            self.on_resume()

    def _fail(self, failure: DistKVError) -> None:
        self.failure = failure
        self._pieces = []
        if self._paused:
            self._resume()
        self._notify()

    def _notify(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()
