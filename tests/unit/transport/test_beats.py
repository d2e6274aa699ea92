"""Beats: delivered at most once, repeated and acknowledged by nobody."""

from __future__ import annotations

import pytest
from unit.transport.world import Link, World

from distkv.transport.base import Lane
from distkv.transport.options import BEAT_BYTES, BEATS_WAITING


def test_a_beat_and_its_answer_are_two_datagrams() -> None:
    world = World(1)
    one, other = world.pair()
    world.spend(0.05)
    before = world.datagrams
    assert one.hub.send(1, Lane.BEAT, b"question")
    world.run(lambda: bool(other.handler.messages))
    assert other.hub.send(0, Lane.BEAT, b"answer")
    world.spend(0.02)
    assert world.datagrams == before + 2
    assert other.handler.messages == [(0, Lane.BEAT, b"question")]
    assert one.handler.messages == [(1, Lane.BEAT, b"answer")]
    assert one.hub.queued(1, Lane.BEAT) == 0


def test_a_lost_beat_is_not_repeated_and_holds_up_nothing() -> None:
    world = World(2)
    one, other = world.pair()
    world.spend(0.05)
    world.link.cut = lambda source, target: True
    one.hub.send(1, Lane.BEAT, b"lost")
    world.spend(0.01)
    world.link.cut = lambda source, target: False
    one.hub.send(1, Lane.CONTROL, b"kept")
    world.spend(0.5)
    assert other.handler.messages == [(0, Lane.CONTROL, b"kept")]
    assert one.hub.statistics()[0].connection.chunks_resent == 0


def test_beats_travel_with_messages_and_are_never_delivered_twice() -> None:
    world = World(3, Link(duplicate=0.5, reorder=0.3))
    one, other = world.pair()
    for number in range(100):
        one.hub.send(1, Lane.BEAT, b"beat %d" % number)
        one.hub.send(1, Lane.CONTROL, b"message %d" % number)
        world.spend(0.002)
    world.spend(0.5)
    beats = [payload for _, lane, payload in other.handler.messages if lane is Lane.BEAT]
    assert sorted(beats) == sorted(b"beat %d" % number for number in range(100))
    assert len(other.handler.messages) == 200


def test_too_large_ones_are_refused_and_too_many_forgotten() -> None:
    world = World(4)
    one, other = world.pair()
    with pytest.raises(ValueError, match="limit"):
        one.hub.send(1, Lane.BEAT, bytes(BEAT_BYTES + 1))
    for number in range(BEATS_WAITING + 5):
        one.hub.send(1, Lane.BEAT, b"%d" % number + bytes(BEAT_BYTES - 5))
    world.spend(0.1)
    got = [int(payload.split(b"\0")[0]) for _, _, payload in other.handler.messages]
    assert sorted(got) == list(range(5, BEATS_WAITING + 5))
