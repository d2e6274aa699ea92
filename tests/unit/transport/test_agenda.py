"""Nobody is looked at later than it must be: what is skipped, or asked ahead, costs no time."""

from __future__ import annotations

import pytest
from unit.transport.world import Link, Node, World

from distkv.transport.agenda import _timeout_of
from distkv.transport.base import Lane
from distkv.transport.options import MEBI


def exact(node: Node, now: float) -> float:
    """When the first peer has something to do, all of them asked."""
    return min((_timeout_of(peer, now) for peer in node.hub._peers.values()), default=now + 1)


class Watched(World):
    """Compares with `exact` before each event."""

    compared = 0

    def step(self, limit: float) -> bool:
        self.flush()
        for node in self.nodes.values():
            due = node.hub.timeout(self.now)
            resting = node.hub.rests(self.now)
            wanted = exact(node, self.now)
            assert due is not None
            assert due <= max(wanted, self.now)
            assert resting is None or resting <= wanted
            self.compared += 1
        return super().step(limit)


@pytest.mark.parametrize("seed", range(12))
def test_no_peer_is_forgotten_whatever_is_sent_and_lost(seed: int) -> None:
    world = Watched(seed, Link(loss=0.05 * (seed % 3), reorder=0.1, duplicate=0.05))
    nodes = [world.add(ordinal) for ordinal in range(3)]
    world.join(*nodes)
    world.spend(0.5)
    choose = world.random
    for _ in range(400):
        sender = choose.choice(nodes)
        lane = choose.choice([Lane.CONTROL, Lane.CONTROL, Lane.CONTROL, Lane.BEAT, Lane.BULK])
        size = choose.choice([10, 300, 1100, 5000]) if lane is not Lane.BEAT else 100
        sender.hub.send(choose.randrange(3), lane, bytes(size), choose.randrange(2))
        world.spend(choose.choice([0.0, 0.0004, 0.002, 0.004, 0.03, 0.2]))
    assert world.compared > 400


def test_request_and_answer_need_no_look_at_the_others() -> None:
    """The usual traffic: small messages one by one, each acknowledged by the next."""
    world = Watched(1, Link(delay=0.0001))
    one, other = world.pair()
    world.spend(1.0)
    asked = 0
    for number in range(1, 200):
        one.hub.send(1, Lane.CONTROL, bytes(1000))
        world.run_messages(other, number)
        if other.hub.rests(world.now) is None:
            asked += 1
        other.hub.send(0, Lane.CONTROL, bytes(50))
        world.run_messages(one, number)
    assert asked < 60


def test_an_early_answer_to_timeout_leads_to_retransmission_all_the_same() -> None:
    """The one message that was sent is lost, and nothing else happens: it is sent again."""
    world = World(1, Link(delay=0.0001))
    one, other = world.pair()
    world.spend(1.0)
    lost = []
    world.link.tamper = lambda datagram: lost.append(datagram) if not lost else datagram
    one.hub.send(1, Lane.CONTROL, b"once more")
    before = world.now
    world.run_messages(other, 1)
    assert lost
    assert world.now - before < 0.05


def test_large_messages_go_round_the_short_cut() -> None:
    world = Watched(3, Link(delay=0.0001))
    one, other = world.pair()
    payloads = [bytes([n]) * size for n, size in enumerate((MEBI, 10, 70_000, 0, 1200))]
    for payload in payloads:
        one.hub.send(1, Lane.CONTROL, payload)
        world.spend(0.0003)
    world.run_messages(other, len(payloads))
    assert [message[2] for message in other.handler.messages] == payloads


def test_what_comes_between_sending_and_asking_counts() -> None:
    world = World(4)
    one, other = world.pair()
    world.spend(1.0)
    world.run(lambda: (one.hub.rests(world.now) or 0.0) > world.now + 0.01)
    one.hub.send(1, Lane.CONTROL, b"first")
    assert one.hub.poll(world.now)
    one.hub.send(1, Lane.CONTROL, b"second")
    assert one.hub.timeout(world.now) == world.now
    world.run(lambda: (one.hub.rests(world.now) or 0.0) > world.now + 0.01)
    one.hub.send(1, Lane.CONTROL, b"third")
    assert one.hub.poll(world.now)
    for message in (b"lost", b"out of order"):
        other.hub.send(0, Lane.CONTROL, message)
        datagrams = other.hub.poll(world.now)
    one.hub.receive(datagrams[0][1][0], other.address, world.now)
    due = one.hub.timeout(world.now)
    assert due is not None
    assert due <= world.now, "a gap is acknowledged at once"
