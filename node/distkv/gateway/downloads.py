"""A large value read through a gateway: goes on from another node when its own is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distkv.api.flow import run
from distkv.api.link.lost import LinkLost
from distkv.errors import DistKVError, NoQuorum
from distkv.kernel import Future
from distkv.operations import Download, Get, Meta, Value

if TYPE_CHECKING:
    from distkv.gateway.store import GatewayStore


class ResumingDownload:
    """An `operations.Download` of the value that `key` had at `meta.version`."""

    def __init__(self, store: GatewayStore, key: bytes, meta: Meta, source: Download) -> None:
        self.length = source.length
        self._store = store
        self._key = key
        self._meta = meta
        self._source: Download | None = source
        self._at = 0
        self._closed = False

    def next(self) -> Future[bytes]:
        """See operations.Download."""
        return run(self._next())

    async def _next(self) -> bytes:
        while True:
            source = self._source
            if source is None:
                source = self._source = await self._reopen()
            try:
                piece = await source.next()
            except LinkLost:
                source.close()
                self._source = None
                continue
            self._at += len(piece)
            return piece

    async def _reopen(self) -> Download:
        """Read again elsewhere, and drop what was already delivered."""
        if self._closed:
            raise NoQuorum("the download was closed")
        seconds = self._store.options.limits.request_seconds
        found: Any = await self._store.execute(Get(self._key), self._store.now() + seconds)
        if found is None or found.meta.version != self._meta.version:
            if found is not None and not isinstance(found.data, bytes):
                found.data.close()
            raise NoQuorum("the node was lost half-way, and the value was changed meanwhile")
        value: Value = found
        source = value.data
        if isinstance(source, bytes):
            return _Rest(source[self._at :])
        # The store wraps what it gives out; the bare download is enough here.
        skipped = 0
        while skipped < self._at:
            piece = await source.next()
            if not piece:
                raise DistKVError("the value is shorter than it was")
            skipped += len(piece)
            if skipped > self._at:
                return _Joined(piece[len(piece) - (skipped - self._at) :], source)
        return source

    def close(self) -> None:
        """See operations.Download."""
        self._closed = True
        if self._source is not None:
            self._source.close()
            self._source = None


class _Rest:
    """Bytes as a download."""

    def __init__(self, data: bytes) -> None:
        self.length = len(data)
        self._data = data

    def next(self) -> Future[bytes]:
        future: Future[bytes] = Future()
        piece, self._data = self._data, b""
        future.set_result(piece)
        return future

    def close(self) -> None:
        self._data = b""


class _Joined:
    """One piece, then another download."""

    def __init__(self, first: bytes, rest: Download) -> None:
        self.length = rest.length
        self._first: bytes | None = first
        self._rest = rest

    def next(self) -> Future[bytes]:
        if self._first is None:
            return self._rest.next()
        future: Future[bytes] = Future()
        piece, self._first = self._first, None
        future.set_result(piece)
        return future

    def close(self) -> None:
        self._rest.close()
