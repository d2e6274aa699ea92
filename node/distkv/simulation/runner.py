"""Runs worlds of whole nodes and says how each one ended."""

from __future__ import annotations

import gc
import traceback
from typing import NamedTuple

from distkv.simulation.full_world import Faults, Violation, World

ERROR_FRAMES = 4


class Scenario(NamedTuple):
    """A world: its seed, and what is not as the seed would draw it (None: as drawn)."""

    seed: int
    geometry: tuple[int, int] | None = None
    without: tuple[str, ...] = ()
    """Fields of `Faults` that are 0."""
    duration: float | None = None
    clients: int | None = None

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
        return text

    def world(self) -> World:
        """The world, not yet run."""
        world = World(self.seed, self.geometry)
        changed: dict[str, float] = dict.fromkeys(self.without, 0.0)
        if self.duration is not None:
            changed["duration"] = self.duration
        world.faults = world.drawn = world.faults._replace(**changed)
        world.client_count = self.clients
        return world


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
    )
    return result, world


def run_many(scenarios: list[Scenario]) -> list[Result]:
    """One after the other, up to the first that fails."""
    results = []
    gc.disable()
    try:
        for scenario in scenarios:
            result, _ = run(scenario)
            results.append(result)
            if result.error:
                break
            gc.collect()
    finally:
        gc.enable()
    return results


def fault_kinds(faults: Faults) -> list[str]:
    """Kinds that are in force."""
    return [n for n in Faults._fields if n not in ("late_max", "duration") and getattr(faults, n)]


def shrink(scenario: Scenario, tries: int = 40) -> Scenario:
    """A smaller scenario that still fails: fewer kinds of faults, less time, fewer clients."""
    best = scenario
    left = tries

    def fails(candidate: Scenario) -> bool:
        nonlocal left
        left -= 1
        return bool(run(candidate)[0].error)

    for kind in fault_kinds(scenario.world().faults):
        if left <= 0:
            return best
        candidate = best._replace(without=(*best.without, kind))
        if fails(candidate):
            best = candidate
    for clients in (1, 2, 3):
        if left > 0 and fails(best._replace(clients=clients)):
            best = best._replace(clients=clients)
            break
    duration = best.duration or best.world().faults.duration
    while left > 0 and duration > 0.5:
        duration = round(duration / 2, 3)
        candidate = best._replace(duration=duration)
        if not fails(candidate):
            break
        best = candidate
    return best
