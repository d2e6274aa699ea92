"""A world that ends with a sound node suspected is a broken one."""

from __future__ import annotations

import pytest

from distkv.simulation import settled
from distkv.simulation.clients import Client
from distkv.simulation.full_world import CALM, Violation, World


@pytest.fixture
def world() -> World:
    world = World(1, (2, 1), CALM, transport=False)
    world.begin()
    world.clients.append(Client(world, 0))
    world.heal()
    return world


def test_a_sound_node_that_is_suspected_is_found(world: World) -> None:
    member = world.hosts[0].member
    assert member is not None
    member.suspicions.add(1.0, "node 2", "durable_regression", "1 flushes, 2 were told before")
    with pytest.raises(Violation, match="node 0 suspects node 2 of durable_regression"):
        settled.final(world)


def test_bad_datagrams_are_no_sign_of_a_false_node(world: World) -> None:
    member = world.hosts[0].member
    assert member is not None
    member.suspicions.add(1.0, "10.0.0.1", "garbage", "")
    settled.final(world)
