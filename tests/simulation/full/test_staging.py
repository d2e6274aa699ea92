"""A swap for a peer's state that was broken off, and whose staged pieces have rotted since."""

from __future__ import annotations

import pytest
from simulation.full import test_healing as healing
from unit.member import snapshots

from distkv.errors import NoQuorum
from distkv.machine.snapshot import is_installing
from distkv.member.staging import stage_of
from distkv.simulation.full_world import World
from distkv.simulation.member_host import Host
from distkv.storage.base import Table


def break_off(host: Host, giver: Host, installed: int) -> None:
    """As a crash after so many pieces were installed would leave the directory."""
    snapshots.break_off(host.engine, giver.engine, installed, 200)
    host.engine.flush()


@pytest.mark.parametrize("installed", [0, 3])
@pytest.mark.parametrize("led", [False, True])
def test_a_node_without_a_state_takes_one_from_a_peer(installed: int, led: bool) -> None:
    world = healing.world_of()
    for i in range(20):
        healing.put(world, b"key%d" % i, b"value")
    world.run_until(lambda: False, 2.0)
    host = next(h for h in world.hosts if h.leads is led)
    giver = next(h for h in world.hosts if h is not host)
    world.crash(host)
    break_off(host, giver, installed)
    host.engine.rot(Table.META, stage_of(1))
    for i in range(20, 30):
        healing.put(world, b"key%d" % i, b"value", giver.ordinal)
    host.start()
    assert host.member is not None
    assert host.member.seat is None
    assert host.member.health()["state"] == "mending"
    assert world.run_until(lambda: host.votes, 10.0)
    assert not is_installing(host.engine)
    assert healing.get(world, b"key29", host.ordinal) == b"value"
    goes_on_without_two_others(world, host)


def goes_on_without_two_others(world: World, host: Host) -> None:
    """Its vote counts again: with two more down it is needed."""
    others = [h for h in world.hosts if h is not host][:2]
    for other in others:
        world.crash(other)
    assert world.run_until(lambda: any(h.leads for h in world.hosts), 20.0)
    healing.put(world, b"last", b"value", host.ordinal)
    assert healing.get(world, b"last", host.ordinal) == b"value"


def test_a_node_without_a_state_is_not_one_of_those_that_answer() -> None:
    """Else the other one that runs calls itself serving, and keeps its clients waiting."""
    world = healing.world_of((2, 1))
    healing.put(world, b"key", b"value")
    world.run_until(lambda: False, 2.0)
    host, giver = (h for h in world.hosts if not h.leads)
    leader = next(h for h in world.hosts if h.leads)
    world.crash(host)
    break_off(host, giver, 3)
    host.engine.rot(Table.META, stage_of(1))
    world.crash(leader)
    assert giver.member is not None
    giver.member.seat.server._source = lambda key, piece: None  # type: ignore[union-attr]
    host.start()
    assert world.run_until(lambda: host.ordinal in giver.member.peers.greetings, 5.0)
    assert world.run_until(lambda: giver.member.health()["state"] == "no quorum", 5.0)
    with pytest.raises(NoQuorum, match="1 of 3 nodes answer"):
        healing.get(world, b"key", giver.ordinal)
    leader.start()
    assert world.run_until(lambda: host.votes, 20.0)
