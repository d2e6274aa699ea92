"""Linearizable reads: a batch of readers shares one confirmed read index.

Raft dissertation section 6.4 and protocol rule: the leader's own barrier is applied, then
phase-two many voters confirm its ballot after the read arrived; the reader then waits until
it applied that index.
"""

from __future__ import annotations

from collections.abc import Callable

from distkv.errors import DeadlineExceeded, NoQuorum
from distkv.kernel import Future

ROUNDS_MAX = 4
"""Confirmation rounds in flight: enough to hide a round trip, few enough to make batches."""

TOKENS_PER_BOOT = 2**36
BOOTS = 2**27


class _Waiter:
    __slots__ = ("deadline", "future")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.future: Future[None] = Future()


class ReadRounds:
    """Collects readers; `start` opens a round, `confirmed` ends it, `applied` serves it.

    Tokens differ from those of every earlier boot, and of whoever had this seat before: the
    leader may still confirm a round that was asked for then, and sends the index, too old for a
    new reader, to this seat.
    """

    def __init__(self, limit: int, incarnation: int, boot: int) -> None:
        self.limit = limit
        self._token = (incarnation + boot) % BOOTS * TOKENS_PER_BOOT
        self._waiting: list[_Waiter] = []
        self._rounds: dict[int, list[_Waiter]] = {}
        self._indexed: list[tuple[int, list[_Waiter]]] = []

    def __len__(self) -> int:
        return (
            len(self._waiting)
            + sum(len(w) for w in self._rounds.values())
            + sum(len(w) for _, w in self._indexed)
        )

    def wait(self, deadline: float) -> Future[None]:
        """Done when the own applied state is fresh enough to answer this reader."""
        waiter = _Waiter(deadline)
        self._waiting.append(waiter)
        return waiter.future

    @property
    def wants_round(self) -> bool:
        """Whether `start` would open a round."""
        return bool(self._waiting) and len(self._rounds) < ROUNDS_MAX

    def start(self, read: Callable[[int], bool]) -> None:
        """Open a round for all that wait; `read(token)` false: not possible now."""
        if not self.wants_round:
            return
        self._token += 1
        if read(self._token):
            self._rounds[self._token] = self._waiting
            self._waiting = []

    def confirmed(self, token: int, slot: int) -> None:
        """The round's index is `slot`; -1: nobody confirmed it, ask again."""
        waiters = self._rounds.pop(token, None)
        if waiters is None:
            return
        if slot < 0:
            self._waiting = waiters + self._waiting
        else:
            self._indexed.append((slot, waiters))

    def applied(self, slot: int) -> None:
        """The state machine applied up to `slot`: let those readers go on."""
        if not self._indexed:
            return
        due = [w for index, waiters in self._indexed if index <= slot for w in waiters]
        self._indexed = [(i, w) for i, w in self._indexed if i > slot]
        for waiter in due:
            waiter.future.set_result(None)

    def sweep(self, now: float, situation: Callable[[], str]) -> None:
        """Fail readers past their deadline."""
        groups = [self._waiting, *self._rounds.values(), *(w for _, w in self._indexed)]
        for group in groups:
            if any(w.deadline <= now for w in group):
                late = [w for w in group if w.deadline <= now]
                group[:] = [w for w in group if w.deadline > now]
                for waiter in late:
                    waiter.future.set_exception(
                        DeadlineExceeded(f"the read could not be confirmed; {situation()}")
                    )

    def refuse(self, reason: str) -> None:
        """There is no quorum: fail every reader that is not confirmed."""
        groups = [self._waiting, *self._rounds.values()]
        self._waiting = []
        self._rounds = {}
        for group in groups:
            for waiter in group:
                waiter.future.set_exception(NoQuorum(reason))
