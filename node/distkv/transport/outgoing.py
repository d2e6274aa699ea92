"""Sending side of one lane: streams, splitting into pieces, retransmission, credit.

A message is started only when the receiver granted room for all of it. So whatever is begun
can be completed, and messages of different streams never wait for each other's room.
"""

from __future__ import annotations

from collections import deque

from distkv.transport.base import STREAMS
from distkv.transport.options import MESSAGE_OVERHEAD
from distkv.transport.packet import PART, PART_FRAME, STREAM_BITS, WHOLE, WHOLE_FRAME

WHOLE_BYTES = WHOLE_FRAME.size
PART_BYTES = PART_FRAME.size
PIECE_MIN = 256
"""A piece smaller than this, unless it ends its message, waits for the next datagram."""
TURN = 128 * 1024
"""Bytes of one message before another stream has its turn: finishing one value after the other
is quicker on average than all at once, but a long message must not hold up the rest."""
QUEUED_AGAIN = -1


class Message:
    """One message on its way out; `unacknowledged` counts payload bytes."""

    __slots__ = ("length", "payload", "sent", "sequence", "started", "unacknowledged")

    def __init__(self, sequence: int, payload: bytes) -> None:
        self.sequence = sequence
        self.payload: bytes | memoryview = payload
        self.length = self.unacknowledged = len(payload)
        self.sent = 0
        self.started = False


class Chunk:
    """Bytes start ... end of a message, as one datagram carried them.

    `carrier`: number of the last packet that did, QUEUED_AGAIN while it waits to be resent.
    """

    __slots__ = ("carrier", "done", "end", "lane", "message", "place", "start")

    def __init__(
        self, lane: OutgoingLane, place: int, message: Message, start: int, end: int, carrier: int
    ) -> None:
        self.lane = lane
        self.place = place
        self.message = message
        self.start = start
        self.end = end
        self.done = False
        self.carrier = carrier


class OutgoingLane:
    """Queue of one lane towards one peer, bounded by `queue_limit` bytes."""

    __slots__ = (
        "_charged",
        "_credit",
        "_message_limit",
        "_queue_limit",
        "_sequences",
        "_streams",
        "active",
        "blocked",
        "lane",
        "lost",
        "queued",
        "refused",
        "resent",
    )

    def __init__(self, lane: int, queue_limit: int, message_limit: int, credit: int) -> None:
        self.lane = lane
        self._queue_limit = queue_limit
        self._message_limit = message_limit
        self._credit = credit
        self._charged = 0
        self._sequences = [0] * STREAMS
        self._streams: list[deque[Message]] = [deque() for _ in range(STREAMS)]
        self.active: deque[int] = deque()
        self.lost: deque[Chunk] = deque()
        self.blocked = False
        self.queued = 0
        self.refused = False
        self.resent = 0

    def push(self, stream: int, payload: bytes) -> bool:
        """Queue a message; False (and `refused` is set) when the queue has no room.

        Raises ValueError for a message above the lane's limit, a mistake of the caller.
        """
        length = len(payload)
        if length > self._message_limit:
            raise ValueError(f"message of {length} bytes; the lane's limit: {self._message_limit}")
        if self.queued + length + MESSAGE_OVERHEAD > self._queue_limit:
            self.refused = True
            return False
        self.queued += length + MESSAGE_OVERHEAD
        sequence = self._sequences[stream]
        self._sequences[stream] = (sequence + 1) & 0xFFFFFFFF
        waiting = self._streams[stream]
        if not waiting:
            self.active.append(stream)
        waiting.append(Message(sequence, payload))
        return True

    def ready(self) -> bool:
        """Whether `fill` has something to put into a datagram."""
        return bool(self.lost) or (bool(self.active) and not self.blocked)

    def grant(self, credit: int) -> None:
        """The receiver lets us start messages up to this total charge."""
        if credit > self._credit:
            self._credit = credit
            self.blocked = False

    def fill(
        self, room: int, parts: list[bytes | memoryview], chunks: list[Chunk], number: int
    ) -> int:
        """Append frames of at most `room` bytes to `parts`; the room that is left."""
        if self.lost:
            room = self._fill_lost(room, parts, chunks, number)
        active = self.active
        while active:
            stream = active[0]
            waiting = self._streams[stream]
            message = waiting[0]
            rest = message.length - message.sent
            if not message.started:
                if room < WHOLE_BYTES + rest and room < PART_BYTES + min(PIECE_MIN, rest):
                    return room
                charged = self._charged + message.length + MESSAGE_OVERHEAD
                if charged > self._credit:
                    if self._begun_first():
                        continue
                    self.blocked = True
                    return room
                self._charged = charged
                message.started = True
            start = message.sent
            if start == 0 and WHOLE_BYTES + rest <= room:
                end = rest
            elif room >= PART_BYTES + min(PIECE_MIN, rest):
                end = min(start + room - PART_BYTES, message.length)
            else:
                return room
            chunk = Chunk(self, self.lane << STREAM_BITS | stream, message, start, end, number)
            room -= emit(chunk, parts)
            chunks.append(chunk)
            message.sent = end
            if end == message.length:
                waiting.popleft()
                if not waiting:
                    active.popleft()
                    continue
            if len(active) > 1 and (end == message.length or start // TURN != end // TURN):
                active.rotate(-1)
        return room

    def only(self, room: int, number: int) -> Chunk | None:
        """The one message that waits, if it may leave whole with packet `number`; else None."""
        active = self.active
        if len(active) != 1 or self.lost or self.blocked:
            return None
        stream = active[0]
        waiting = self._streams[stream]
        message = waiting[0]
        length = message.length
        charged = self._charged + length + MESSAGE_OVERHEAD
        if (
            len(waiting) != 1
            or message.started
            or WHOLE_BYTES + length > room
            or charged > self._credit
        ):
            return None
        self._charged = charged
        message.started = True
        message.sent = length
        waiting.clear()
        active.clear()
        return Chunk(self, self.lane << STREAM_BITS | stream, message, 0, length, number)

    def _begun_first(self) -> bool:
        """Bring a message that was begun to the front: it needs no more credit, and credit
        comes back only when it is complete. False: there is none."""
        for position, stream in enumerate(self.active):
            if self._streams[stream][0].started:
                self.active.rotate(-position)
                return True
        return False

    def _fill_lost(
        self, room: int, parts: list[bytes | memoryview], chunks: list[Chunk], number: int
    ) -> int:
        lost = self.lost
        while lost:
            chunk = lost[0]
            if chunk.done:
                lost.popleft()
                continue
            size = chunk.end - chunk.start
            whole = size == chunk.message.length
            if (WHOLE_BYTES if whole else PART_BYTES) + size <= room:
                lost.popleft()
            elif room >= PART_BYTES + min(PIECE_MIN, size):
                middle = chunk.start + room - PART_BYTES
                if middle < chunk.end:
                    rest = Chunk(self, chunk.place, chunk.message, middle, chunk.end, QUEUED_AGAIN)
                    chunk.end = middle
                    lost[0] = rest
                else:
                    lost.popleft()
            else:
                return room
            chunk.carrier = number
            room -= emit(chunk, parts)
            chunks.append(chunk)
            self.resent += 1
        return room

    def again(self, chunk: Chunk, number: int) -> None:
        """Packet `number` that carried `chunk` is lost, or is worth sending twice."""
        if not chunk.done and chunk.carrier == number:
            chunk.carrier = QUEUED_AGAIN
            self.lost.append(chunk)

    def probe(self, chunk: Chunk) -> None:
        """Send `chunk` once more, whichever packet carried it last: nothing is heard of any."""
        if not chunk.done and chunk.carrier != QUEUED_AGAIN:
            chunk.carrier = QUEUED_AGAIN
            self.lost.append(chunk)

    def acknowledge(self, chunk: Chunk) -> bool:
        """The peer holds `chunk`. True if a queue that refused has room again."""
        if chunk.done:
            return False
        chunk.done = True
        message = chunk.message
        message.unacknowledged -= chunk.end - chunk.start
        if message.unacknowledged:
            return False
        message.payload = b""
        self.queued -= message.length + MESSAGE_OVERHEAD
        if self.refused and self.queued <= self._queue_limit // 2:
            self.refused = False
            return True
        return False


def emit(chunk: Chunk, parts: list[bytes | memoryview]) -> int:
    """Append the frame of `chunk`; its size."""
    message = chunk.message
    start, end = chunk.start, chunk.end
    if start == 0 and end == message.length:
        parts.append(WHOLE_FRAME.pack(WHOLE, chunk.place, message.sequence, end))
        parts.append(message.payload)
        return WHOLE_BYTES + end
    size = end - start
    parts.append(PART_FRAME.pack(PART, chunk.place, message.sequence, message.length, start, size))
    if start == 0 or type(message.payload) is bytes:
        message.payload = memoryview(message.payload)
    parts.append(message.payload[start:end])
    return PART_BYTES + size
