"""`distkv simulate`: replay one world, or run many and stop at the first that breaks."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distkv.simulation import core_run, runner
from distkv.simulation.full_world import Faults
from distkv.simulation.runner import Result, Scenario

CHUNK = 4
"""Worlds handed to a process at once."""
TAIL = 60
"""Lines of the trace shown of a world that broke."""

console = Console(stderr=True, highlight=False)


def _geometry(text: str) -> tuple[int, int]:
    k, plus, m = text.partition("+")
    if not plus or not k.isdigit() or not m.isdigit() or int(k) < 1:
        raise argparse.ArgumentTypeError("a geometry is K+M, such as 3+2")
    return int(k), int(m)


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(filter(None, text.split(",")))
    unknown = [kind for kind in kinds if kind not in Faults._fields]
    if unknown:
        known = ", ".join(n for n in Faults._fields if n not in ("late_max", "duration"))
        raise argparse.ArgumentTypeError(f"no fault is called {unknown[0]}; there are {known}")
    return kinds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distkv simulate",
        description="Run whole clusters from seeds, with faults, in virtual time, and check them.",
    )
    parser.add_argument("--world", choices=("full", "core"), default="full")
    parser.add_argument("--seed", type=int, help="run this one world and describe it")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens")
    parser.add_argument("--seeds", type=int, default=100, help="how many worlds to run")
    parser.add_argument("--first", type=int, default=1, help="the first seed of --seeds")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--geometry", type=_geometry, help="K+M instead of a drawn one")
    parser.add_argument("--without", type=_kinds, default=(), help="kinds of faults, by comma")
    parser.add_argument("--duration", type=float, help="seconds of faults instead of drawn ones")
    parser.add_argument("--clients", type=int, help="clients instead of a drawn number")
    parser.add_argument("--no-shrink", action="store_true", help="report a failure as it is")
    return parser


def main(argv: list[str]) -> int:
    """See the module. 0: nothing broke; 1: a promise was broken; 2: wrong usage."""
    arguments = _parser().parse_args(argv)
    if arguments.world == "core":
        return _core(arguments)
    if arguments.seed is not None:
        return _one(_scenario(arguments, arguments.seed), arguments.trace, arguments.json)
    return _many(arguments)


def _scenario(arguments: argparse.Namespace, seed: int) -> Scenario:
    return Scenario(
        seed, arguments.geometry, arguments.without, arguments.duration, arguments.clients
    )


def _core(arguments: argparse.Namespace) -> int:
    forwarded = ["--first", str(arguments.first), "--seeds", str(arguments.seeds)]
    forwarded += ["--jobs", str(arguments.jobs)]
    if arguments.seed is not None:
        forwarded = ["--seed", str(arguments.seed)]
    if arguments.json:
        forwarded.append("--json")
    before = sys.argv
    sys.argv = ["distkv simulate --world core", *forwarded]
    try:
        return core_run.main()
    finally:
        sys.argv = before


def _one(scenario: Scenario, trace: bool, as_json: bool) -> int:
    result, world = runner.run(scenario)
    if trace:
        print("\n".join(world.trace))
    elif result.error and not as_json:
        print("\n".join(world.trace[-TAIL:]))
    if as_json:
        print(json.dumps(_summary([result], None)))
    else:
        faults = ", ".join(
            f"{name} {value:.3g}" for name, value in world.drawn._asdict().items() if value
        )
        print(f"seed {scenario.seed}: {world.data_shards}+{world.parity_shards}, faults: {faults}")
        print(
            f"{result.seconds:.1f} s of virtual time, {result.events} events, "
            f"{result.slots} slots, {result.calls} client calls, digest {result.digest}"
        )
        print(f"BROKEN: {result.error}" if result.error else "nothing broke")
    return 1 if result.error else 0


def _run_all(scenarios: list[Scenario], jobs: int) -> Iterator[list[Result]]:
    chunks = [scenarios[at : at + CHUNK] for at in range(0, len(scenarios), CHUNK)]
    if jobs <= 1:
        yield from map(runner.run_many, chunks)
        return
    with multiprocessing.Pool(jobs) as pool:
        yield from pool.imap(runner.run_many, chunks)


def _many(arguments: argparse.Namespace) -> int:
    scenarios = [
        _scenario(arguments, seed)
        for seed in range(arguments.first, arguments.first + arguments.seeds)
    ]
    began = time.monotonic()
    results: list[Result] = []
    columns = (
        TextColumn("worlds"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Progress(*columns, console=console, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task("worlds", total=len(scenarios), speed="")
        for chunk in _run_all(scenarios, arguments.jobs):
            results += chunk
            rate = len(results) / (time.monotonic() - began)
            progress.update(task, completed=len(results), speed=f"{rate:.1f}/s")
            if chunk[-1].error:
                break
    return _report(results, time.monotonic() - began, arguments)


def _summary(results: list[Result], took: float | None) -> dict[str, object]:
    digest = 0
    for result in results:
        digest ^= int(result.digest, 16)
    summary: dict[str, object] = {
        "world": "full",
        "worlds": len(results),
        "failed_seed": next((r.scenario.seed for r in results if r.error), None),
        "error": next((r.error for r in results if r.error), ""),
        "digest": f"{digest:016x}",
        "virtual_hours": round(sum(r.seconds for r in results) / 3600, 4),
        "events": sum(r.events for r in results),
        "slots": sum(r.slots for r in results),
        "calls": sum(r.calls for r in results),
        "coded_values": sum(r.values for r in results),
        "durability_checks": sum(r.checks for r in results),
        "histories_too_hard": sum(r.too_hard for r in results),
        "leaders_nudged": sum(r.nudged for r in results),
    }
    if took is not None:
        hours = sum(r.seconds for r in results) / 3600
        summary["worlds_per_second"] = round(len(results) / took, 2)
        summary["virtual_hours_per_hour"] = round(hours / (took / 3600), 1)
    return summary


def _report(results: list[Result], took: float, arguments: argparse.Namespace) -> int:
    failed = next((result for result in results if result.error), None)
    summary = _summary(results, took)
    if failed is not None and not arguments.no_shrink:
        console.print(f"seed {failed.scenario.seed} broke: {failed.error[:400]}", markup=False)
        console.print("looking for a smaller world that breaks too ...")
        smaller = runner.shrink(failed.scenario)
        summary["replay"] = f"distkv simulate {smaller.options()} --trace"
    elif failed is not None:
        summary["replay"] = f"distkv simulate {failed.scenario.options()} --trace"
    if arguments.json:
        print(json.dumps(summary))
    else:
        width = max(map(len, summary))
        for name, value in summary.items():
            print(f"{name.replace('_', ' '):{width}}  {value}")
    return 1 if failed is not None else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
