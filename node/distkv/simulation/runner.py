"""Runs worlds of whole nodes and says how each one ended."""

from __future__ import annotations

import traceback
from typing import NamedTuple

from distkv.simulation import shrinking
from distkv.simulation.full_faults import Faults
from distkv.simulation.full_world import Violation, World

ERROR_FRAMES = 4
KINDS = tuple(name for name in Faults._fields if name not in ("late_max", "duration"))
SHORTEST = 0.5
"""Seconds of faults below which a world is not shrunk."""


class Scenario(NamedTuple):
    """A world: its seed, and what is not as the seed would draw it (None: as drawn)."""

    seed: int
    geometry: tuple[int, int] | None = None
    without: tuple[str, ...] = ()
    """Fields of `Faults` that are 0."""
    duration: float | None = None
    clients: int | None = None
    transport: bool | None = None
    """Whether messages travel through the production transport."""
    layouts: bool | None = None
    """Whether the owner wants other layouts."""

    def options(self) -> str:
        """As options of `distkv simulate`."""
        text = f"--seed {self.seed}"
        if self.geometry is not None:
            text += f" --geometry {self.geometry[0]}+{self.geometry[1]}"
        if self.without:
            text += f" --without {','.join(self.without)}"
        if self.duration is not None:
            text += f" --duration {self.duration:g}"
        if self.clients is not None:
            text += f" --clients {self.clients}"
        if self.transport is not None:
            text += f" --transport {'real' if self.transport else 'model'}"
        if self.layouts is not None:
            text += f" --layouts {'changing' if self.layouts else 'fixed'}"
        return text

    def world(self) -> World:
        """The world, not yet run."""
        world = World(self.seed, self.geometry, None, self.transport, self.layouts)
        changed: dict[str, float] = dict.fromkeys(self.without, 0.0)
        if self.duration is not None:
            changed["duration"] = self.duration
        world.faults = world.drawn = world.faults._replace(**changed)
        world.client_count = self.clients
        return world

    def kinds(self) -> list[str]:
        """See shrinking.Shrinkable."""
        faults = self.world().faults
        return [name for name in KINDS if getattr(faults, name)]

    def lasts(self) -> float:
        """See shrinking.Shrinkable."""
        return self.duration or self.world().faults.duration

    def crowds(self) -> tuple[int, ...]:
        """See shrinking.Shrinkable."""
        return (1, 2, 3)

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
    calls: int
    slots: int
    values: int
    """Coded values that were named."""
    checks: int
    """Times a value's durable shards were counted."""
    too_hard: int
    """Keys whose history was too hard to judge."""
    nudged: int
    real_transport: int
    messages: int
    """Delivered by the production transport."""
    layouts: int
    """Changes of the layout that were applied."""


def run(scenario: Scenario) -> tuple[Result, World]:
    """One world from its beginning to its end."""
    world = scenario.world()
    error = ""
    try:
        world.run()
    except Violation as violation:
        error = str(violation)
    except Exception as failure:
        frames = traceback.extract_tb(failure.__traceback__)[-ERROR_FRAMES:]
        where = " < ".join(f"{f.filename.rsplit('/', 1)[-1]}:{f.lineno}" for f in reversed(frames))
        error = f"{type(failure).__name__}: {failure} ({where})"
    checker = world.checker
    result = Result(
        scenario,
        world.digest,
        error,
        world.now,
        world.events,
        len(world.calls),
        len(checker.entries),
        checker.coded_named,
        checker.values_checked,
        world.too_hard,
        int(world.nudged),
        int(world.real_transport),
        world.network.delivered,
        checker.layouts.changes,
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


def shrink(scenario: Scenario, tries: int = 40) -> Scenario:
    """A smaller scenario that still fails."""
    return shrinking.shrink(scenario, lambda s: bool(run(s)[0].error), SHORTEST, tries)
