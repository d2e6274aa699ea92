"""Which commands of one connection may overlap.

A store's operations that overlap in time may take effect in either order, but a client that
sends SET and GET of one key in one pipeline means them in that order. So commands on the
same key, where one writes, run one after the other; commands on different keys overlap (as
they do with a Redis Cluster).
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from typing import Any, Protocol

from distkv.api.metrics import Series, clock
from distkv.api.resp import encode
from distkv.api.resp.encode import Reply, RespError, encode_reply
from distkv.api.resp.table import Arguments, Encoder, Scope
from distkv.errors import DistKVError
from distkv.kernel import Future

log = logging.getLogger("distkv.resp")


class Owner(Protocol):
    """The connection a slot belongs to."""

    resp3: bool

    def settled(self, slot: Slot, future: Future[Any]) -> None:
        """The outcome of the slot's command is known."""


class Slot:
    """The place of one command's reply among the replies of its connection."""

    __slots__ = (
        "bytes",
        "count",
        "encode",
        "keys",
        "owner",
        "reply",
        "resp3",
        "scope",
        "series",
        "started",
    )

    def __init__(
        self,
        owner: Owner,
        encode: Encoder,
        series: Series,
        started: float,
        scope: Scope,
        keys: Arguments,
    ) -> None:
        self.owner = owner
        self.encode = encode
        self.resp3 = owner.resp3
        self.series = series
        self.started = started
        self.scope = scope
        self.keys = keys
        self.count = 1
        """Commands it answers: more than one if they were submitted together."""
        self.bytes = 0
        """What it holds of the memory budget: its arguments, then its reply."""
        self.reply: Reply | None = None

    @classmethod
    def ready(cls, owner: Owner, reply: Reply) -> Slot:
        """A reply that only waits for those before it."""
        slot = cls(owner, encode_reply, _UNCOUNTED, 0.0, Scope.NOTHING, [])
        slot.reply = reply
        return slot

    def render(self, future: Future[Any]) -> None:
        """Make the reply of the outcome, and count it."""
        series = self.series
        try:
            self.reply = self.encode(future.result(), self.resp3)
        except Exception as failure:
            series.errors += self.count
            self.reply = error_reply(failure, series.name) * self.count
        seconds = clock() - self.started
        for _ in range(self.count):
            series.observe(seconds)

    def settle(self, future: Future[Any]) -> None:
        """Callback of the command's future."""
        self.owner.settled(self, future)


def error_reply(failure: Exception, command: str) -> bytes:
    """What the client is told; what nobody expected goes to the log."""
    if isinstance(failure, RespError):
        return encode.error(failure.text)
    if isinstance(failure, DistKVError):
        return encode.store_error(failure)
    log.error("%s failed", command, exc_info=failure)
    return encode.error("ERR internal error, see the log of this node")


_UNCOUNTED = Series("uncounted")
_ANY = 1 << 30


class Pipeline:
    """Slots in order of the requests, and what the unsettled among them touch."""

    __slots__ = ("_readers", "_reading", "_reading_all", "_writing", "_writing_all", "slots")

    def __init__(self) -> None:
        self.slots: deque[Slot] = deque()
        self._reading: Counter[Any] = Counter()
        self._writing: set[Any] = set()
        self._readers = 0
        self._reading_all = 0
        self._writing_all = 0

    def may_start(self, scope: Scope, keys: Arguments, depth: int = _ANY) -> bool:
        """Whether a command may run beside those that are not settled. `depth`: places that may
        be taken already if it is a read."""
        if scope is Scope.NOTHING:
            return True
        if self._writing_all:
            return False
        writing = self._writing
        if scope is Scope.READS:
            return len(self.slots) < depth and (not writing or writing.isdisjoint(keys))
        if scope is Scope.WRITES:
            if self._reading_all or (writing and not writing.isdisjoint(keys)):
                return False
            return not self._reading or not any(key in self._reading for key in keys)
        if scope is Scope.READS_ALL:
            return not writing
        return not (writing or self._readers or self._reading_all)

    def add(self, slot: Slot) -> None:
        """A command was started."""
        self.slots.append(slot)
        scope = slot.scope
        if scope is Scope.WRITES:
            self._writing.update(slot.keys)
        elif scope is Scope.READS:
            self._readers += 1
            for key in slot.keys:
                self._reading[key] += 1
        elif scope is Scope.READS_ALL:
            self._reading_all += 1
        elif scope is Scope.WRITES_ALL:
            self._writing_all += 1

    def settled(self, slot: Slot) -> None:
        """Its outcome is known; its reply may have to wait for earlier ones."""
        scope = slot.scope
        if scope is Scope.WRITES:
            self._writing.difference_update(slot.keys)
        elif scope is Scope.READS:
            self._readers -= 1
            for key in slot.keys:
                if self._reading[key] == 1:
                    del self._reading[key]
                else:
                    self._reading[key] -= 1
        elif scope is Scope.READS_ALL:
            self._reading_all -= 1
        elif scope is Scope.WRITES_ALL:
            self._writing_all -= 1
