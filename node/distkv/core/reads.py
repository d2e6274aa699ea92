"""Read index: how a read becomes linearizable without a log entry.

Raft dissertation section 6.4, with Flexible Paxos quorums: the leader notes its chosen
prefix, then q2 voters (itself among them) confirm that they have promised no higher ballot
*after* the read arrived. A later leader needs promises of q1 voters, one of which would have
refused; so nothing newer can have been acknowledged before. The leader's own barrier must be
applied first: until then its chosen prefix may lack what its predecessor acknowledged.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from distkv.core.messages import ReadReply, ReadRequest
from distkv.core.shared import Shared
from distkv.ids import Member


class _Reader(NamedTuple):
    ordinal: int
    """-1: this node itself."""
    token: int


class _Round(NamedTuple):
    probe: int
    slot: int
    since: int
    readers: list[_Reader]


class LeaderReads:
    """Confirmation rounds of one tenure."""

    __slots__ = ("_rounds", "_shared", "_waiting", "_waiting_since", "probe")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._waiting: list[_Reader] = []
        self._waiting_since = 0
        self._rounds: deque[_Round] = deque()
        self.probe = 0
        """Number of the newest round; every accept carries it."""

    def add(self, ordinal: int, token: int) -> None:
        """A reader; refused at once when too many wait."""
        reader = _Reader(ordinal, token)
        if len(self._waiting) >= self._shared.options.reads_waiting:
            self._answer([reader], -1)
            return
        if not self._waiting:
            self._waiting_since = self._shared.now
        self._waiting.append(reader)

    def start(self, ready: bool) -> bool:
        """Open a round for all that wait. `ready`: the own barrier is applied."""
        if not self._waiting or not ready:
            return False
        if len(self._rounds) >= self._shared.options.read_rounds:
            return False
        shared = self._shared
        self.probe += 1
        shared.read_rounds += 1
        self._rounds.append(_Round(self.probe, shared.log.chosen, shared.now, self._waiting))
        self._waiting = []
        return True

    @property
    def open(self) -> bool:
        """Whether a round waits for confirmations."""
        return bool(self._rounds)

    @property
    def open_since(self) -> int:
        """Tick of the oldest round that waits for confirmations; -1: none."""
        return self._rounds[0].since if self._rounds else -1

    @property
    def waiting(self) -> bool:
        """Whether `start` may have something to do."""
        return bool(self._waiting)

    def renew(self) -> None:
        """The configuration changed: its voters are asked anew, from the new index on, because
        they know of no leader that the old ones elected (core world 3320791)."""
        if self._rounds:
            self._waiting_since = self._rounds[0].since
            readers = [reader for each in self._rounds for reader in each.readers]
            self._waiting = readers + self._waiting
            self._rounds.clear()

    def confirmed(self, probe: int) -> None:
        """q2 voters confirmed the ballot in rounds up to `probe`."""
        rounds = self._rounds
        while rounds and rounds[0].probe <= probe:
            done = rounds.popleft()
            self._answer(done.readers, done.slot)

    def tick(self) -> None:
        """Nobody waits for ever."""
        timeout = self._shared.options.ticks(self._shared.options.read_timeout)
        oldest = self._shared.now - timeout
        while self._rounds and self._rounds[0].since <= oldest:
            self._answer(self._rounds.popleft().readers, -1)
        if self._waiting and self._waiting_since <= oldest:
            self._answer(self._waiting, -1)
            self._waiting = []

    def close(self) -> None:
        """The tenure is over."""
        for left in self._rounds:
            self._answer(left.readers, -1)
        self._rounds.clear()
        self._answer(self._waiting, -1)
        self._waiting = []

    def _answer(self, readers: list[_Reader], slot: int) -> None:
        out = self._shared.out
        for ordinal, token in readers:
            if ordinal < 0:
                out.reads.append((token, slot))
            else:
                out.send(ordinal, ReadReply(token, slot))


class AskedReads:
    """Reads that a follower passed on to the leader."""

    __slots__ = ("_deadlines", "_shared")

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._deadlines: dict[int, int] = {}

    def ask(self, leader: int, token: int) -> None:
        """Send the request, or answer -1 when too many are out."""
        options = self._shared.options
        if len(self._deadlines) >= options.reads_waiting:
            self._shared.out.reads.append((token, -1))
            return
        self._deadlines[token] = self._shared.now + options.ticks(options.read_timeout)
        self._shared.out.send(leader, ReadRequest(token))

    def on_reply(self, sender: Member, message: ReadReply) -> None:
        """A late or repeated reply is ignored."""
        if self._deadlines.pop(message.token, None) is not None:
            self._shared.out.reads.append((message.token, message.slot))

    def tick(self) -> None:
        """Give up on lost ones; the oldest is first."""
        deadlines = self._deadlines
        while deadlines:
            token = next(iter(deadlines))
            if deadlines[token] > self._shared.now:
                return
            del deadlines[token]
            self._shared.out.reads.append((token, -1))

    def fail_all(self) -> None:
        """The leader changed."""
        for token in self._deadlines:
            self._shared.out.reads.append((token, -1))
        self._deadlines.clear()
