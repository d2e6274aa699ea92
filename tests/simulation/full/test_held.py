"""A node whose metadata are being replaced, and who leads meanwhile."""

from __future__ import annotations

import pytest
from simulation.full.test_healing import forget, get, in_small_pieces, put, world_of

from distkv.member import layouts
from distkv.member.messages import MENDING, SnapshotWanted
from distkv.member.seat import Seat
from distkv.member.soundness import NotYet
from distkv.simulation.full_world import World
from distkv.simulation.member_host import Host
from distkv.storage.base import Table


def seat_of(host: Host) -> Seat:
    assert host.member is not None
    assert host.member.seat is not None
    return host.member.seat


def slow_down(seat: Seat, host: Host) -> None:
    give = seat.server.on_wanted

    def later(ordinal: int, wanted: SnapshotWanted) -> None:
        seat.kernel.call_at(seat.kernel.now + 0.4, lambda: give(ordinal, wanted))

    seat.server._source = in_small_pieces(host)  # type: ignore[method-assign]
    seat.server.on_wanted = later  # type: ignore[method-assign]


def hold(world: World, host: Host) -> None:
    """A row is rotten that no peer gives, and the state comes slowly, a row in 0.4 s."""
    seat_of(host).healer.exchange.ask = lambda up, rotten: False  # type: ignore[method-assign]
    for other in world.hosts:
        slow_down(seat_of(other), other)
    put(world, b"key", b"value")
    forget(host)
    host.engine.rot(Table.RECORD, b"key")
    seat_of(host).healer.on_rot(Table.RECORD, b"key")
    host.wake()
    assert world.run_until(lambda: seat_of(host).replica.held, 3.0)


def test_another_leads_though_the_held_node_would_stand_first() -> None:
    world = world_of((2, 1))
    leader = next(host for host in world.hosts if host.leads)
    held, other = (host for host in world.hosts if host is not leader)
    hold(world, held)
    world.crash(leader)
    election = seat_of(other).replica._election
    election.deadline = seat_of(other).replica._shared.now + 200
    assert get(world, b"key", other.ordinal) == b"value"
    put(world, b"key", b"newer", other.ordinal)
    assert other.leads
    assert seat_of(held).replica.held, "or the test shows nothing"
    leader.start()
    assert world.run_until(lambda: not seat_of(held).replica.held, 30.0)
    assert get(world, b"key", held.ordinal) == b"newer"


def test_leadership_is_not_handed_to_a_held_node() -> None:
    world = world_of((2, 1))
    leader = next(host for host in world.hosts if host.leads)
    held, other = (host for host in world.hosts if host is not leader)
    hold(world, held)
    greetings = seat_of(leader).owner.peers.greetings
    assert world.run_until(lambda: greetings[held.ordinal].state == MENDING, 3.0)
    assert seat_of(leader).best_successor() == other.ordinal
    world.crash(other)
    assert world.run_until(lambda: seat_of(leader).best_successor() is None, 3.0)


def test_a_leader_that_a_layout_leaves_out_hands_over_to_who_takes_it() -> None:
    """It asked the lowest ordinal again and again, and proposed nothing while it waited."""
    world = world_of((3, 2))
    leader, held = world.hosts[4], world.hosts[0]
    if not leader.leads:
        led = next(host for host in world.hosts if host.leads)
        assert seat_of(led).replica.transfer(leader.ordinal)
        led.wake()
        assert world.run_until(lambda: leader.leads, 5.0)
    hold(world, held)
    seat = seat_of(leader)
    greetings = seat.owner.peers.greetings
    assert world.run_until(lambda: greetings[held.ordinal].state == MENDING, 3.0)
    members = seat.machine.configuration.members[:4]

    def handed_over() -> bool:
        with pytest.raises(NotYet) as refusal:
            layouts.change(seat, seat.machine.membership.owner, 2, 2, members)
        return "hands over to node" in str(refusal.value)

    assert world.run_until(handed_over, 5.0)
    leader.wake()
    assert world.run_until(lambda: any(h.leads for h in world.hosts if h is not leader), 2.0)
    assert seat_of(held).replica.held, "or the test shows nothing"
