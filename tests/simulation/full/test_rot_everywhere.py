"""Rows of metadata that rot on every node, again and again, while nobody writes.

Each is sound on another node at any time, so all of them are mended, however many there are and
whoever is started again meanwhile. (While clients write, a node may be unable to apply its next
entry and need a whole state that nobody has: README, "Healing".)
"""

from __future__ import annotations

import dataclasses
import random

import pytest
from simulation.full.test_healing import sound

from distkv.simulation.clients import Client
from distkv.simulation.full_world import CALM, World
from distkv.simulation.member_host import Host
from distkv.simulation.settled import Settlement, final
from distkv.storage.base import Table

TABLES = (Table.RECORD, Table.NAME, Table.EXPIRY)
SEEDS, SEEDS_LONG = range(1, 13), range(100, 220)


def quiet_world(seed: int, rng: random.Random) -> World:
    """One in which a client has written, and has ended."""
    geometry = rng.choice(((2, 1), (3, 2)))
    world = World(seed, geometry, CALM, transport=False, layouts=False, restores=False)
    scrub = rng.choice((2.0, 5.0, 30.0))
    world.member_options = dataclasses.replace(world.member_options, scrub_period=scrub)
    world.begin()
    client = Client(world, 0)
    world.clients.append(client)
    world.run_until(lambda: False, 3.0)
    client.running = False
    world.run_until(lambda: not client.busy, 20.0)
    world.run_until(lambda: False, 6.0)
    return world


def rot(world: World, host: Host, count: int, rng: random.Random) -> None:
    for _ in range(count):
        table = rng.choice(TABLES)
        keys = host.engine.keys(table, b"", None, 1 << 30)
        if not keys:
            continue
        key = rng.choice(keys)
        if all(sound(other, table, key) for other in world.hosts if other is not host):
            host.engine.rot(table, key)
            if host.member is not None and host.member.seat is not None and rng.random() < 0.5:
                host.member.seat.healer.on_rot(table, key)
                host.wake()


def inflict(world: World, rng: random.Random) -> None:
    """Rot and restarts for some seconds."""
    end = world.now + rng.choice((5.0, 15.0))
    rate = rng.choice((0.02, 0.1, 0.3))
    down: Host | None = None
    while world.now < end:
        world.run_until(lambda: False, rng.uniform(0.01, 0.3))
        for host in world.hosts:
            if host.alive and rng.random() < rate:
                rot(world, host, rng.choice((1, 1, 3, 25)), rng)
            if host.alive and host.seated and rng.random() < 0.3:
                records = host.machine.keyspace.records
                records._young, records._old = {}, {}
        if down is None and rng.random() < 0.08:
            down = rng.choice(world.hosts)
            world.crash(down)
        elif down is not None and rng.random() < 0.2:
            down.start()
            down = None
    if down is not None:
        down.start()


def live(seed: int) -> None:
    rng = random.Random(f"rot everywhere {seed}")
    world = quiet_world(seed, rng)
    inflict(world, rng)
    world.heal()
    final(world)
    for host in world.hosts:
        seat = host.member.seat  # type: ignore[union-attr]
        assert not seat.healer.waiting  # type: ignore[union-attr]
        assert not seat.replica.held  # type: ignore[union-attr]
    assert world.run_until(lambda: len({h.machine.applied for h in world.hosts}) == 1, 5.0)
    assert Settlement(world)._unequal() == ""


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_is_mended(seed: int) -> None:
    live(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS_LONG)
def test_everything_is_mended_in_a_long_campaign(seed: int) -> None:
    live(seed)
