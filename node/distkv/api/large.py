"""Large values on their way in: admitted by memory, then handed on as they arrive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from distkv.api.budget import MemoryBudget, Waiting, no_memory
from distkv.api.options import Limits
from distkv.errors import DeadlineExceeded, DistKVError, ShuttingDown, TooLarge
from distkv.operations import Store, Upload


class Collected:
    """Keeps the pieces, for commands that need the argument whole."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.on_resume: Callable[[], None] | None = None

    def write(self, piece: bytes) -> bool:
        """Keep it."""
        self._pieces.append(piece)
        return True

    def finish(self) -> None:
        """Nothing to do: `whole` joins."""

    def abort(self) -> None:
        """Let the pieces go."""
        self._pieces.clear()

    def whole(self) -> bytes:
        """The argument."""
        return b"".join(self._pieces)


class Owner(Protocol):
    """The connection an argument arrives on."""

    def argument_changed(self) -> None:
        """`ready`, `paused` or `refusal` of one of its arguments is new."""

    def now(self) -> float:
        """Seconds."""


class LargeValue:
    """Waits for memory, then feeds an upload (or `Collected`). Never raises while fed.

    While `paused` its connection is not read. What it waits for is limited in time by
    `check`, so no client waits for ever: the argument is then refused and swallowed.
    """

    def __init__(
        self, owner: Owner, store: Store, budget: MemoryBudget, limits: Limits, length: int | None
    ) -> None:
        self._owner = owner
        self._store = store
        self._budget = budget
        self._limits = limits
        self.length = length
        self.written = 0
        """Bytes that arrived."""
        self._waiting: Waiting | None = None
        self._early: list[bytes] = []
        self._limit_name = ""
        self._limit = 0
        self._finished = False
        self.closed = False
        """Aborted, or handed over to a command."""
        self.sink: Upload | Collected | None = None
        self.charged = 0
        """Bytes to give back to the budget, by `abort` or by whoever executes the command."""
        self.paused_at: float | None = None
        self.refusal: DistKVError | None = None
        """Why whoever sent it must be refused, once that is known."""

    def begin(self, streamed: bool) -> None:
        """Ask for memory; `streamed`: for an upload, else for the whole argument."""
        limits = self._limits
        self._limit_name = "value_bytes_max" if streamed else "command_bytes_max"
        self._limit = limits.value_bytes_max if streamed else limits.command_bytes_max
        length = self.length if self.length is not None else limits.upload_reserve
        if self.length is not None and length > self._limit:
            self.refusal = self._too_large(length)
            return
        amount = min(length, limits.upload_reserve) if streamed else length
        open_sink = self._open_upload if streamed else self._open_collected

        def granted() -> None:
            self._waiting = None
            self.charged = amount
            open_sink()
            self._catch_up()

        if self._budget.full:
            self.paused_at = self._owner.now()
            self._waiting = self._budget.wait(amount, granted)
        else:
            self._budget.take(amount)
            self.charged = amount
            open_sink()

    @property
    def ready(self) -> bool:
        """Whether the request may be executed (or is refused)."""
        return self._waiting is None

    @property
    def paused(self) -> bool:
        """Whether no more bytes should be read now."""
        return self.paused_at is not None

    def _open_upload(self) -> None:
        try:
            self.sink = self._store.upload(self.length)
        except DistKVError as failure:
            self._refuse(failure)
        else:
            self.sink.on_resume = self._resumed

    def _open_collected(self) -> None:
        self.sink = Collected()

    def _catch_up(self) -> None:
        self.paused_at = None
        early, self._early = self._early, []
        self.written -= sum(map(len, early))
        for piece in early:
            self.write(piece)
        if self._finished and self.sink is not None:
            self.sink.finish()
        self._owner.argument_changed()

    def _resumed(self) -> None:
        if self.paused_at is not None and self._waiting is None:
            self.paused_at = None
            self._owner.argument_changed()

    def _too_large(self, size: int) -> TooLarge:
        return TooLarge(
            f"a value of {size} bytes is over the limit {self._limit_name} ({self._limit} bytes)"
        )

    def _refuse(self, failure: DistKVError) -> None:
        self.refusal = failure
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
        if self.sink is not None:
            self.sink.abort()
            self.sink = None
        self._early = []
        self.paused_at = None
        self._budget_back()

    def _budget_back(self) -> None:
        charged, self.charged = self.charged, 0
        if charged:
            self._budget.give(charged)

    def write(self, piece: bytes) -> None:
        """The next bytes."""
        if self.refusal is not None:
            return
        self.written += len(piece)
        if self.length is None and self.written > self._limit:
            self._refuse(self._too_large(self.written))
            self._owner.argument_changed()
        elif self._waiting is not None:
            self._early.append(piece)
        elif self.sink is not None and not self.sink.write(piece) and self.paused_at is None:
            self.paused_at = self._owner.now()

    def finish(self) -> None:
        """That was all of it."""
        self._finished = True
        if self.sink is not None:
            self.sink.finish()
        if self._waiting is None:
            self.paused_at = None

    def check(self, now: float) -> None:
        """Refuse it if it was paused for too long: by memory, or by a store that takes nothing."""
        limits, paused_at = self._limits, self.paused_at
        patience = limits.stall_seconds if self._waiting is None else limits.request_seconds
        if paused_at is None or now - paused_at <= patience:
            return
        if self._waiting is not None:
            self._refuse(no_memory(self._budget.limit))
        else:
            self._refuse(
                DeadlineExceeded(
                    f"the store took no more bytes for {patience:g} s; nothing was changed"
                )
            )
        self._owner.argument_changed()

    def abort(self) -> None:
        """Whoever sent it went away, or its request is refused."""
        if not self.closed:
            self.closed = True
            self._refuse(self.refusal or ShuttingDown("the client went away"))

    def take_sink(self) -> Upload | bytes:
        """Hand the argument over to a command; `charged` is the caller's to give back."""
        assert self.sink is not None, "a refused argument was handed over"
        sink = self.sink
        self.closed = True
        return sink.whole() if isinstance(sink, Collected) else sink
