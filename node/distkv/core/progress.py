"""The leader's view of one peer, voter or learner."""

from __future__ import annotations

from collections import deque

from distkv.ids import Member

_WEIGHT = 0.25
"""Of the latest answer in `delay`."""


class Progress:
    """`match`: the peer durably holds every slot up to it (chosen, or in our ballot).

    `next`: first slot not yet sent; ahead of match + 1 while accepts are in flight. `known`
    is false until the peer has answered in this ballot: until then only empty accepts go out.
    """

    __slots__ = (
        "_resend_max",
        "_resend_min",
        "asks",
        "chosen",
        "chosen_sent",
        "delay",
        "eager",
        "heard",
        "held_bytes",
        "held_since",
        "held_upto",
        "hurry",
        "inflight",
        "inflight_bytes",
        "known",
        "match",
        "member",
        "next",
        "probe",
        "probe_sent",
        "progressed",
        "resend",
        "sent",
    )

    def __init__(self, member: Member, now: int, resend_min: int, resend_max: int) -> None:
        self.member = member
        self.match = 0
        self.next = 0
        self.known = False
        self.chosen = 0
        """The peer's own chosen prefix, as it last said."""
        self.chosen_sent = 0
        self.hurry = 0
        """The peer waits for the outcome of slots up to here: tell it at once."""
        self.probe = 0
        self.probe_sent = 0
        self.heard = now
        self.sent = -1_000_000
        self.progressed = now
        self.resend = resend_min
        self.inflight: deque[tuple[int, int, int]] = deque()
        """(last slot, bytes, tick it was sent) of runs without an answer."""
        self.inflight_bytes = 0
        self.eager = True
        """A quorum counts on it: entries are sent at once. See `spread`."""
        self.delay = 0.0
        """Ticks it usually takes to answer entries."""
        self.held_since = -1
        """Tick since when entries are kept back; -1: none are."""
        self.held_upto = 0
        self.held_bytes = 0
        """Size of the entries kept back, up to that slot."""
        self.asks = False
        """It forwards commands: who waits for the outcome may as well vote on it."""
        self._resend_min = resend_min
        self._resend_max = resend_max

    def start(self, match: int) -> None:
        """The peer answered for the first time in this ballot, or again after a break."""
        self.known = True
        self.match = max(self.match, match)
        self._rewind()

    def advance(self, match: int, now: int) -> None:
        """The peer holds more."""
        self.match = match
        self.progressed = now
        self.resend = self._resend_min
        if self.next <= match:
            self.next = match + 1
        inflight = self.inflight
        while inflight and inflight[0][0] <= match:
            _, size, sent = inflight.popleft()
            self.inflight_bytes -= size
            self.delay += (now - sent - self.delay) * _WEIGHT

    def sent_run(self, last: int, size: int, now: int) -> None:
        """Entries up to `last` left; the clock of the resend starts if none were out."""
        if not self.inflight:
            self.progressed = now
        self.next = last + 1
        self.held_since = -1
        self.held_bytes = 0
        self.inflight.append((last, size, now))
        self.inflight_bytes += size

    def waited(self, now: int) -> int:
        """Ticks since the oldest run without an answer left; 0: there is none."""
        return now - self.inflight[0][2] if self.inflight else 0

    def resend_if_due(self, now: int) -> None:
        """Nothing came back for what is in flight: send it again, each time more slowly."""
        if self.inflight and now - self.progressed >= self.resend:
            self.resend = min(2 * self.resend, self._resend_max)
            self.progressed = now
            self._rewind()

    def lost(self) -> None:
        """The connection broke: find out again what the peer holds."""
        self.known = False
        self._rewind()
        self.sent = -1_000_000

    def _rewind(self) -> None:
        self.next = self.match + 1
        self.inflight.clear()
        self.inflight_bytes = 0
