"""A large value on its way to the gateway, at the pace of its credit."""

from __future__ import annotations

from typing import Any, Protocol

from distkv.api.budget import MemoryBudget
from distkv.api.link.frames import PIECE_MAX, WINDOW, Kind
from distkv.api.link.results import error_to_plain
from distkv.kernel import Future
from distkv.operations import Download


class Link(Protocol):
    """The connection it leaves on."""

    writing_paused: bool
    downloads: dict[int, OutgoingDownload]

    def send(self, message: list[Any]) -> None:
        """Queue a message."""


class OutgoingDownload:
    """Sends pieces while there is credit; bytes that are held are charged to the budget."""

    def __init__(
        self, link: Link, identity: int, data: bytes | Download, budget: MemoryBudget
    ) -> None:
        self.identity = identity
        self._link = link
        self._budget = budget
        self._held = data if isinstance(data, bytes) else b""
        self._at = 0
        self._source = None if isinstance(data, bytes) else data
        self._charged = 0
        self._charge(len(self._held))
        self._credit = WINDOW
        self._asking = False
        self._closed = False

    def _charge(self, amount: int) -> None:
        self._budget.take(amount)
        charged, self._charged = self._charged, amount
        self._budget.give(charged)

    def grant(self, amount: int) -> None:
        """The gateway used up so many bytes."""
        self._credit = min(self._credit + amount, WINDOW)
        self.pump()

    def pump(self) -> None:
        """Send what may be sent."""
        while not self._closed and self._credit > 0 and not self._link.writing_paused:
            if self._at < len(self._held):
                stop = min(self._at + PIECE_MAX, self._at + self._credit, len(self._held))
                piece = self._held[self._at : stop]
                self._at = stop
                self._credit -= len(piece)
                self._link.send([Kind.PIECE, self.identity, piece])
            elif self._source is None:
                self._link.send([Kind.PIECE, self.identity, b""])
                self.close()
            elif self._asking:
                return
            else:
                self._asking = True
                self._source.next().add_callback(self._arrived)

    def _arrived(self, future: Future[bytes]) -> None:
        self._asking = False
        if self._closed:
            return
        if future.error is not None:
            self._link.send([Kind.PIECE_ERROR, self.identity, *error_to_plain(future.error)])
            self.close()
            return
        self._held = future.result()
        self._at = 0
        self._charge(len(self._held))
        if not self._held and self._source is not None:
            self._source.close()
            self._source = None
        self.pump()

    def close(self) -> None:
        """Stop; nothing more is fetched."""
        if self._closed:
            return
        self._closed = True
        self._link.downloads.pop(self.identity, None)
        self._charge(0)
        if self._source is not None:
            self._source.close()
            self._source = None
