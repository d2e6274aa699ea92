"""Credit and turns of the sending side: whatever is begun can be completed."""

from __future__ import annotations

from distkv.transport.base import STREAMS
from distkv.transport.incoming import IncomingLane
from distkv.transport.options import MEBI
from distkv.transport.outgoing import TURN, Chunk, OutgoingLane

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
