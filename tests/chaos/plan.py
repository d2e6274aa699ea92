"""A fault, ready to be done: how it begins, is shown to be real and ends, and what it may cost."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from chaos.lab import Lab
from testbed.errors import LabError

PROOF_SECONDS = 20.0


@dataclass
class Plan:
    """One fault, ready to be done."""

    name: str
    what: str
    begin: Callable[[], None]
    end: Callable[[], None] = lambda: None
    prove: Callable[[], str] | None = None
    """Empty when the fault can be seen, else what is seen instead; asked until it can."""
    hit: frozenset[int] = frozenset()
    """Members that do not serve, or not all others, while it lasts."""
    hold: tuple[float, float] = (8.0, 20.0)
    cut_off: tuple[int, ...] = ()
    """Members that have no quorum while it lasts, though clients reach them."""
    pods_ending: tuple[str, ...] = ()
    spares_writes: bool = True
    """False: the promise does not cover it even for members within f."""
    takes_api: bool = False
    """Nothing can be done through the API server meanwhile: last to begin, first to end."""


Draw = Callable[[Lab, random.Random, frozenset[int]], Plan]
"""(lab, generator, members that may still be hit) -> plan. LabError: not possible now."""


def pick(rng: random.Random, usable: frozenset[int], lab: Lab) -> int:
    if not usable:
        raise LabError("no member is left to be hit")
    if rng.random() < 0.4:
        leader = lab.leader()
        if leader in usable:
            return leader
    return rng.choice(sorted(usable))


def prove(plan: Plan, seconds: float = PROOF_SECONDS) -> tuple[float | None, str]:
    """When the fault was seen, or why it was not."""
    if plan.prove is None:
        return None, ""
    limit = time.time() + seconds
    while True:
        try:
            why = plan.prove()
        except (LabError, KeyError, IndexError, ValueError) as error:
            why = f"the probe failed: {error}"
        if not why:
            return time.time(), ""
        if time.time() > limit:
            return None, f"not seen within {seconds:.0f} s: {why}"
        time.sleep(0.3)
