"""How long clients wait: a sample of their requests, for the pace of background work."""

from __future__ import annotations

from distkv.data.pace import Pace
from distkv.kernel import Future, Kernel
from distkv.operations import Operation, Put, Write

SAMPLED = 8
"""One request in so many is timed."""
OPEN_MAX = 64
"""Timed at once, at most."""

SMALL_WRITE, LARGE_WRITE, READ = range(3)


class LatencySample:
    """`note` each request as it comes; `begin` once in each turn, with its time."""

    def __init__(self, kernel: Kernel, pace: Pace, inline_max: int) -> None:
        self._kernel = kernel
        self._pace = pace
        self._inline_max = inline_max
        self._count = 0
        self._open = 0
        self._new: list[tuple[int, Future[object]]] = []

    def note(self, operation: Operation, future: Future[object]) -> None:
        """Time this one, perhaps."""
        self._count += 1
        if self._count % SAMPLED == 0 and self._open < OPEN_MAX and not future.done:
            self._open += 1
            self._new.append((self._kind(operation), future))

    def _kind(self, operation: Operation) -> int:
        if not isinstance(operation, Write):
            return READ
        for mutation in operation.mutations:
            if isinstance(mutation, Put) and (
                type(mutation.value) is not bytes or len(mutation.value) > self._inline_max
            ):
                return LARGE_WRITE
        return SMALL_WRITE

    def begin(self) -> None:
        """The kernel's clock stands between turns, so what came meanwhile is timed from here."""
        if not self._new:
            return
        new, self._new = self._new, []
        began = self._kernel.now
        for kind, future in new:
            future.add_callback(lambda done, kind=kind: self._ended(kind, began, done))  # type: ignore[misc]

    def _ended(self, kind: int, began: float, future: Future[object]) -> None:
        self._open -= 1
        if future.error is None:
            self._pace.observe(kind, self._kernel.now - began)
