"""How many seeds each mutation takes: `python tests/simulation/core_world/hunt.py [names]`."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulation.core_world.mutations import MUTATIONS

from distkv.simulation.core_minority import LateChangeWorld, MinorityWorld
from distkv.simulation.core_world import RestoringWorld, World

STARTS = (1, 10001, 20001)
LIMIT = 1500
KINDS: dict[str, type[World]] = {
    "restored_": RestoringWorld,
    "contradicted_": MinorityWorld,
    "open_reads_": LateChangeWorld,
    "late_change_": LateChangeWorld,
}
"""Worlds that are about what such mutations do wrong."""
MISFITS = ("TypeError", "AttributeError", "NameError")
"""What a mutation of code as it once was ends with: it proves nothing."""


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


def seeds_needed(
    name: str, first: int, limit: int, kind: type[World] | None = None
) -> tuple[int, str]:
    """(seeds until the mutation was caught, what was said); (0, "") if it was not."""
    if kind is None:
        kind = next((KINDS[prefix] for prefix in KINDS if name.startswith(prefix)), World)
    with installed(name):
        for seed in range(first, first + limit):
            try:
                kind(seed).run()
            except Exception as caught:
                said = f"{type(caught).__name__}: {caught}".splitlines()[0][:90]
                if said.startswith(MISFITS):
                    return 0, f"MISFIT: {said}"
                return seed - first + 1, said
    return 0, ""


def main() -> None:
    names = sys.argv[1:] or list(MUTATIONS)
    for name in names:
        needed = []
        said = ""
        for start in STARTS:
            count, said = seeds_needed(name, start, LIMIT)
            needed.append(count or 99999)
            if not count:
                break
        print(f"{statistics.median(needed):7} {name}: {said or 'NOT CAUGHT'}", flush=True)


if __name__ == "__main__":
    main()
