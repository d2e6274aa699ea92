"""Credit and turns of the sending side: whatever is begun can be completed."""

from __future__ import annotations

import pytest

from distkv.transport.base import STREAMS
from distkv.transport.incoming import IncomingLane
from distkv.transport.options import MEBI, MESSAGE_OVERHEAD
from distkv.transport.outgoing import TURN, WHOLE_BYTES, Chunk, OutgoingLane, emit

WINDOW = 2 * MEBI
LENGTH = 3 * TURN
STREAMS_USED = 40


def test_messages_longer_than_a_turn_do_not_take_all_credit_and_block_each_other() -> None:
    """Each of many streams gives way after a turn; the receiver's window is then full of
    beginnings, and none of them may wait for credit that only its own end would bring."""
    out = OutgoingLane(1, 64 * MEBI, MEBI, WINDOW)
    incoming = IncomingLane(1, WINDOW, MEBI)
    payloads = {stream: bytes([stream]) * LENGTH for stream in range(STREAMS_USED)}
    for stream, payload in payloads.items():
        assert out.push(stream, payload)
    arrived: list[tuple[int, bytes]] = []
    for number in range(10 * STREAMS_USED * LENGTH // 60_000):
        chunks: list[Chunk] = []
        out.fill(60_000, [], chunks, number)
        for chunk in chunks:
            stream = chunk.place & (STREAMS - 1)
            piece = memoryview(payloads[stream])[chunk.start : chunk.end]
            message = chunk.message
            incoming.part(stream, message.sequence, LENGTH, chunk.start, piece, arrived)
            out.acknowledge(chunk)
        out.grant(incoming.credit())
        if not out.queued:
            break
    assert sorted(payload[0] for _, payload in arrived) == list(range(STREAMS_USED))


def lane_with(*messages: tuple[int, bytes], credit: int = WINDOW) -> OutgoingLane:
    """Messages (stream, payload) wait in it."""
    lane = OutgoingLane(0, 64 * MEBI, MEBI, credit)
    for stream, payload in messages:
        assert lane.push(stream, payload)
    return lane


@pytest.mark.parametrize("payload", [b"", b"x", b"y" * 1000])
def test_the_only_message_leaves_as_it_would_among_others(payload: bytes) -> None:
    short, long = lane_with((3, payload)), lane_with((3, payload))
    chunk = short.only(WHOLE_BYTES + 1000, 7)
    assert chunk is not None
    parts: list[bytes | memoryview] = []
    size = emit(chunk, parts)
    others: list[bytes | memoryview] = []
    chunks: list[Chunk] = []
    room = long.fill(WHOLE_BYTES + 1000, others, chunks, 7)
    assert (parts, size) == (others, WHOLE_BYTES + 1000 - room)
    for lane, sent in ((short, chunk), (long, chunks[0])):
        assert not lane.active
        assert lane._charged == len(payload) + MESSAGE_OVERHEAD
        lane.again(sent, 7)
        assert list(lane.lost) == [sent]
        lane.acknowledge(sent)
        assert sent.done
        assert lane.push(3, b"next")
        assert lane.only(100, 8) is None, "what is lost goes first"
        lane.lost.clear()
        following = lane.only(100, 8)
        assert following is not None
        assert following.message.sequence == 1


def test_what_is_not_the_only_small_message_is_left_for_fill() -> None:
    begun = lane_with((0, bytes(900)))
    begun.fill(500, [], [], 1)
    blocked = lane_with((0, b"a"), credit=0)
    blocked.fill(1000, [], [], 1)
    for lane in (
        lane_with(),
        lane_with((0, b"a"), (0, b"b")),
        lane_with((0, b"a"), (1, b"b")),
        lane_with((0, bytes(994))),
        lane_with((0, b"a"), credit=MESSAGE_OVERHEAD),
        begun,
        blocked,
    ):
        before = (list(lane.active), lane._charged, lane.queued)
        assert lane.only(1000, 2) is None
        assert (list(lane.active), lane._charged, lane.queued) == before
