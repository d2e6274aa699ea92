"""Messages to a peer whose bounded queue may be full: kept here, in order, until it drains."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from distkv.data.messages import DataMessage, Found, ShardGiven, ShardWanted
from distkv.data.ports import Addressed, Outbox, stream_of
from distkv.data.shards import ShardKeeper
from distkv.kernel import Kernel

WAITING_MAX = 4096
"""Small messages and read requests that wait for one peer; what is beyond is dropped, and the
asker asks elsewhere or again."""


POLL_SECONDS = 0.005
"""A full queue is tried again this soon, should nobody tell that it drained."""


class PolledOutbox:
    """An outbox whose refusals are always followed by `drained`, at the latest by a timer."""

    def __init__(
        self,
        kernel: Kernel,
        outbox: Outbox,
        peers: dict[int, int],
        drained: Callable[[int], None],
    ) -> None:
        self._kernel = kernel
        self._outbox = outbox
        self._peers = peers
        self._drained = drained
        self._polling: dict[int, None] = {}

    def send(self, ordinal: int, message: DataMessage, stream: int) -> bool:
        """See ports.Outbox."""
        if self._outbox.send(ordinal, message, stream):
            return True
        if ordinal in self._peers and ordinal not in self._polling:
            self._polling[ordinal] = None
            self._kernel.call_at(self._kernel.now + POLL_SECONDS, lambda: self._poll(ordinal))
        return False

    def line(self, ordinal: int) -> tuple[int, int]:
        """See ports.Outbox."""
        return self._outbox.line(ordinal)

    def _poll(self, ordinal: int) -> None:
        del self._polling[ordinal]
        self._drained(ordinal)


class Sender:
    """Sends small messages and pulls long answers, one piece at a time, as the outbox has room."""

    def __init__(self, outbox: Outbox, own: int, local: Callable[[DataMessage], None]) -> None:
        self._outbox = outbox
        self._own = own
        self._local = local
        self._waiting: dict[int, deque[Iterator[Addressed]]] = {}
        self._stuck: dict[int, Addressed] = {}
        self.overflowed = 0

    def send(self, addressed: Addressed) -> None:
        """One message, after those that wait already. To the own ordinal: delivered at once."""
        if addressed.ordinal == self._own:
            self._local(addressed.message)
        elif addressed.ordinal in self._stuck:
            self.pull(addressed.ordinal, iter((addressed,)))
        elif not self._outbox.send(*_arguments(addressed)):
            self._stuck[addressed.ordinal] = addressed

    def pull(self, ordinal: int, messages: Iterator[Addressed]) -> None:
        """Send all of `messages`, asking for the next one only when there is room for it."""
        waiting = self._waiting.setdefault(ordinal, deque())
        if len(waiting) >= WAITING_MAX:
            self.overflowed += 1
            return
        waiting.append(messages)
        if ordinal not in self._stuck:
            self._pump(ordinal)

    def _pump(self, ordinal: int) -> None:
        waiting = self._waiting.get(ordinal)
        while waiting:
            for addressed in waiting[0]:
                if not self._outbox.send(*_arguments(addressed)):
                    self._stuck[ordinal] = addressed
                    return
            waiting.popleft()

    def drained(self, ordinal: int) -> None:
        """The outbox has room again."""
        stuck = self._stuck.pop(ordinal, None)
        if stuck is not None and not self._outbox.send(*_arguments(stuck)):
            self._stuck[ordinal] = stuck
            return
        self._pump(ordinal)

    def disconnected(self, ordinal: int) -> None:
        """What waited was meant for a connection that is gone."""
        self._stuck.pop(ordinal, None)
        self._waiting.pop(ordinal, None)


def _arguments(addressed: Addressed) -> tuple[int, DataMessage, int]:
    return addressed.ordinal, addressed.message, addressed.stream


def answers(keeper: ShardKeeper, ordinal: int, wanted: ShardWanted) -> Iterator[Addressed]:
    """The pieces that `ordinal` asked for, read when they can leave. One word if it is gone."""
    stream = stream_of(wanted.value_id)
    for stripe in range(wanted.first, wanted.first + wanted.stripes):
        found = keeper.read(wanted.value_id, stripe)
        if isinstance(found, Found):
            answer = ShardGiven(wanted.request, found, 0, stripe, 0, 0, b"")
        else:
            answer = ShardGiven(
                wanted.request,
                Found.HERE,
                found.shard,
                stripe,
                found.length,
                found.crc,
                found.piece,
            )
        yield Addressed(ordinal, stream, answer)
