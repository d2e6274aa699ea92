"""CPU of the state machine per command: `python hack/bench_machine.py`.

One put of 1 KiB per command, batches of 32 and 256, over 10,000 keys; the time covers
apply, all drains, and (apart) the engine's own write.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "node"))

from distkv.core.configuration import Configuration
from distkv.ids import Member, node_session
from distkv.machine import commands as c
from distkv.machine.machine import Machine
from distkv.operations import Put
from distkv.storage.base import Engine
from distkv.storage.memory import MemoryEngine


def main() -> None:
    """Print microseconds per command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=40_000)
    arguments = parser.parse_args()
    for batch in (1, 32, 256):
        for keys in (1_000, 20_000):
            applied, written = measure(MemoryEngine(), arguments.commands, batch, keys)
            print(
                f"batch {batch:3}, {keys:6} keys: {applied:5.2f} us/command in the machine, "
                f"{written:5.2f} us/command in the {MemoryEngine.name} engine"
            )


def measure(engine: Engine, commands: int, batch: int, keys: int) -> tuple[float, float]:
    """Microseconds per command: in the machine, in engine.write."""
    members = tuple(Member(i, 100 + i) for i in range(5))
    machine = Machine.found(engine, b"bench", "bench", Configuration(1, 3, 2, members))
    session = node_session(100, 1)
    start = [c.pack_formed(b"bench", "bench"), c.pack_boot(100, 0, 1, 1)]
    entries = [c.entry_batch(1, start)]
    value = bytes(1024)
    for first in range(1, commands, batch):
        packed = []
        for sequence in range(first, first + batch):
            put = Put(b"key:%012d" % (sequence * 7919 % keys), value)
            low = max(0, first - batch)
            packed.append(c.pack_write(session, sequence, low, False, c.wire_mutations([put])))
        entries.append(c.entry_batch(first, packed))
    inside = writing = 0.0
    for slot, entry in enumerate(entries, 1):
        before = time.process_time()
        machine.apply(slot, entry)
        writes = machine.drain_writes()
        machine.drain_outcomes()
        machine.drain_events()
        middle = time.process_time()
        engine.write(writes)
        inside += middle - before
        writing += time.process_time() - middle
    return inside / commands * 1e6, writing / commands * 1e6


if __name__ == "__main__":
    main()
