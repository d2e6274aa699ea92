"""`distkv simulate`: replay one world, or run many and stop at the first that breaks."""

from __future__ import annotations

import argparse
import math
import os
import sys

from rich.console import Console

from distkv.core.configuration import NODES_MAX
from distkv.simulation import campaign, core_run, runner

TAIL = 60
"""Lines of the trace shown of a world that broke."""

console = Console(stderr=True, highlight=False)


def _geometry(text: str) -> tuple[int, int]:
    k, plus, m = text.partition("+")
    if not plus or not k.isdecimal() or not m.isdecimal() or int(k) < 1:
        raise argparse.ArgumentTypeError("a geometry is K+M, such as 3+2")
    if int(k) + int(m) > NODES_MAX:
        raise argparse.ArgumentTypeError(f"at most {NODES_MAX} nodes are supported")
    return int(k), int(m)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distkv simulate",
        description="Run whole clusters from seeds, with faults, in virtual time, and check them.",
    )
    parser.add_argument(
        "--world",
        choices=("full", "core"),
        default="full",
        help="whole nodes with clients (full, the default), or the consensus core alone",
    )
    parser.add_argument("--seed", type=int, help="run this one world and describe it")
    parser.add_argument("--trace", action="store_true", help="with --seed: print what happens")
    parser.add_argument(
        "--seeds", type=_positive, default=100, help="how many worlds to run (default: %(default)s)"
    )
    parser.add_argument(
        "--first", type=int, default=1, help="the first seed of --seeds (default: %(default)s)"
    )
    parser.add_argument(
        "--jobs",
        type=_positive,
        default=min(2, os.cpu_count() or 1),
        help="processes at a time (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    parser.add_argument("--without", default="", help="kinds of faults that stay away, by comma")
    parser.add_argument("--duration", type=_seconds, help="seconds of faults instead of drawn ones")
    parser.add_argument("--geometry", type=_geometry, help="full: K+M instead of a drawn one")
    parser.add_argument("--clients", type=_positive, help="full: clients instead of a drawn number")
    parser.add_argument(
        "--transport",
        choices=("real", "model"),
        help="full: the production transport over bad datagrams, or a model of its connections; "
        "default: drawn",
    )
    parser.add_argument(
        "--layouts",
        choices=("changing", "fixed"),
        help="full: whether the owner wants other layouts meanwhile; default: drawn",
    )
    parser.add_argument("--no-shrink", action="store_true", help="report a failure as it is")
    return parser


def _kinds(parser: argparse.ArgumentParser, text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    kinds = tuple(filter(None, text.split(",")))
    unknown = [kind for kind in kinds if kind not in known]
    if unknown:
        parser.error(f"--without: no fault is called {unknown[0]}; there are {', '.join(known)}")
    return kinds


def main(argv: list[str]) -> int:
    """See the module. 0: nothing broke; 1: a promise was broken; 2: wrong usage."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.trace and arguments.seed is None:
        parser.error("--trace is of one world: give --seed")
    if arguments.world == "core":
        for name in ("geometry", "clients", "transport", "layouts"):
            if getattr(arguments, name) is not None:
                parser.error(f"--{name} is for --world full")
        without = _kinds(parser, arguments.without, core_run.KINDS)
        duration = None if arguments.duration is None else arguments.duration * 1000
        core = core_run.Scenario(arguments.seed or 0, without, duration)
        if arguments.seed is not None:
            return _one_core(core, arguments.trace, arguments.json)
        return campaign.many(campaign.CORE, core, arguments, console)
    without = _kinds(parser, arguments.without, runner.KINDS)
    transport = None if arguments.transport is None else arguments.transport == "real"
    layouts = None if arguments.layouts is None else arguments.layouts == "changing"
    full = runner.Scenario(
        arguments.seed or 0,
        arguments.geometry,
        without,
        arguments.duration,
        arguments.clients,
        transport,
        layouts,
    )
    if arguments.seed is not None:
        return _one_full(full, arguments.trace, arguments.json)
    return campaign.many(campaign.FULL, full, arguments, console)


def _show(lines: list[str], error: str, trace: bool, as_json: bool) -> None:
    if trace:
        print("\n".join(lines))
    elif error and not as_json:
        print("\n".join(lines[-TAIL:]))


def _describe(faults: tuple[float, ...]) -> str:
    rates = faults._asdict().items()  # type: ignore[attr-defined]
    return ", ".join(f"{name} {value:.3g}" for name, value in rates if value)


def _end(summary: dict[str, object], said: list[str], error: str, as_json: bool) -> int:
    if as_json:
        campaign.print_json(summary)
    else:
        print("\n".join([*said, f"BROKEN: {error}" if error else "nothing broke"]))
    return 1 if error else 0


def _one_core(scenario: core_run.Scenario, trace: bool, as_json: bool) -> int:
    lines: list[str] = []
    result, world = core_run.run(scenario, lines.append)
    _show(lines, result.error, trace, as_json)
    layout = world.genesis
    said = [
        f"seed {scenario.seed}: {layout.data_shards}+{layout.parity_shards}, "
        f"faults: {_describe(world.faults)}",
        f"{result.seconds:.1f} s of virtual time, {result.events} events, {result.slots} slots, "
        f"{result.reads} reads, digest {result.digest}",
    ]
    return _end(campaign.CORE.summary([result]), said, result.error, as_json)


def _one_full(scenario: runner.Scenario, trace: bool, as_json: bool) -> int:
    result, world = runner.run(scenario)
    _show(world.trace, result.error, trace, as_json)
    carried = "production transport" if world.real_transport else "modelled connections"
    said = [
        f"seed {scenario.seed}: {world.data_shards}+{world.parity_shards}, {carried}, "
        f"faults: {_describe(world.drawn)}",
        f"{result.seconds:.1f} s of virtual time, {result.events} events, "
        f"{result.slots} slots, {result.calls} client calls, digest {result.digest}",
    ]
    return _end(campaign.FULL.summary([result]), said, result.error, as_json)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
