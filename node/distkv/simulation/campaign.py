"""Many worlds, in several processes: progress, the first failure, and the sums."""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distkv.simulation import core_run, runner

ERROR_SHOWN = 400


class Kind(NamedTuple):
    """One of the two simulators. `chunk`: worlds handed to a process at once."""

    name: str
    run_many: Callable[[list[Any]], list[Any]]
    shrink: Callable[[Any], Any]
    counted: dict[str, str]
    """Name in the summary -> field of the results that is added up."""
    chunk: int

    def summary(self, results: list[Any], took: float | None = None) -> dict[str, object]:
        """Of all results; with speeds, if it is known how long (seconds) they took."""
        digest = 0
        for result in results:
            digest ^= int(result.digest, 16)
        seconds = sum(r.seconds for r in results)
        summary: dict[str, object] = {
            "world": self.name,
            "worlds": len(results),
            "failed_seed": next((r.scenario.seed for r in results if r.error), None),
            "error": next((r.error for r in results if r.error), ""),
            "digest": f"{digest:016x}",
            "virtual_hours": round(seconds / 3600, 4),
        }
        for name, field in self.counted.items():
            summary[name] = sum(getattr(r, field) for r in results)
        if took is not None:
            summary["worlds_per_second"] = round(len(results) / took, 2)
            summary["virtual_hours_per_hour"] = round(seconds / took, 1)
        return summary


FULL = Kind(
    "full",
    runner.run_many,
    runner.shrink,
    {
        "events": "events",
        "slots": "slots",
        "calls": "calls",
        "coded_values": "values",
        "durability_checks": "checks",
        "with_production_transport": "real_transport",
        "messages_through_it": "messages",
        "layout_changes": "layouts",
        "histories_too_hard": "too_hard",
        "leaders_nudged": "nudged",
    },
    4,
)
CORE = Kind(
    "core",
    core_run.run_many,
    core_run.shrink,
    {"events": "events", "slots": "slots", "reads": "reads"},
    40,
)


def print_json(summary: dict[str, object]) -> None:
    """One line for programs."""
    print(json.dumps(summary))


def _prepare() -> None:
    """A world is garbage as a whole when it ended: looking for garbage meanwhile is wasted."""
    gc.collect()
    gc.freeze()
    gc.disable()


def _chunk(work: tuple[Callable[[list[Any]], list[Any]], list[Any]]) -> list[Any]:
    run_many, scenarios = work
    results = run_many(scenarios)
    gc.collect()
    return results


def _run_all(kind: Kind, scenarios: list[Any], jobs: int) -> Iterator[list[Any]]:
    work = [
        (kind.run_many, scenarios[at : at + kind.chunk])
        for at in range(0, len(scenarios), kind.chunk)
    ]
    if jobs <= 1:
        _prepare()
        try:
            yield from map(_chunk, work)
        finally:
            gc.enable()
            gc.unfreeze()
        return
    with multiprocessing.Pool(jobs, _prepare) as pool:
        yield from pool.imap(_chunk, work)


def many(kind: Kind, pattern: Any, arguments: argparse.Namespace, console: Console) -> int:
    """Run seeds as `arguments` say, otherwise like `pattern`; the exit code."""
    scenarios = [
        pattern._replace(seed=seed)
        for seed in range(arguments.first, arguments.first + arguments.seeds)
    ]
    began = time.monotonic()
    results: list[Any] = []
    columns = (
        TextColumn("worlds"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("worlds", total=len(scenarios), speed="")
        for chunk in _run_all(kind, scenarios, arguments.jobs):
            results += chunk
            rate = len(results) / (time.monotonic() - began)
            progress.update(task, completed=len(results), speed=f"{rate:.1f}/s")
            if chunk[-1].error:
                break
    return _report(kind, results, time.monotonic() - began, arguments, console)


def _report(
    kind: Kind,
    results: list[Any],
    took: float,
    arguments: argparse.Namespace,
    console: Console,
) -> int:
    failed = next((result for result in results if result.error), None)
    summary = kind.summary(results, took)
    if failed is not None:
        smaller = failed.scenario
        if not arguments.no_shrink:
            shown = failed.error[:ERROR_SHOWN]
            console.print(f"seed {failed.scenario.seed} broke: {shown}", markup=False)
            console.print("looking for a smaller world that breaks too ...")
            smaller = kind.shrink(failed.scenario)
        summary["replay"] = f"distkv simulate {smaller.options()} --trace"
    if arguments.json:
        print_json(summary)
    else:
        width = max(map(len, summary))
        for name, value in summary.items():
            print(f"{name.replace('_', ' '):{width}}  {value}")
    return 1 if failed is not None else 0
