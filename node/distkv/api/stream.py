"""Sends a reply that is partly a download, at the pace of the client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from distkv.kernel import Future
from distkv.operations import Download


class Outlet(Protocol):
    """The connection a stream writes to."""

    @property
    def writing_paused(self) -> bool:
        """Whether the transport holds enough for now."""

    def write_out(self, data: bytes) -> None:
        """Hand bytes to the transport."""


class Stream:
    """One reply being sent. `done(error)` is called once: None, or why it broke off."""

    def __init__(
        self,
        outlet: Outlet,
        segments: Sequence[bytes | Download],
        done: Callable[[BaseException | None], None],
    ) -> None:
        self._outlet = outlet
        self._segments = list(reversed(segments))
        self._done = done
        self._download: Download | None = None
        self._asking = False
        self._pumping = False
        self._closed = False

    def pump(self) -> None:
        """Go on as far as the client takes it; call again when writing is resumed."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while not (self._closed or self._asking or self._outlet.writing_paused):
                if not self._advance():
                    break
        finally:
            self._pumping = False

    def _advance(self) -> bool:
        if self._download is not None:
            self._asking = True
            self._download.next().add_callback(self._arrived)
            return True
        if not self._segments:
            self._closed = True
            self._done(None)
            return False
        segment = self._segments.pop()
        if isinstance(segment, bytes):
            self._outlet.write_out(segment)
        else:
            self._download = segment
        return True

    def _arrived(self, future: Future[Any]) -> None:
        self._asking = False
        if self._closed:
            return
        if future.error is not None:
            self.close()
            self._done(future.error)
            return
        piece: bytes = future.result()
        if piece:
            self._outlet.write_out(piece)
        else:
            assert self._download is not None
            self._download.close()
            self._download = None
        self.pump()

    def close(self) -> None:
        """The client went away; `done` is not called."""
        self._closed = True
        if self._download is not None:
            self._download.close()
        close_downloads(self._segments)


def close_downloads(segments: Sequence[bytes | Download]) -> None:
    """Give up the downloads of a reply that will not be sent."""
    for segment in segments:
        if not isinstance(segment, bytes):
            segment.close()


def held_of(segments: Sequence[bytes | Download]) -> int:
    """Bytes of a reply, of which a download may hold that many at most."""
    return sum(len(s) if isinstance(s, bytes) else s.length for s in segments)
