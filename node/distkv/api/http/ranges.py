"""Part of a download."""

from __future__ import annotations

from distkv.api.flow import run
from distkv.kernel import Future
from distkv.operations import Download


class RangeDownload:
    """Bytes start..stop of another download; what lies before is read and dropped."""

    def __init__(self, source: Download, start: int, stop: int) -> None:
        self.length = stop - start
        self._source = source
        self._start = start
        self._stop = stop
        self._at = 0

    def next(self) -> Future[bytes]:
        """See operations.Download."""
        return run(self._next())

    async def _next(self) -> bytes:
        while self._at < self._stop:
            piece = await self._source.next()
            if not piece:
                return b""
            at = self._at
            self._at += len(piece)
            if self._at > self._start:
                return piece[max(self._start - at, 0) : self._stop - at]
        return b""

    def close(self) -> None:
        """See operations.Download."""
        self._source.close()
