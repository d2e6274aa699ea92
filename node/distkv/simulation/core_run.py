"""Run worlds of the consensus core: `python -m distkv.simulation.core_run --seeds 1000`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
import traceback
from typing import NamedTuple

from distkv.simulation.core_world import World

_CHUNK = 50
_NEWS = 1000


class Outcome(NamedTuple):
    """Of a run of seeds first .. first + worlds - 1; `failed` is the seed that broke, or -1."""

    worlds: int
    failed: int
    error: str
    digest: int
    virtual_ms: float
    events: int
    slots: int
    reads: int


def run_seeds(first: int, last: int) -> Outcome:
    """Run worlds one after the other; stop at the first failure."""
    digest, virtual, events, slots, reads = 0, 0.0, 0, 0, 0
    for seed in range(first, last):
        world = World(seed)
        try:
            world.run()
        except Exception as failure:
            error = "".join(traceback.format_exception(failure)[-3:])
            return Outcome(seed - first + 1, seed, error, digest, virtual, events, slots, reads)
        digest ^= world.digest
        virtual += world.now
        events += world.events
        slots += world.checker.top
        reads += world.reads_served
    return Outcome(last - first, -1, "", digest, virtual, events, slots, reads)


def _chunk(bounds: tuple[int, int]) -> Outcome:
    return run_seeds(*bounds)


def replay(seed: int, tail: int) -> int:
    """One world with its readable trace (the last `tail` lines)."""
    lines: list[str] = []
    world = World(seed, lines.append)
    try:
        world.run()
    except Exception:
        print("\n".join(lines[-tail:]))
        traceback.print_exc()
        return 1
    print("\n".join(lines[-tail:]))
    print(f"seed {seed}: digest {world.digest:016x}, {world.checker.top} slots")
    return 0


def main() -> int:
    """See the module. Exit code 1: a world broke a promise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, help="replay one world with its trace")
    parser.add_argument("--tail", type=int, default=400, help="lines of trace to print")
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed, arguments.tail)
    begun = time.monotonic()
    end = arguments.first + arguments.seeds
    chunks = [(a, min(a + _CHUNK, end)) for a in range(arguments.first, end, _CHUNK)]
    outcomes: list[Outcome] = []
    with multiprocessing.Pool(arguments.jobs) as pool:
        for outcome in pool.imap(_chunk, chunks):
            outcomes.append(outcome)
            if outcome.failed >= 0:
                pool.terminate()
                break
            done = sum(o.worlds for o in outcomes)
            if sys.stderr.isatty():
                print(f"\r{done} worlds", end="", file=sys.stderr)
            elif done % _NEWS == 0:
                print(f"{done} worlds", file=sys.stderr, flush=True)
    return _report(outcomes, time.monotonic() - begun, arguments.json)


def _report(outcomes: list[Outcome], seconds: float, as_json: bool) -> int:
    failed = [o for o in outcomes if o.failed >= 0]
    digest = 0
    for outcome in outcomes:
        digest ^= outcome.digest
    worlds = sum(o.worlds for o in outcomes)
    summary = {
        "worlds": worlds,
        "failed_seed": failed[0].failed if failed else None,
        "digest": f"{digest:016x}",
        "worlds_per_second": round(worlds / seconds, 1),
        "virtual_hours": round(sum(o.virtual_ms for o in outcomes) / 3_600_000, 3),
        "slots": sum(o.slots for o in outcomes),
        "reads": sum(o.reads for o in outcomes),
        "events": sum(o.events for o in outcomes),
    }
    if as_json:
        print(json.dumps(summary))
    else:
        print(", ".join(f"{name} {value}" for name, value in summary.items()))
    if failed:
        print(failed[0].error, file=sys.stderr)
        print(f"replay: python -m distkv.simulation.core_run --seed {failed[0].failed}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
