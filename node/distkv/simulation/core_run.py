"""Runs worlds of the consensus core alone and says how each one ended."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import NamedTuple

from distkv.simulation import shrinking
from distkv.simulation.core_faults import Faults
from distkv.simulation.core_world import World

NOT_KINDS = ("late_max", "flush_max", "proposals", "reads", "duration")
"""Fields of `Faults` that are no faults."""
KINDS = tuple(name for name in Faults._fields if name not in NOT_KINDS)
SHORTEST = 100.0
"""ms of faults below which a world is not shrunk."""
ERROR_LINES = 3


class Scenario(NamedTuple):
    """A world: its seed, and what is not as the seed would draw it."""

    seed: int
    without: tuple[str, ...] = ()
    """Fields of `Faults` that are 0."""
    duration: float | None = None
    """ms of faults."""

    def options(self) -> str:
        """As options of `distkv simulate`."""
        text = f"--world core --seed {self.seed}"
        if self.without:
            text += f" --without {','.join(self.without)}"
        if self.duration is not None:
            text += f" --duration {self.duration / 1000:g}"
        return text

    def world(self, log: Callable[[str], None] | None = None) -> World:
        """The world, not yet run."""
        world = World(self.seed, log)
        changed = dict.fromkeys(self.without, 0.0)
        if self.duration is not None:
            changed["duration"] = self.duration
        world.faults = world.faults._replace(**changed)
        return world

    def kinds(self) -> list[str]:
        """See shrinking.Shrinkable."""
        faults = self.world().faults
        return [name for name in KINDS if getattr(faults, name)]

    def lasts(self) -> float:
        """See shrinking.Shrinkable."""
        return self.world().faults.duration

    def crowds(self) -> tuple[int, ...]:
        """Clients are no more than a rate here."""
        return ()

    def with_(self, **changed: object) -> Scenario:
        """See shrinking.Shrinkable."""
        return self._replace(**changed)  # type: ignore[arg-type]


class Result(NamedTuple):
    """How a world ended. `error` empty: nothing was broken."""

    scenario: Scenario
    digest: str
    error: str
    seconds: float
    """Virtual time."""
    events: int
    slots: int
    reads: int


def run(scenario: Scenario, log: Callable[[str], None] | None = None) -> tuple[Result, World]:
    """One world from its beginning to its end."""
    world = scenario.world(log)
    error = ""
    try:
        world.run()
    except Exception as failure:
        error = "".join(traceback.format_exception(failure)[-ERROR_LINES:]).strip()
    result = Result(
        scenario,
        f"{world.digest:016x}",
        error,
        world.now / 1000,
        world.events,
        world.checker.top,
        world.reads_served,
    )
    return result, world


def run_many(scenarios: list[Scenario]) -> list[Result]:
    """One after the other, up to the first that fails."""
    results = []
    for scenario in scenarios:
        results.append(run(scenario)[0])
        if results[-1].error:
            break
    return results


def run_seeds(first: int, last: int) -> list[Result]:
    """Worlds `first` to `last` - 1, up to the first that fails."""
    return run_many([Scenario(seed) for seed in range(first, last)])


def shrink(scenario: Scenario, tries: int = 60) -> Scenario:
    """A smaller scenario that still fails."""
    return shrinking.shrink(scenario, lambda s: bool(run(s)[0].error), SHORTEST, tries)
