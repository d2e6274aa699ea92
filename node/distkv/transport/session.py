"""One connection to one peer: datagrams in, messages out, and back. No I/O, no clock.

The owner calls `receive` for each datagram of the connection, `transmit` whenever it may send,
and `on_timer` at `timeout`. All times are seconds of one monotonic clock. See `packet` for the
bytes, `sending` for how datagrams are made, `outgoing` and `incoming` for the lanes, `recovery`
and `congestion` for the path.
"""

from __future__ import annotations

from struct import error as struct_error

from cryptography.exceptions import InvalidTag

from distkv.transport.beats import take_beat
from distkv.transport.congestion import Congestion
from distkv.transport.connection import REASONS, Statistics
from distkv.transport.incoming import IncomingLane, Messages
from distkv.transport.options import BASE_DATAGRAM
from distkv.transport.packet import (
    ACK,
    ACK_NOW,
    BEAT,
    CLOSE,
    CLOSE_FRAME,
    CREDIT,
    CREDIT_FRAME,
    HEADER_BYTES,
    NONCE,
    PADDING,
    PART,
    PART_FRAME,
    PING,
    STREAM_BITS,
    STREAM_MASK,
    WHOLE,
    WHOLE_FRAME,
    Malformed,
    expand,
)
from distkv.transport.probing import BLACK_HOLE_TIMEOUTS, NEVER
from distkv.transport.ranges import parse_ack
from distkv.transport.recovery import Packet
from distkv.transport.sending import Sending

DUPLICATE: Messages = []
"""Returned for a datagram that was seen before, authentic or not; never changed."""


class Session(Sending):
    """See the module."""

    # ---- receiving -------------------------------------------------------------------------

    def receive(
        self, flags: int, low: int, datagram: bytes | memoryview, now: float
    ) -> Messages | None:
        """Take one data datagram; the messages (lane, payload) that may be delivered.

        `flags`, `low`: the first and the last field of its header.

        None: it is not authentic, and nothing was changed. `moved` tells whether it was the
        newest (then its source is the peer's present address). An authentic datagram that no
        correct peer sends closes the session: see `closed`.
        """
        received = self._received
        self.moved = False
        self.not_before = None
        out: Messages = []
        following = number = received.top + 1
        if low != following & 0xFFFFFFFF:
            number = expand(low, received.top)
            if received.seen(number):
                self._duplicates += 1
                return DUPLICATE
        try:
            plain = self._open.decrypt(
                NONCE.pack(number), datagram[HEADER_BYTES:], datagram[:HEADER_BYTES]
            )
        except InvalidTag:
            self._forged += 1
            return None
        self._packets_received += 1
        self._bytes_received += len(datagram)
        if number == following:
            in_order = True
            received.top = number
        else:
            in_order = received.add(number)
        if number == received.top:
            self.moved = True
            self.last_heard = now  # an older one tells nothing that the newest did not
        try:
            eliciting = self._frames(plain, now, out)
        except (Malformed, struct_error, IndexError) as error:
            self.closed = f"protocol error: {error}"
            return out
        if eliciting:
            if flags & ACK_NOW or not in_order:
                self._ack_due = now
            elif self._ack_due is None:
                self._ack_due = now + self._options.ack_delay
        self._messages_received += len(out)
        return out

    def _frames(self, plain: bytes, now: float, out: Messages) -> bool:
        """Act on each frame; whether the packet asks for an acknowledgement."""
        at, end = 0, len(plain)
        eliciting = False
        while at < end:
            kind = plain[at]
            if kind == WHOLE:
                _, place, sequence, length = WHOLE_FRAME.unpack_from(plain, at)
                at += WHOLE_FRAME.size + length
                if at > end:
                    raise Malformed("cut message")
                lane = self._control_in if place <= STREAM_MASK else self._lane_in(place)
                lane.whole(place & STREAM_MASK, sequence, plain[at - length : at], out)
                if lane.consumed >= lane.credit_at:
                    self._credit_due = True
                eliciting = True
            elif kind == ACK:
                at = self._ack_frame(plain, at, now)
            elif kind == BEAT:
                at = take_beat(plain, at, out)
            elif kind == PART:
                at = self._part(plain, at, out)
                eliciting = True
            elif kind == PADDING:
                return eliciting
            elif kind == PING:
                at += 1
                eliciting = True
            elif kind == CREDIT:
                _, control, bulk = CREDIT_FRAME.unpack_from(plain, at)
                self._control_out.grant(control)
                self._bulk_out.grant(bulk)
                at += CREDIT_FRAME.size
                eliciting = True
            elif kind == CLOSE:
                _, reason = CLOSE_FRAME.unpack_from(plain, at)
                self.closed = REASONS.get(reason, "closed by peer")
                return eliciting
            else:
                raise Malformed(f"frame of unknown kind {kind}")
        return eliciting

    def _lane_in(self, place: int) -> IncomingLane:
        if place <= STREAM_MASK:
            return self._control_in
        if place >> STREAM_BITS > 1:
            raise Malformed("no such lane")
        return self._bulk_in

    def _part(self, plain: bytes, at: int, out: Messages) -> int:
        _, place, sequence, total, offset, length = PART_FRAME.unpack_from(plain, at)
        at += PART_FRAME.size
        end: int = at + length
        if end > len(plain):
            raise Malformed("cut piece")
        if 2 * length > len(plain):
            piece: bytes | memoryview = memoryview(plain)[at:end]
        else:
            piece = plain[at:end]  # a small view would keep the whole datagram alive
        lane = self._lane_in(place)
        lane.part(place & STREAM_MASK, sequence, total, offset, piece, out)
        if lane.consumed >= lane.credit_at:
            self._credit_due = True
        return end

    def _ack_frame(self, plain: bytes, at: int, now: float) -> int:
        recovery = self._recovery
        runs, delay, at = parse_ack(plain, at, recovery.next_number)
        arrived, lost = recovery.acknowledged(runs, delay, now)
        for packet in arrived:
            for chunk in packet[2]:
                if chunk.lane.acknowledge(chunk):
                    self.drained.append(chunk.lane.lane)
        if lost:
            self._again(lost)
        if self._search.number >= 0 and self._search.acknowledged(runs, now):
            self._resize()
        return at

    def _again(self, packets: list[tuple[int, Packet]]) -> None:
        for number, packet in packets:
            for chunk in packet[2]:
                chunk.lane.again(chunk, number)
            if packet[3]:
                self._credit_due = True

    def _resize(self) -> None:
        self._size = self._search.size
        self._congestion.resize(self._size)

    # ---- ending and time ---------------------------------------------------------------------

    def close(self, reason: int, now: float) -> bytes:
        """End the connection; the datagram that tells the peer."""
        self.closed = REASONS[reason]
        return self._sealed(0, CLOSE_FRAME.pack(CLOSE, reason), now)

    def greet(self) -> None:
        """Send something that asks for an acknowledgement soon (it confirms the connection)."""
        self._ping = True

    def timeout(self, now: float) -> float:
        """When `on_timer` and then `transmit` must be called (now, if there is more to send).

        It may be too early: the three times that only ever move on are looked at again when
        the earliest of them has passed.
        """
        if self._ping or self._credit_due or self._beats.waiting:
            return now
        when = self._idle_until
        if now >= when or self._search.when < when:
            when = self._idle_until = min(
                self.last_sent + self._options.ping_interval,
                self.last_heard + self._options.dead_after,
                self._search.when,
            )
        due = self._ack_due
        if due is not None and due < when:
            when = due
        if self._recovery.sent:
            due = self._recovery.timeout()
            if due is not None and due < when:
                when = due
        lane = self._control_out
        if (lane.active or lane.lost) and lane.ready() and self._control_allowed():
            return now
        lane = self._bulk_out
        if (lane.active or lane.lost) and lane.ready() and self._window_open():
            return min(when, max(self._congestion.pace, now))
        return when

    def rests(self, now: float) -> float | None:
        """When to look at it for what was received since `timeout`; None: now. For the usual
        case, in which all that arrived is acknowledgement and what a reply will acknowledge."""
        control, bulk, recovery = self._control_out, self._bulk_out, self._recovery
        if (
            recovery.sent
            or recovery.loss_time is not None
            or control.active
            or control.lost
            or bulk.active
            or bulk.lost
            or self._ping
            or self._credit_due
            or self._beats.waiting
            or now >= self._search.when
            or now >= self.last_sent + self._sign_after
        ):
            return None
        due = self._ack_due
        if due is None:
            return NEVER
        return due if due > now else None

    def _window_open(self) -> bool:
        return self._probes > 0 or self._recovery.in_flight < self._congestion.window

    def on_timer(self, now: float, heard: bool = True) -> None:
        """Losses, probes, death (only if all that arrived was `heard`). Harmless when early."""
        recovery = self._recovery
        limit = self._options.dead_after
        if heard and now >= self.last_heard + limit:
            self.closed = "silent"
            return
        when = recovery.timeout()
        if when is None or when > now:
            return
        if heard and recovery.sent and now - recovery.progress >= 2 * limit:
            self.closed = "acknowledges nothing"
            return
        lost = recovery.expired(now)
        if lost is not None:
            self._again(lost)
            return
        if recovery.pto_count >= BLACK_HOLE_TIMEOUTS and self._size > BASE_DATAGRAM:
            self._search.black_hole(now)
            self._resize()
        self._probes = 2
        self._ping = True
        for _, packet in zip(range(2), recovery.sent.values(), strict=False):
            for chunk in packet[2]:
                chunk.lane.probe(chunk)
            if packet[3]:
                self._credit_due = True

    def refused_size(self, size: int, now: float) -> None:
        """The local interface takes no datagram of `size` bytes (EMSGSIZE)."""
        self._search.refused(size, now)
        self._resize()

    def path_changed(self, now: float) -> None:
        """The peer's address moved: what was measured of the path is void."""
        self._congestion = Congestion(self._options, self._congestion.limit, now)
        self._recovery.move(self._congestion)
        self._search.black_hole(now)
        self._resize()

    def statistics(self) -> Statistics:
        """Counters and gauges, for metrics."""
        recovery = self._recovery
        return Statistics(
            recovery.next_number,
            self._packets_received,
            self._bytes_sent,
            self._bytes_received,
            self._messages_sent,
            self._messages_received,
            recovery.losses,
            self._control_out.resent + self._bulk_out.resent,
            self._duplicates,
            self._forged,
            recovery.srtt,
            int(self._congestion.window),
            self._size,
            recovery.in_flight,
            self._control_out.queued,
            self._bulk_out.queued,
        )
