"""The gateway's own session: what makes it safe to send a write again.

A write keeps its (session, sequence) whichever node it is sent to, so it is applied once
(protocol rules, section 4). `low` tells the cluster which results it may forget.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from distkv.errors import UnknownSession
from distkv.ids import SESSION_BYTES
from distkv.member.sequences import Sequences

IDEMPOTENCY_PREFIX = b"\0K"
"""Sessions that open with their only command; a gateway's own must not look like one."""


def fresh_session() -> bytes:
    """12 random bytes."""
    while True:
        session = os.urandom(SESSION_BYTES)
        if not session.startswith(IDEMPOTENCY_PREFIX):
            return session


class Session(Sequences):
    """Sequence numbers of one session of this gateway."""

    __slots__ = ("identity",)

    def __init__(self, identity: bytes) -> None:
        super().__init__()
        self.identity = identity


SessionOpened = Callable[[BaseException | None], None]
"""Called with None, or with why the session could not be opened."""


class SessionKeeper:
    """Opens a session when the first write needs one, and another when it was forgotten."""

    def __init__(self, open_session: Callable[[bytes, SessionOpened], None]) -> None:
        self._open_session = open_session
        self._current: Session | None = None
        self._opening: Session | None = None
        self._waiting: list[SessionOpened] = []

    @property
    def current(self) -> Session | None:
        """The open session."""
        return self._current

    def forget(self, identity: bytes) -> None:
        """The cluster does not know this session (any more)."""
        if self._current is not None and self._current.identity == identity:
            self._current = None

    def when_open(self, callback: SessionOpened) -> None:
        """Call `callback(None)` with `current` set, or with why that failed."""
        if self._current is not None:
            callback(None)
            return
        self._waiting.append(callback)
        if self._opening is None:
            self._open()

    def _open(self) -> None:
        self._opening = Session(fresh_session())
        self._open_session(self._opening.identity, self._opened)

    def _opened(self, failure: BaseException | None) -> None:
        if isinstance(failure, UnknownSession):
            # It ended before its answer came, and a name is used once.
            self._open()
            return
        opening, self._opening = self._opening, None
        if failure is None:
            self._current = opening
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            callback(failure)
