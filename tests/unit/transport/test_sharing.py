"""Congestion: a slow link is kept busy, and control does not wait behind bulk."""

from __future__ import annotations

import pytest
from unit.transport.world import Link, Node, World

from distkv.transport.base import Lane


def saturate(world: World, source: Node, seconds: float, control_every: float) -> list[float]:
    """Bulk all the time, a control message now and then; when those were sent."""
    sent = []
    end = world.now + seconds
    due = world.now
    while world.now < end:
        while source.hub.send(1, Lane.BULK, bytes(60_000), world.random.randrange(8)):
            pass
        if world.now >= due:
            assert source.hub.send(1, Lane.CONTROL, bytes(100))
            sent.append(world.now)
            due += control_every
        world.step(min(end, due))
    return sent


@pytest.mark.parametrize("megabits", [10, 25, 70, 400])
@pytest.mark.parametrize("queue", [30_000, 1_000_000])
def test_bulk_fills_the_link_and_control_overtakes_it(megabits: int, queue: int) -> None:
    rate = megabits * 1e6 / 8
    world = World(megabits, Link(rate=rate, queue=queue, delay=0.0002))
    one, other = world.pair()
    world.spend(0.3)
    saturate(world, one, 0.5, 1.0)
    other.handler.messages.clear()
    other.handler.times.clear()
    seconds = 40 / megabits + 0.5
    start = world.now
    sent = saturate(world, one, seconds, 0.02)
    got = [m for m in other.handler.messages if m[1] is Lane.BULK]
    used = sum(len(m[2]) for m in got) / (world.now - start) / rate
    assert used >= 0.9
    times = [
        t
        for t, m in zip(other.handler.times, other.handler.messages, strict=True)
        if m[1] is Lane.CONTROL
    ]
    waits = sorted(b - a for a, b in zip(sent, times, strict=False))
    assert waits[len(waits) // 2] < 0.045, "half of the control messages pass the standing queue"
    assert waits[-1] < 0.25
    line = one.hub.statistics()[0].connection
    assert line.queued_bulk > 1_000_000, "bulk waited in the sender, not on the path"


def test_several_senders_share_without_collapse() -> None:
    world = World(1, Link(delay=0.0003))
    target = world.add(1)
    sources = [world.add(ordinal) for ordinal in (0, 2, 3)]
    for source in sources:
        source.hub.set_peer(1, target.address, world.now)
    world.run(lambda: all(source.hub.connected(1) for source in sources))
    world.link.rate, world.link.shared = 1_250_000, True
    end = world.now + 6.0
    while world.now < end:
        for source in sources:
            while source.hub.send(1, Lane.BULK, bytes(30_000)):
                pass
        world.step(end)
    shares = [sum(1 for m in target.handler.messages if m[0] == o) for o in (0, 2, 3)]
    assert min(shares) >= 10
    assert sum(shares) * 30_000 >= 0.8 * 1_250_000 * 6.0


@pytest.mark.parametrize("settle", [0.0, 0.2])
def test_the_next_datagram_carries_control_whatever_bulk_waits(settle: float) -> None:
    """Also when the congestion window is full of bulk, and though bulk was queued first."""
    world = World(2, Link(rate=1_000_000))
    one, other = world.pair()
    world.spend(0.3)
    for _ in range(20):
        assert one.hub.send(1, Lane.BULK, bytes(300_000))
    if settle:
        world.spend(settle)
    assert one.hub.send(1, Lane.CONTROL, b"urgent")
    ((_, datagrams),) = one.hub.poll(world.now)
    other.hub.receive(datagrams[0], one.address, world.now)
    assert (0, Lane.CONTROL, b"urgent") in other.handler.messages
