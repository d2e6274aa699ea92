"""Which connections must be looked at now: few of them, at most wake-ups."""

from __future__ import annotations

from collections.abc import Iterable

from distkv.transport.peers import Peer

_AT_ONCE = float("-inf")
_NEVER = float("inf")


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

    def due(self, now: float) -> Iterable[Peer]:
        """Those that may have something to send now."""
        return (self.touched if now < self._when else self._peers).values()

    def timeout(self, now: float) -> float | None:
        """When the first has something to do; None: never. It may be too early."""
        if now >= self._when:
            self._when = _NEVER
            looked_at = self._peers
        else:
            looked_at = self.touched
        when = self._when
        for peer in looked_at.values():
            if peer.session is not None and peer.half_open is None:
                due = peer.session.timeout(now)
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
