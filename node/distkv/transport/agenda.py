"""Which connections must be looked at now: few of them, at most wake-ups."""

from __future__ import annotations

from collections.abc import Iterable

from distkv.transport.peers import Peer

_AT_ONCE = float("-inf")
_NEVER = float("inf")
AHEAD = 0.001
"""Who is awake looks at all of them this much (seconds) before it must: mostly nothing is due any
more, and then nobody has to wake up for it."""


class Agenda:
    """`touched`: peers with something new to send, or to wait for, since the last `timeout`.

    All others have nothing to do before the time that `timeout` gave.
    """

    __slots__ = ("_peers", "_when", "touched")

    def __init__(self, peers: dict[int, Peer]) -> None:
        self._peers = peers
        self._when = _AT_ONCE
        self.touched: dict[int, Peer] = {}

    def all(self) -> None:
        """Something rare happened: look at all of them."""
        self._when = _AT_ONCE

    def soon(self, when: float) -> None:
        """A peer that is not touched has something to do at `when`."""
        if when < self._when:
            self._when = when

    def rests(self, now: float) -> float | None:
        """As `timeout`, at once: when the first has something to do; None: ask the others."""
        when = self._when
        return None if self.touched or now + AHEAD >= when else when

    def due(self, now: float) -> Iterable[Peer]:
        """Those that may have something to send now."""
        return (self.touched if now < self._when else self._peers).values()

    def timeout(self, now: float) -> float | None:
        """When the first has something to do; None: never. It may be too early."""
        exact = now + AHEAD >= self._when
        looked_at = self._peers if exact else self.touched
        when = _NEVER if exact else self._when
        for peer in looked_at.values():
            session = peer.session
            if session is not None and peer.half_open is None:
                due = session.not_before
                if exact or due is None:
                    due = session.timeout(now)
                session.not_before = None
            else:
                due = _timeout_of(peer, now)
            if due < when:
                when = due
        self._when = when
        self.touched.clear()
        return None if when == _NEVER else when


def _timeout_of(peer: Peer, now: float) -> float:
    when = _NEVER
    session = peer.session
    if session is not None:
        when = session.timeout(now)
    elif peer.wanted:
        when = peer.dial.deadline if peer.dial is not None else peer.dial_at
    half_open = peer.half_open
    if half_open is not None and half_open.deadline < when:
        return half_open.deadline
    return when
