"""Heartbeats, silence, one-way links, moving addresses, sizes of datagrams."""

from __future__ import annotations

import pytest
from unit.transport.world import SMALL, Link, World

from distkv.transport.base import Lane
from distkv.transport.options import BASE_DATAGRAM, Options


def test_idle_connections_stay_up_and_cost_little() -> None:
    world = World(1)
    one, other = world.pair()
    world.spend(1)
    before = world.datagrams
    world.spend(10)
    assert not one.handler.down
    assert not other.handler.down
    assert world.datagrams - before <= 230, "about one datagram each per ping interval"


def test_a_dead_peer_is_noticed_in_time_and_greeted_until_it_is_back() -> None:
    world = World(2)
    one, other = world.pair()
    world.spend(1)
    start = world.now
    del world.nodes[other.address]
    world.run(lambda: bool(one.handler.down))
    assert world.now - start <= SMALL.dead_after + SMALL.ping_interval
    assert one.handler.down[0][1] == "silent"
    assert not one.hub.send(1, Lane.CONTROL, b"nobody")
    world.spend(3)
    back = world.add(1, boot=2)
    start = world.now
    world.run(lambda: one.hub.connected(1) == back.hub.identity)
    assert world.now - start < 0.7


def test_datagrams_that_were_held_back_do_not_keep_a_silent_peer() -> None:
    world = World(17)
    one, other = world.pair()
    world.spend(0.3)
    world.keep_sent = True
    world.link.cut = lambda source, target: source == 1
    for _ in range(12):
        other.hub.send(0, Lane.BEAT, b"held back")
        world.spend(0.03)
    world.link.cut = lambda source, target: False
    held_back = [d for _, source, _, d in world.sent if source == other.address]
    assert len(held_back) >= 12
    world.spend(0.3)
    assert not one.handler.down
    del world.nodes[other.address]
    taken = len(one.handler.messages)
    for datagram in held_back:
        world.post(other.address, one.address, datagram)
        world.spend(0.1)
    assert len(one.handler.messages) > taken, "they are authentic, and seen for the first time"
    assert one.handler.down[0][1] == "silent"
    assert not one.hub.connected(1)


def test_a_late_datagram_is_life_if_it_is_the_newest() -> None:
    world = World(18)
    one, other = world.pair()
    world.spend(0.3)
    world.link.delay = 0.5
    world.spend(0.55)
    assert not one.handler.down
    assert not other.handler.down


def test_a_stopping_node_says_so() -> None:
    world = World(3)
    one, other = world.pair()
    world.spend(0.2)
    other.hub.close(world.now)
    start = world.now
    world.run(lambda: bool(one.handler.down))
    assert one.handler.down[0][1] == "peer stopped"
    assert world.now - start < 0.01


@pytest.mark.parametrize("deaf", [0, 1])
def test_a_link_that_works_one_way_counts_as_down(deaf: int) -> None:
    world = World(4)
    one, other = world.pair()
    world.spend(0.5)
    world.link.cut = lambda source, target: target == deaf
    start = world.now
    world.run(lambda: bool(one.handler.down and other.handler.down), 5)
    assert world.now - start < 2.5


def test_messages_flow_again_after_a_partition() -> None:
    world = World(5)
    one, other = world.pair()
    world.link.cut = lambda source, target: True
    world.run(lambda: bool(one.handler.down and other.handler.down), 5)
    world.spend(5)
    world.link.cut = lambda source, target: False
    world.run(lambda: bool(one.hub.connected(1) and other.hub.connected(0)), 3)
    assert one.hub.send(1, Lane.CONTROL, b"again")
    world.run(lambda: bool(other.handler.messages))


def test_the_connection_follows_an_address_that_moves() -> None:
    world = World(6)
    one, other = world.pair()
    world.spend(0.3)
    del world.nodes[other.address]
    other.address = "moved-1"
    world.nodes["moved-1"] = other
    other.hub.send(0, Lane.CONTROL, b"from elsewhere")
    world.run(lambda: bool(one.handler.messages))
    one.hub.send(1, Lane.CONTROL, b"found you")
    world.run(lambda: bool(other.handler.messages), 2)
    assert not one.handler.down
    assert one.hub._peers[1].address == "moved-1"


def test_the_address_may_move_where_no_larger_size_is_tried() -> None:
    world = World(16)
    one, other = world.pair(options=Options(datagram_sizes=()))
    del world.nodes[other.address]
    other.address = "moved-1"
    world.nodes["moved-1"] = other
    world.run(lambda: one.hub._peers[1].address == "moved-1")
    world.spend(3)
    assert not one.handler.down


def test_a_forged_or_old_datagram_does_not_move_the_address() -> None:
    world = World(7)
    world.keep_sent = True
    one, other = world.pair()
    world.spend(0.3)
    old = [d for _, s, _, d in world.sent if s == other.address]
    for datagram in [*old, old[-1][:-1] + bytes([old[-1][-1] ^ 1])]:
        world.post("elsewhere-1", one.address, datagram)
    world.spend(0.05)
    assert one.hub._peers[1].address == other.address


def test_a_late_datagram_from_the_old_address_does_not_move_it_back() -> None:
    world = World(8)
    one, other = world.pair()
    world.spend(0.3)
    one.hub.send(1, Lane.CONTROL, b"first")
    ((address, (late,)),) = one.hub.poll(world.now)
    assert address == other.address
    one.hub.send(1, Lane.CONTROL, b"second")
    ((_, (newer,)),) = one.hub.poll(world.now)
    other.hub.receive(newer, "new place", world.now)
    other.hub.receive(late, one.address, world.now)
    assert other.hub._peers[0].address == "new place"
    assert len(other.handler.messages) == 2 or not other.handler.messages


@pytest.mark.parametrize("largest", [1200, 1452, 1472, 9000, 65507])
def test_the_size_of_datagrams_is_found(largest: int) -> None:
    options = Options()
    world = World(9, Link(largest=largest))
    one, _ = world.pair(options=options)
    world.spend(3)
    sizes = [size for size in (*options.datagram_sizes, BASE_DATAGRAM) if size <= largest]
    assert one.hub.statistics()[0].connection.datagram == sizes[0]


def test_a_path_that_shrinks_is_survived() -> None:
    world = World(10, Link(largest=9000))
    one, other = world.pair(options=Options())
    world.spend(2)
    world.link.largest = 1400
    one.hub.send(1, Lane.CONTROL, bytes(50_000))
    world.run(lambda: bool(other.handler.messages), 5)
    assert not one.handler.down


def test_the_interface_refuses_a_size() -> None:
    world = World(11, Link(largest=1452))
    one, _ = world.pair(options=Options())
    start = world.now
    for size in (61_440, 8_952, 1_472):
        for _ in range(2):
            world.step(world.now + 0.01)
            one.hub.refused_size("node-1", size, world.now)
    world.run(lambda: one.hub.statistics()[0].connection.datagram == 1452)
    assert world.now - start < 0.3
