"""A world made for one question: does a disk count as whole while it is refilled?

In drawn worlds a lost disk holds a few values that are old enough to count, and is refilled
before the next look at what the status says. Here refilling takes seconds.
"""

from __future__ import annotations

import random
from dataclasses import replace

from distkv.kernel import Future
from distkv.operations import Put, Write
from distkv.simulation.budget import YOUNG
from distkv.simulation.full_world import CALM, World
from distkv.simulation.owner import Owner

LENGTH = 5000
REFILL = 12.0
"""Seconds for which it is watched."""


def refilled(seed: int) -> World:
    """Values that are old, then lost disks, as many as may be; refilled slowly.

    Raises Violation.
    """
    rng = random.Random(seed)
    world = World(seed, rng.choice(((3, 2), (2, 1), (1, 2), (4, 3))), CALM)
    world.member_options = replace(
        world.member_options,
        repair_bytes_per_second=rng.randint(1000, 4000),
        stripe_bytes=65536,
        stream_above=1 << 20,
    )
    world.owner_replaces = True
    world.begin()
    world.budget.start()
    Owner(world).start()
    for number in range(rng.randint(4, 8)):
        host = rng.choice(world.hosts)
        write = Write((Put(b"key%d" % number, rng.randbytes(LENGTH)),))
        future = host.execute(write, world.now + 5.0)
        assert isinstance(future, Future)
        host.wake()
        assert world.run_until(lambda future=future: future.done, 6.0)  # type: ignore[misc]
        assert future.error is None
    world.run_until(lambda: False, YOUNG + 1.0)
    for host in rng.sample(world.hosts, rng.randint(1, world.bearable)):
        world.lose_disk(host)
        world.after(rng.uniform(0.05, 0.5), host.start)
    world.run_until(lambda: False, REFILL)
    return world


DIRECTED = {"budget_not_counting_unfilled_disks": refilled}
"""Mutations that drawn worlds do not show, and the world made for each."""
