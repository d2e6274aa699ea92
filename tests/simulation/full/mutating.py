"""How a known mistake is switched on, and off again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from distkv.simulation.runner import Scenario

Patch = Callable[[Any, str, Any], None]
MUTATIONS: dict[str, Callable[[Patch], None]] = {}


def mutation(function: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTATIONS[function.__name__] = function
    return function


def scenario(name: str, seed: int) -> Scenario:
    """A world in which the mutation may show: mistakes of the transport need that transport,
    those of layouts an owner who changes them."""
    module = MUTATIONS[name].__module__
    real = True if module.endswith("_transport") else None
    changing = True if module.endswith("_layouts") else None
    return Scenario(seed, transport=real, layouts=changing)


@contextmanager
def installed(name: str) -> Iterator[None]:
    """The mutation is in force inside."""
    undo: list[tuple[Any, str, Any]] = []

    def patch(owner: Any, attribute: str, replacement: Any) -> None:
        undo.append((owner, attribute, owner.__dict__[attribute]))
        setattr(owner, attribute, replacement)

    MUTATIONS[name](patch)
    try:
        yield
    finally:
        for owner, attribute, original in reversed(undo):
            setattr(owner, attribute, original)
