"""Beats of one connection: messages that nobody acknowledges or repeats."""

from __future__ import annotations

from collections import deque

from distkv.transport.incoming import Messages
from distkv.transport.options import BEAT_BYTES, BEATS_WAITING
from distkv.transport.packet import BEAT, BEAT_FRAME, Malformed

LANE = 2


class Beats:
    """Those that wait for the next datagram; of too many, the oldest go."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque(maxlen=BEATS_WAITING)

    def push(self, payload: bytes) -> None:
        """Raises ValueError if it is too large."""
        if len(payload) > BEAT_BYTES:
            raise ValueError(f"a beat of {len(payload)} bytes; the limit: {BEAT_BYTES}")
        self.waiting.append(payload)

    def fill(self, room: int, parts: list[bytes | memoryview]) -> int:
        """Append frames of at most `room` bytes to `parts`; their size."""
        size = 0
        waiting = self.waiting
        while waiting and size + BEAT_FRAME.size + len(waiting[0]) <= room:
            payload = waiting.popleft()
            parts += (BEAT_FRAME.pack(BEAT, len(payload)), payload)
            size += BEAT_FRAME.size + len(payload)
        return size


def take_beat(plain: bytes, at: int, out: Messages) -> int:
    """Deliver the beat whose frame begins at `at`; where it ends. Raises Malformed."""
    _, length = BEAT_FRAME.unpack_from(plain, at)
    end: int = at + BEAT_FRAME.size + length
    if end > len(plain):
        raise Malformed("cut beat")
    out.append((LANE, plain[end - length : end]))
    return end
