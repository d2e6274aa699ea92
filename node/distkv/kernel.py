"""Coroutines without an event loop: futures, tasks and timers driven by a given `now`.

The multi-step flows of a node (disperse, read, catch up, repair) read best as coroutines,
but the simulator must drive them with virtual time and a fixed order. So they await the
futures of this module, and whoever owns the `Kernel` (the asyncio adapter of a real node,
or the simulated world) calls `run(now)` when time or a message arrives.
Not thread-safe: one kernel belongs to one thread.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Cancelled(BaseException):
    """Thrown into a coroutine whose task was cancelled."""


class TimedOut(Exception):
    """`Kernel.within` gave up waiting."""


class Future(Generic[T]):
    """A value to come. Callbacks run at once, in the order they were added."""

    __slots__ = ("_callbacks", "_error", "_value", "done")

    def __init__(self) -> None:
        self.done = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[Future[T]], None]] = []

    def set_result(self, value: T) -> None:
        """Resolve; a future that is already done keeps its first outcome."""
        if not self.done:
            self._value = value
            self._finish()

    def set_exception(self, error: BaseException) -> None:
        """Fail; a future that is already done keeps its first outcome."""
        if not self.done:
            self._error = error
            self._finish()

    def _finish(self) -> None:
        self.done = True
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def result(self) -> T:
        """The value; raises what the future failed with. Only when `done`."""
        assert self.done, "the future is not done"
        if self._error is not None:
            raise self._error
        return cast(T, self._value)

    @property
    def error(self) -> BaseException | None:
        """What it failed with, if it did."""
        return self._error

    def add_callback(self, callback: Callable[[Future[T]], None]) -> None:
        """Call `callback(self)` when done (now, if it is)."""
        if self.done:
            callback(self)
        else:
            self._callbacks.append(callback)

    def __await__(self) -> Generator[Future[T], None, T]:
        if not self.done:
            yield self
        return self.result()


class Timer:
    """Handle of `Kernel.call_at`."""

    __slots__ = ("callback", "when")

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        self.when = when
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """The callback will not run."""
        self.callback = None


class Task(Future[T]):
    """A running coroutine; done when it returns or raises."""

    __slots__ = ("_coroutine", "_kernel", "_waiting")

    def __init__(self, kernel: Kernel, coroutine: Coroutine[Any, Any, T]) -> None:
        super().__init__()
        self._kernel = kernel
        self._coroutine = coroutine
        self._waiting: Future[Any] | None = None

    def cancel(self) -> None:
        """Throw `Cancelled` into the coroutine at its present await."""
        if not self.done:
            self._waiting = None
            self._step(Cancelled())

    def _wake(self, future: Future[Any]) -> None:
        if self._waiting is future:
            self._waiting = None
            self._kernel._ready.append(self)

    def _step(self, error: BaseException | None = None) -> None:
        try:
            if error is None:
                awaited = self._coroutine.send(None)
            else:
                awaited = self._coroutine.throw(error)
        except StopIteration as stop:
            self.set_result(stop.value)
        except Cancelled as cancelled:
            self.set_exception(cancelled)
        except Exception as failure:
            self.set_exception(failure)
        else:
            self._waiting = awaited
            awaited.add_callback(self._wake)


class Kernel:
    """Runs tasks and timers in a fixed order; time is what `run(now)` was told."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._ready: deque[Task[Any]] = deque()
        self._timers: list[tuple[float, int, Timer]] = []
        self._sequence = 0

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> Task[T]:
        """Start `coroutine` at once, up to its first await of something not done."""
        task = Task(self, coroutine)
        task._step()
        return task

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Run `callback` in the first `run(now)` with now >= when."""
        timer = Timer(when, callback)
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, timer))
        return timer

    def sleep(self, seconds: float) -> Future[None]:
        """A future that is done `seconds` from now."""
        future: Future[None] = Future()
        self.call_at(self.now + seconds, lambda: future.set_result(None))
        return future

    async def within(self, deadline: float, future: Future[T]) -> T:
        """Await `future`; raises TimedOut at `deadline` (the future itself goes on)."""
        if future.done:
            return future.result()
        either: Future[T] = Future()

        def settle(source: Future[T]) -> None:
            if source.error is not None:
                either.set_exception(source.error)
            else:
                either.set_result(source.result())

        future.add_callback(settle)
        timer = self.call_at(deadline, lambda: either.set_exception(TimedOut()))
        try:
            return await either
        finally:
            timer.cancel()

    def run(self, now: float) -> None:
        """Advance time to `now` and run everything that is ready or due."""
        self.now = max(self.now, now)
        while True:
            while self._ready:
                self._ready.popleft()._step()
            if not self._timers or self._timers[0][0] > self.now:
                return
            timer = heapq.heappop(self._timers)[2]
            if timer.callback is not None:
                callback, timer.callback = timer.callback, None
                callback()

    @property
    def busy(self) -> bool:
        """Whether tasks are ready to run."""
        return bool(self._ready)

    def next_timer(self) -> float | None:
        """When `run` must be called again at the latest (`now` if tasks are ready)."""
        if self._ready:
            return self.now
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None
