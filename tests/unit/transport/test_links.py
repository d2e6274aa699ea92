"""Pairs of hubs over lossy links in virtual time."""

from __future__ import annotations

import pytest
from unit.transport.world import SMALL, Link, World

from distkv.transport.base import Lane
from distkv.transport.options import MESSAGE_OVERHEAD, Options

LINKS = {
    "clean": Link(),
    "five percent lost": Link(loss=0.05, duplicate=0.05, reorder=0.1),
    "a fifth lost": Link(loss=0.2, duplicate=0.2, reorder=0.3),
    "mostly late": Link(reorder=0.8, late=0.05),
    "slow": Link(rate=300_000, queue=20_000, loss=0.01),
}


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("seed", range(12))
def test_messages_arrive_once_and_in_order(name: str, seed: int) -> None:
    world = World(seed, LINKS[name])
    one, other = world.pair()
    sent: dict[tuple[int, Lane, int], list[bytes]] = {}
    total = 0
    for number in range(60):
        for source, target in ((one, 1), (other, 0)):
            lane = Lane(world.random.randrange(2))
            stream = world.random.choice((0, 1, 63))
            size = world.random.choice((0, 20, 20, 900, 1500, 20_000))
            payload = b"%d:%d:" % (stream, number) + bytes(size)
            assert source.hub.send(target, lane, payload, stream)
            sent.setdefault((1 - target, lane, stream), []).append(payload)
            total += 1
        world.spend(world.random.choice((0.0, 0.0, 0.003)))
    world.run(lambda: len(one.handler.messages) + len(other.handler.messages) >= total, 120)
    world.spend(1.5)
    got: dict[tuple[int, Lane, int], list[bytes]] = {}
    for ordinal, lane, payload in one.handler.messages + other.handler.messages:
        got.setdefault((ordinal, lane, int(payload.split(b":")[0])), []).append(payload)
    assert got == sent
    for node in (one, other):
        assert not node.handler.down
        assert not node.handler.suspicions
        line = node.hub.statistics()[0].connection
        assert line.queued_control == line.queued_bulk == line.in_flight == 0
        if LINKS[name].loss >= 0.05:
            assert line.packets_lost > 0
            assert line.chunks_resent > 0


def test_the_largest_message_goes_after_small_ones_where_the_window_holds_no_more() -> None:
    """A part of the window was used, too little for a report of what is free again."""
    largest = 40_000
    options = Options(
        datagram_sizes=(), bulk_message=largest, bulk_window=largest + MESSAGE_OVERHEAD
    )
    world = World(19, Link(loss=0.05))
    one, other = world.pair(options=options)
    for number in range(3):
        assert one.hub.send(1, Lane.BULK, bytes(1000), number)
        world.run_messages(other, number + 1)
        world.spend(0.2)
    assert one.hub.send(1, Lane.BULK, bytes(largest))
    world.run_messages(other, 4)


def test_the_largest_messages_of_both_lanes() -> None:
    world = World(3, Link(loss=0.02))
    one, other = world.pair()
    control = world.random.randbytes(SMALL.control_message)
    bulk = world.random.randbytes(SMALL.bulk_message)
    assert one.hub.send(1, Lane.BULK, bulk)
    assert one.hub.send(1, Lane.CONTROL, control)
    world.run(lambda: len(other.handler.messages) == 2, 60)
    assert {payload for _, _, payload in other.handler.messages} == {control, bulk}
    with pytest.raises(ValueError, match="limit"):
        one.hub.send(1, Lane.CONTROL, control + b"x")


def test_a_full_queue_refuses_and_says_when_it_has_room() -> None:
    world = World(4, Link(rate=2_000_000))
    one, other = world.pair()
    sent = 0
    while one.hub.send(1, Lane.BULK, bytes(100_000)):
        sent += 1
    assert one.hub.queued(1, Lane.BULK) <= SMALL.bulk_queue
    assert one.hub.send(1, Lane.CONTROL, b"the other lane has its own queue")
    world.run(lambda: (1, Lane.BULK) in one.handler.drained)
    assert one.hub.queued(1, Lane.BULK) <= SMALL.bulk_queue // 2
    assert one.hub.send(1, Lane.BULK, bytes(100_000))
    world.run(lambda: len(other.handler.messages) == sent + 2, 60)


def test_memory_of_the_receiver_is_bounded_while_a_piece_is_missing() -> None:
    """The first message never gets through: the rest waits, within the window."""
    options = Options(
        control_message=100_000,
        control_window=150_000,
        bulk_message=100_000,
        bulk_window=150_000,
        datagram_sizes=(),
    )
    world = World(6)
    one, other = world.pair(options=options)
    biggest = 0
    world.link.tamper = lambda datagram: datagram if world.random.random() < 0.6 else None
    for _ in range(30):
        assert one.hub.send(1, Lane.CONTROL, bytes(10_000))
    for _ in range(2_000):
        assert one.hub.send(1, Lane.CONTROL, b"small")
    session = other.hub._peers[0].session
    assert session is not None
    limit = world.now + 60
    while len(other.handler.messages) < 2_030:
        assert world.step(limit)
        biggest = max(biggest, session._control_in.held)
    assert options.control_window // 2 < biggest <= options.control_window
    assert not other.handler.down


def test_a_request_and_its_answer_are_two_datagrams() -> None:
    world = World(7)
    one, other = world.pair()
    world.spend(0.35)
    before = world.datagrams
    for count in range(1, 51):
        one.hub.send(1, Lane.CONTROL, b"question")
        world.run_messages(other, count)
        world.spend(0.002)
        other.hub.send(0, Lane.CONTROL, b"answer")
        world.run_messages(one, count)
    assert world.datagrams - before <= 103


def test_small_messages_of_one_turn_share_a_datagram() -> None:
    world = World(8)
    one, other = world.pair()
    world.spend(0.35)
    before = world.datagrams
    for _ in range(20):
        one.hub.send(1, Lane.CONTROL, bytes(30))
    world.run(lambda: len(other.handler.messages) == 20)
    assert world.datagrams - before == 1


def test_overhead_of_a_small_message() -> None:
    world = World(9)
    one, other = world.pair()
    world.spend(0.35)
    world.keep_sent = True
    one.hub.send(1, Lane.CONTROL, bytes(64))
    world.run(lambda: len(other.handler.messages) == 1)
    assert len(world.sent[0][3]) - 64 <= 44
