"""Who may connect, and which of several connections stands."""

from __future__ import annotations

from typing import Any

import pytest
from unit.transport.world import CLUSTER, SECRET, SMALL, Link, World, agree

from distkv.transport.base import Identity, Lane
from distkv.transport.hub import REPLAY_AGE
from distkv.transport.keys import KeyRing
from distkv.transport.packet import DATA, HELLO

OTHER_SECRET = b"another secret of the same size !"


@pytest.mark.parametrize("seed", range(60))
def test_simultaneous_greetings_end_in_one_connection(seed: int) -> None:
    world = World(seed, Link(loss=(seed % 3) * 0.1, reorder=0.5, duplicate=0.2, late=0.05))
    one, other = world.add(0), world.add(1)
    one.hub.set_peer(1, other.address, world.now)
    world.spend(world.random.random() * 0.04)
    other.hub.set_peer(0, one.address, world.now)
    world.run_connected(one, other)
    ups = len(one.handler.up), len(other.handler.up)
    world.spend(3)
    assert agree(one, other)
    assert (len(one.handler.up), len(other.handler.up)) == ups, "the connection stands"
    assert not one.hub._half_open
    assert not other.hub._half_open
    assert not one.handler.suspicions


def test_one_side_alone_may_greet_whichever_it_is() -> None:
    for caller, called in ((0, 1), (1, 0)):
        world = World(caller)
        one, other = world.add(caller), world.add(called)
        one.hub.set_peer(called, other.address, world.now)
        world.run_connected(one, other)


def test_the_lower_side_is_reached_even_if_it_cannot_reach_the_higher() -> None:
    world = World(1)
    one, other = world.add(0), world.add(1)
    one.hub.set_peer(1, "nowhere", world.now)
    other.hub.set_peer(0, one.address, world.now)
    world.run_connected(one, other)


def test_restart_replaces_the_old_self_at_once() -> None:
    world = World(2)
    one, _ = world.pair()
    world.spend(0.5)
    again = world.add(1, boot=2)
    again.hub.set_peer(0, one.address, world.now)
    start = world.now
    world.run(lambda: (peer := one.hub.connected(1)) is not None and peer.boot == 2)
    assert world.now - start < 0.2
    assert [reason for _, reason in one.handler.down] == ["restarted"]
    assert one.hub.send(1, Lane.CONTROL, b"to the new self")
    world.run(lambda: bool(again.handler.messages))


def test_an_older_boot_is_refused_and_told() -> None:
    world = World(3)
    one = world.add(0)
    new = world.add(1, boot=5)
    new.hub.set_peer(0, one.address, world.now)
    world.run(lambda: one.hub.connected(1) is not None)
    old = world.add(1, boot=4, address="node-1-old")
    told: list[Identity] = []
    old.hub.outdated = told.append
    old.hub.set_peer(0, one.address, world.now)
    world.run(lambda: "old_boot" in one.handler.kinds() and "old_boot" in old.handler.kinds())
    assert told == [one.hub.identity]
    peer = one.hub.connected(1)
    assert peer is not None
    assert peer.boot == 5


def test_another_incarnation_takes_a_seat_only_when_its_holder_is_silent() -> None:
    world = World(4)
    one, holder = world.pair()
    world.spend(0.3)
    joiner = world.add(1, incarnation=77, address="node-1-new")
    joiner.hub.set_peer(0, one.address, world.now)
    world.run(lambda: "seat_taken" in one.handler.kinds())
    assert one.hub.connected(1) == holder.hub.identity
    del world.nodes[holder.address]
    world.run(lambda: one.hub.connected(1) == joiner.hub.identity, 5)


def test_a_member_takes_its_seat_from_a_stranger_that_lives_on() -> None:
    """Who was replaced, but is only cut off from its owner, may keep its connections for ever."""
    world = World(4)
    one, replaced = world.pair()
    member = world.add(1, incarnation=77, address="node-1-new")
    member.hub.set_peer(0, one.address, world.now)
    world.run(lambda: "seat_taken" in one.handler.kinds())
    assert one.hub.connected(1) == replaced.hub.identity
    one.hub.seated = lambda ordinal, incarnation: (ordinal, incarnation) == (1, 77)
    world.run(lambda: one.hub.connected(1) == member.hub.identity, 5)
    ups = len(one.handler.up)
    world.spend(3)
    assert one.hub.connected(1) == member.hub.identity
    assert len(one.handler.up) == ups, "the stranger does not get it back"
    assert "seat_taken" in replaced.handler.kinds()


@pytest.mark.parametrize(
    ("other", "kind"),
    [
        ({"cluster": b"another cluster!"}, "foreign_cluster"),
        ({"generation": 2}, "foreign_generation"),
        ({"keys": KeyRing(OTHER_SECRET)}, "unknown_key"),
        ({"keys": KeyRing(None, insecure=True)}, "unknown_key"),
    ],
)
def test_foreign_nodes_are_refused_and_reported(other: dict[str, Any], kind: str) -> None:
    world = World(5)
    one = world.add(0)
    foreign = world.add(1, **other)
    world.join(one, foreign)
    world.run(lambda: kind in one.handler.kinds() and kind in foreign.handler.kinds())
    world.spend(2)
    assert not one.handler.up
    assert not foreign.handler.up


def test_a_node_that_is_in_no_cluster_yet_may_connect() -> None:
    world = World(6)
    one, joiner = world.add(0), world.add(1, cluster=b"", generation=0)
    world.join(one, joiner)
    world.run(lambda: bool(one.handler.up and joiner.handler.up))
    assert joiner.handler.up[0].cluster == CLUSTER


def test_a_wrong_address_does_not_connect_to_the_wrong_node() -> None:
    world = World(7)
    one, other = world.add(0), world.add(2)
    one.hub.set_peer(1, other.address, world.now)
    world.run(lambda: "wrong_target" in one.handler.kinds())
    assert not one.handler.up
    assert not other.handler.up


def test_rotation_of_the_cluster_key_in_three_steps() -> None:
    world = World(8)
    one, other = world.pair()
    steps = [
        KeyRing(SECRET, OTHER_SECRET),
        KeyRing(OTHER_SECRET, SECRET),
        KeyRing(OTHER_SECRET),
    ]
    for number, ring in enumerate(steps):
        one.hub.set_keys(ring, world.now)
        world.spend(0.5)
        restarted = world.add(1, boot=10 + number, keys=other.hub._keys)
        world.join(one, restarted)
        world.run_connected(one, restarted)
        other = restarted
        other.hub.set_keys(ring, world.now)
        world.run_connected(one, other)
    assert one.hub._session_keys.popitem()[1].name == KeyRing(OTHER_SECRET).current.name
    assert not one.handler.suspicions


def test_a_retired_key_ends_its_connections() -> None:
    world = World(9)
    one, other = world.pair()
    for node in (one, other):
        node.hub.set_keys(KeyRing(OTHER_SECRET), world.now)
    assert one.handler.down[0][1] == "key retired"
    world.run_connected(one, other)


def test_keys_must_be_long_and_their_absence_chosen() -> None:
    with pytest.raises(ValueError, match="insecure"):
        KeyRing(None)
    with pytest.raises(ValueError, match="at least"):
        KeyRing(b"short")
    with pytest.raises(ValueError, match="exclude"):
        KeyRing(SECRET, insecure=True)
    world = World(10)
    world.pair(keys=KeyRing(None, insecure=True))


def test_replayed_datagrams_of_a_whole_connection_change_nothing() -> None:
    world = World(11)
    world.keep_sent = True
    one, other = world.pair()
    for number in range(20):
        one.hub.send(1, Lane.CONTROL, b"once %d" % number)
        other.hub.send(0, Lane.BULK, b"once %d" % number)
        world.spend(0.01)
    recorded = list(world.sent)
    world.spend(REPLAY_AGE + 1)
    counts = len(one.handler.messages), len(other.handler.messages), len(other.handler.up)
    for _, source, target, datagram in recorded:
        world.post(source, target, datagram)
        world.post("an attacker", target, datagram)
        world.spend(0.001)
    assert (len(one.handler.messages), len(other.handler.messages), len(other.handler.up)) == counts
    assert other.handler.kinds() | one.handler.kinds() == {"replayed_greeting"}
    assert other.hub._peers[0].address == one.address
    one.hub.send(1, Lane.CONTROL, b"still there")
    world.run(lambda: other.handler.messages[-1][2] == b"still there")


def test_a_greeting_replayed_to_a_restarted_node_connects_nothing() -> None:
    """The restarted node remembers no greetings; but the replayer cannot finish this one."""
    world = World(12)
    world.keep_sent = True
    one, _ = world.pair()
    hello = next(d for _, s, t, d in world.sent if d[0] == HELLO and s == one.address)
    del world.nodes[one.address]
    restarted = world.add(1, boot=2)
    world.post("an attacker", restarted.address, hello)
    world.spend(0.1)
    assert len(restarted.hub._half_open) == 1
    for _, source, target, datagram in list(world.sent):
        if source == one.address and datagram[0] & DATA:
            world.post("an attacker", target, datagram)
    world.spend(5)
    assert not restarted.hub._half_open
    assert not restarted.handler.up


def test_greetings_that_lead_nowhere_are_bounded() -> None:
    world = World(13)
    target = world.add(0, options=SMALL)
    for ordinal in range(1, 200):
        caller = world.add(ordinal)
        caller.hub.set_peer(0, target.address, world.now)
        caller.hub.on_timer(world.now + 1)
        for _, datagrams in caller.hub.poll(world.now):
            for datagram in datagrams:
                target.hub.receive(datagram, f"x-{ordinal}", world.now)
    assert len(target.hub._half_open) <= SMALL.half_open_limit
    assert len(target.hub._peers) <= SMALL.peers_limit
    assert not target.handler.up
