"""Receiving side of one lane: reassembly, order per stream, duplicates, bounded memory.

What is held (incomplete messages, and complete ones waiting for an earlier one) never passes
the window: the sender may charge `consumed + window` in all, which CREDIT frames tell it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TypeAlias

from distkv.transport.base import STREAMS
from distkv.transport.options import MESSAGE_OVERHEAD
from distkv.transport.packet import Malformed

Messages: TypeAlias = list[tuple[int, bytes]]
"""(lane, payload) in the order of delivery."""

_HALF = 0x80000000
_MASK = 0xFFFFFFFF


class Assembly:
    """Pieces of one message, sorted, without overlap."""

    __slots__ = ("_pieces", "_starts", "missing", "total")

    def __init__(self, total: int) -> None:
        self.total = self.missing = total
        self._starts: list[int] = []
        self._pieces: list[bytes | memoryview] = []

    def add(self, start: int, piece: bytes | memoryview) -> None:
        """Keep the bytes of `piece` that are not there yet."""
        starts, pieces = self._starts, self._pieces
        if not starts or start >= starts[-1] + len(pieces[-1]):
            starts.append(start)
            pieces.append(piece)
            self.missing -= len(piece)
            return
        origin, end = start, start + len(piece)
        place = bisect_right(starts, start)
        if place:
            start = max(start, starts[place - 1] + len(pieces[place - 1]))
        while start < end:
            stop = min(end, starts[place]) if place < len(starts) else end
            if stop > start:
                starts.insert(place, start)
                pieces.insert(place, piece[start - origin : stop - origin])
                self.missing -= stop - start
                place += 1
            if place == len(starts):
                return
            start = max(stop, starts[place] + len(pieces[place]))
            place += 1

    def payload(self) -> bytes:
        """The whole message, once nothing is missing."""
        assert self.missing == 0
        return b"".join(self._pieces)


class IncomingLane:
    """Messages of one lane from one peer. Methods raise Malformed for what no peer may send."""

    __slots__ = (
        "_expected",
        "_lane",
        "_message_limit",
        "_step",
        "_waiting",
        "_window",
        "consumed",
        "credit_at",
        "held",
    )

    def __init__(self, lane: int, window: int, message_limit: int) -> None:
        self._lane = lane
        self._window = window
        self._message_limit = message_limit
        # The sender must be able to begin the largest message once all earlier ones arrived,
        # or it waits for credit that nothing would make due.
        self._step = min(window >> 2, window - message_limit - MESSAGE_OVERHEAD + 1)
        self._expected = [0] * STREAMS
        self._waiting: list[dict[int, Assembly | bytes]] = [{} for _ in range(STREAMS)]
        self.consumed = 0
        self.credit_at = self._step
        self.held = 0

    def whole(self, stream: int, sequence: int, payload: bytes, out: Messages) -> None:
        """A complete message; appends to `out` whatever may be delivered now."""
        waiting = self._waiting[stream]
        if sequence == self._expected[stream] and sequence not in waiting:
            self._expected[stream] = (sequence + 1) & _MASK
            self.consumed += len(payload) + MESSAGE_OVERHEAD
            out.append((self._lane, payload))
            if waiting:
                self._drain(stream, out)
            return
        if (sequence - self._expected[stream]) & _MASK >= _HALF:
            return
        held = waiting.get(sequence)
        if held is None:
            self._hold(len(payload))
        elif type(held) is bytes:
            return
        elif isinstance(held, Assembly) and held.total != len(payload):
            raise Malformed("two lengths for one message")
        waiting[sequence] = payload
        self._drain(stream, out)

    def part(
        self,
        stream: int,
        sequence: int,
        total: int,
        offset: int,
        piece: bytes | memoryview,
        out: Messages,
    ) -> None:
        """A piece of a message of `total` bytes."""
        if not piece or offset + len(piece) > total or total > self._message_limit:
            raise Malformed("a piece outside its message")
        if (sequence - self._expected[stream]) & _MASK >= _HALF:
            return
        waiting = self._waiting[stream]
        held = waiting.get(sequence)
        if held is None:
            self._hold(total)
            held = waiting[sequence] = Assembly(total)
        if not isinstance(held, Assembly):
            return
        if held.total != total:
            raise Malformed("two lengths for one message")
        held.add(offset, piece)
        if not held.missing:
            waiting[sequence] = held.payload()
            self._drain(stream, out)

    def _hold(self, length: int) -> None:
        if self.held + length + MESSAGE_OVERHEAD > self._window:
            raise Malformed("more sent than was granted")
        self.held += length + MESSAGE_OVERHEAD

    def _drain(self, stream: int, out: Messages) -> None:
        waiting = self._waiting[stream]
        sequence = self._expected[stream]
        while True:
            payload = waiting.get(sequence)
            if not isinstance(payload, bytes):
                break
            del waiting[sequence]
            charge = len(payload) + MESSAGE_OVERHEAD
            self.held -= charge
            self.consumed += charge
            out.append((self._lane, payload))
            sequence = (sequence + 1) & _MASK
        self._expected[stream] = sequence

    def credit(self) -> int:
        """The total charge the sender may reach, to be told now.

        Due again when `consumed` reaches `credit_at`: a quarter of the window has moved, or
        less room than the largest message needs is left.
        """
        self.credit_at = self.consumed + self._step
        return self.consumed + self._window
