"""Rot in the metadata of several nodes at once, and of leaders under writes."""

from __future__ import annotations

import pytest
from simulation.full.test_healing import forget, get, put, rows_taken, sound, taken, world_of

from distkv.kernel import Future
from distkv.member.healing import OFFICE_SECONDS
from distkv.operations import Put, Write
from distkv.simulation.full_world import World
from distkv.simulation.settled import Settlement
from distkv.storage.base import Table


def rot_one_on_each(world: World) -> None:
    """Another record and another name on each node, of which none is remembered."""
    coded = world.hosts[0].engine.keys(Table.NAME)
    for host in world.hosts:
        seat = host.member.seat  # type: ignore[union-attr]
        forget(host)
        for table, key in (
            (Table.RECORD, b"key%d" % host.ordinal),
            (Table.NAME, coded[host.ordinal]),
        ):
            host.engine.rot(table, key)
            seat.healer.on_rot(table, key)  # type: ignore[union-attr]
        host.wake()


@pytest.mark.parametrize("writing", [False, True])
def test_nodes_whose_states_are_all_damaged_mend_each_other(writing: bool) -> None:
    world = world_of()
    for i in range(5):
        put(world, b"key%d" % i, b"value")
        put(world, b"large%d" % i, b"x" * 50_000)
    world.run_until(lambda: False, 2.0)
    rot_one_on_each(world)
    writes = 0
    while any(h.member.seat.healer.waiting for h in world.hosts):  # type: ignore[union-attr]
        if writing:
            put(world, b"other", b"value", writes % 5)
        else:
            world.run_until(lambda: False, 0.01)
        writes += 1
        assert writes < 1000
    assert [rows_taken(host) for host in world.hosts] == [2] * 5
    assert [taken(host) for host in world.hosts] == [0] * 5
    for host in world.hosts:
        assert sound(host, Table.RECORD, b"key%d" % host.ordinal)
        assert get(world, b"key%d" % host.ordinal, host.ordinal) == b"value"
    world.run_until(lambda: False, 1.0)
    assert Settlement(world)._unequal() == ""


def test_rows_that_rot_again_on_every_node_are_mended_again() -> None:
    world = world_of()
    for i in range(5):
        put(world, b"key%d" % i, b"value")
        put(world, b"large%d" % i, b"x" * 50_000)
    for _ in range(3):
        world.run_until(lambda: False, 15.0)
        rot_one_on_each(world)
        waiting = [host.member.seat.healer for host in world.hosts]  # type: ignore[union-attr]
        assert world.run_until(lambda: not any(h.waiting for h in waiting), 5.0)  # noqa: B023
    assert [taken(host) for host in world.hosts] == [0] * 5


CONFIGURATION = b"c"
"""A row of STATE that no entry of these tests writes anew."""


def test_leaders_do_not_change_all_the_time_while_nobody_has_a_state_to_give() -> None:
    world = world_of()
    put(world, b"key", b"value")
    elections = sum(h.member.seat.replica.elections for h in world.hosts)  # type: ignore
    for host in world.hosts:
        host.engine.rot(Table.STATE, CONFIGURATION)
        host.member.seat.healer.on_rot(Table.STATE, CONFIGURATION)  # type: ignore[union-attr]
        host.wake()
    world.run_until(lambda: False, 20.0)
    more = sum(h.member.seat.replica.elections for h in world.hosts) - elections  # type: ignore
    assert more <= 5 * 20 / OFFICE_SECONDS
    put(world, b"other", b"value")


@pytest.mark.parametrize("gap", [0.05, 0.01, 0.003])
def test_a_leader_under_writes_gets_a_state(gap: float) -> None:
    """It is ahead of whoever gives one, so it lets another lead first; clients hardly notice."""
    world = world_of((2, 1))
    for i in range(20):
        put(world, b"key%d" % i, b"value")
    leader = next(h for h in world.hosts if h.leads)
    seat = leader.member.seat  # type: ignore[union-attr]
    on_piece = seat.receiver.on_piece  # type: ignore[union-attr]
    seat.receiver.on_piece = lambda ordinal, piece: leader._at(  # type: ignore
        0.02, lambda: (on_piece(ordinal, piece), leader.wake())
    )
    other = next(h for h in world.hosts if h is not leader)
    took: list[float] = []

    def write(number: int) -> None:
        began = world.now
        future = other.execute(Write((Put(b"w%d" % (number % 50), b"v"),)), world.now + 20.0)
        assert isinstance(future, Future)
        future.add_callback(lambda _: took.append(world.now - began))
        other.wake()
        if seat.healer.waiting or number < 20:  # type: ignore[union-attr]
            other._at(gap, lambda: write(number + 1))

    write(0)
    world.run_until(lambda: len(took) > 15, 5.0)
    leader.engine.rot(Table.STATE, CONFIGURATION)
    seat.healer.on_rot(Table.STATE, CONFIGURATION)  # type: ignore[union-attr]
    leader.wake()
    assert world.run_until(lambda: not seat.healer.waiting, 10.0)  # type: ignore[union-attr]
    assert max(took) < 1.0
