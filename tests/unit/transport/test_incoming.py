from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distkv.transport.incoming import Assembly, IncomingLane
from distkv.transport.options import MESSAGE_OVERHEAD
from distkv.transport.packet import Malformed


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(0, 59), st.integers(1, 60)), max_size=40))
def test_any_overlapping_pieces_assemble(total: int, cuts: list[tuple[int, int]]) -> None:
    message = bytes(range(total))
    assembly = Assembly(total)
    have: set[int] = set()
    for start, size in [*cuts, (0, 7), (total // 2, total), (0, total)]:
        start %= total
        piece = message[start : start + size]
        assembly.add(start, memoryview(piece))
        have |= set(range(start, start + len(piece)))
        assert assembly.missing == total - len(have)
    assert assembly.payload() == message


@pytest.mark.parametrize("first", [0, 0xFFFFFFF0])
def test_order_per_stream_and_no_duplicates(first: int) -> None:
    generator = random.Random(5)
    lane = IncomingLane(0, 1 << 20, 1 << 16)
    for stream in (3, 7):
        lane._expected[stream] = first  # as after 4 billion messages: the number wraps round
    arrivals = [(s, (first + n) & 0xFFFFFFFF, b"%d-%d" % (s, n)) for s in (3, 7) for n in range(40)]
    arrivals += generator.sample(arrivals, 30)
    generator.shuffle(arrivals)
    got: dict[int, list[bytes]] = {3: [], 7: []}
    for stream, sequence, payload in arrivals:
        ready: list[tuple[int, bytes]] = []
        if generator.random() < 0.5:
            lane.whole(stream, sequence, payload, ready)
        else:
            lane.part(stream, sequence, len(payload), 2, payload[2:], ready)
            lane.part(stream, sequence, len(payload), 0, payload[:3], ready)
        got[stream] += [message for _, message in ready]
    assert got == {s: [b"%d-%d" % (s, n) for n in range(40)] for s in (3, 7)}
    assert lane.held == 0


def test_a_sender_that_ignores_its_credit_is_refused() -> None:
    lane = IncomingLane(0, 10_000, 5_000)
    fitting = 10_000 // MESSAGE_OVERHEAD
    for sequence in range(1, fitting + 1):
        lane.whole(0, sequence, b"", [])
    with pytest.raises(Malformed):
        lane.whole(0, fitting + 1, b"", [])
    assert lane.held == fitting * MESSAGE_OVERHEAD
    with pytest.raises(Malformed):
        IncomingLane(0, 10_000, 5_000).part(0, 0, 5_001, 0, b"x", [])
    with pytest.raises(Malformed):
        IncomingLane(0, 10_000, 5_000).part(0, 0, 10, 8, b"xyz", [])


def test_pieces_that_disagree_about_the_length_are_refused() -> None:
    lane = IncomingLane(0, 10_000, 5_000)
    lane.part(0, 0, 100, 0, b"x", [])
    with pytest.raises(Malformed):
        lane.part(0, 0, 101, 1, b"x", [])
    with pytest.raises(Malformed):
        lane.whole(0, 0, b"short", [])


@pytest.mark.parametrize("limit", [300, 1000, 3000, 3872])
def test_what_was_granted_always_has_room_for_the_largest_message(limit: int) -> None:
    """Messages arrived and credit was not due: the sender may begin any message nevertheless."""
    window = 4000
    generator = random.Random(limit)
    lane = IncomingLane(1, window, limit)
    granted = window
    told = 0
    for sequence in range(500):
        lane.whole(0, sequence, bytes(generator.randrange(min(limit, 200))), [])
        if lane.consumed >= lane.credit_at:
            granted = lane.credit()
            told += 1
        assert granted - lane.consumed >= limit + MESSAGE_OVERHEAD
        assert granted - lane.consumed <= window
    assert told < 500 or limit + MESSAGE_OVERHEAD == window, "not with every message"
