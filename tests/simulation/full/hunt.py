"""How many seeds each mutation takes: `python tests/simulation/full/hunt.py [names]`.

The table covers both simulators: mistakes of the consensus core alone are looked for in
worlds of the core, all others in worlds of whole nodes.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from simulation.core_world import hunt as core_hunt
from simulation.core_world.mutations import MUTATIONS as CORE_MUTATIONS
from simulation.full.mutations import MUTATIONS, installed, scenario
from simulation.full.refill import DIRECTED

from distkv.simulation.full_world import Violation
from distkv.simulation.runner import run

CORE_LIMIT = 1500
"""Worlds of the core are about a hundred times cheaper."""


def broken_by(world: Callable[[int], object], seed: int) -> str:
    """What a world made for a mutation says of it."""
    try:
        world(seed)
    except Violation as violation:
        return str(violation)
    return ""


def seeds_needed(name: str, first: int, limit: int) -> tuple[int, str]:
    """(seeds until the mutation was caught, what was said); (0, "") if it was not, (0, why) if
    it only breaks the code it patches."""
    with installed(name):
        for seed in range(first, first + limit):
            if name in DIRECTED:
                error = broken_by(DIRECTED[name], seed)
            else:
                error = run(scenario(name, seed))[0].error
            if error.startswith(core_hunt.MISFITS):
                return 0, f"MISFIT: {error.splitlines()[0][:90]}"
            if error:
                return seed - first + 1, error.splitlines()[0][:100]
    return 0, ""


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--starts", type=int, default=3, help="medians over so many starts")
    arguments = parser.parse_args()
    medians = []
    for name in arguments.names or [*MUTATIONS, *CORE_MUTATIONS]:
        core = name in CORE_MUTATIONS
        look = core_hunt.seeds_needed if core else seeds_needed
        limit = CORE_LIMIT if core else arguments.limit
        needed = []
        said = ""
        for start in range(arguments.starts):
            count, said = look(name, 1 + 10_000 * start, limit)
            needed.append(count or 10 * limit)
            if not count:
                break
        median = statistics.median(needed)
        medians.append(median)
        where = "core" if core else "full"
        print(f"{median:7} {where} {name}: {said or 'NOT CAUGHT'}", flush=True)
    print(f"{statistics.median(medians):7} median of {len(medians)} mutations")


if __name__ == "__main__":
    main()
