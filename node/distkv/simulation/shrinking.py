"""A smaller world that breaks too: fewer kinds of faults, less time, fewer clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar


class Shrinkable(Protocol):
    """A scenario: what is not as its seed would draw it. Immutable."""

    def kinds(self) -> list[str]:
        """Kinds of faults that are in force."""

    def lasts(self) -> float:
        """How long faults happen."""

    def crowds(self) -> tuple[int, ...]:
        """Numbers of clients worth trying."""

    def with_(self, **changed: object) -> Shrinkable:
        """Changed fields: without, duration, clients."""


S = TypeVar("S", bound=Shrinkable)


def shrink(scenario: S, breaks: Callable[[S], bool], shortest: float, tries: int = 40) -> S:
    """A scenario that still breaks, found in at most so many tries."""
    best = scenario
    left = tries

    def fails(candidate: S) -> bool:
        nonlocal left
        left -= 1
        return breaks(candidate)

    without: tuple[str, ...] = ()
    for kind in scenario.kinds():
        if left <= 0:
            return best
        candidate: S = best.with_(without=(*without, kind))  # type: ignore[assignment]
        if fails(candidate):
            best, without = candidate, (*without, kind)
    for clients in best.crowds():
        candidate = best.with_(clients=clients)  # type: ignore[assignment]
        if left > 0 and fails(candidate):
            best = candidate
            break
    duration = best.lasts()
    while left > 0 and duration > shortest:
        duration = round(duration / 2, 3)
        candidate = best.with_(duration=duration)  # type: ignore[assignment]
        if not fails(candidate):
            break
        best = candidate
    return best
