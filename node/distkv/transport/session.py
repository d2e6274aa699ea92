"""One connection to one peer: datagrams in, messages out, and back. No I/O, no clock.

The owner calls `receive` for each datagram of the connection, `transmit` whenever it may send,
and `on_timer` at `timeout`. All times are seconds of one monotonic clock. See `packet` for the
bytes, `outgoing` and `incoming` for the lanes, `recovery` and `congestion` for the path.
"""

from __future__ import annotations

from struct import error as struct_error

from cryptography.exceptions import InvalidTag

from distkv.transport import beats
from distkv.transport.base import Identity
from distkv.transport.beats import Beats, take_beat
from distkv.transport.congestion import Congestion
from distkv.transport.connection import REASONS, Parameters, Statistics
from distkv.transport.incoming import IncomingLane, Messages
from distkv.transport.keys import ConnectionKeys
from distkv.transport.options import BASE_DATAGRAM, CONTROL_RESERVE, PING_EVERY, Options
from distkv.transport.outgoing import Chunk, OutgoingLane
from distkv.transport.packet import (
    ACK,
    ACK_NOW,
    BEAT,
    CLOSE,
    CLOSE_FRAME,
    CREDIT,
    CREDIT_FRAME,
    DATA,
    DATAGRAM_OVERHEAD,
    HEADER,
    HEADER_BYTES,
    NONCE,
    PADDING,
    PART,
    PART_FRAME,
    PING,
    PING_FRAME,
    STREAM_BITS,
    STREAM_MASK,
    WHOLE,
    WHOLE_FRAME,
    Malformed,
    expand,
)
from distkv.transport.probing import BLACK_HOLE_TIMEOUTS, SizeSearch
from distkv.transport.ranges import Received, parse_ack
from distkv.transport.recovery import Packet, Recovery

DUPLICATE: Messages = []
"""Returned for a datagram that was seen before, authentic or not; never changed."""


class Session:
    """State of one connection. `closed`: why it ended, once it did."""

    def __init__(
        self,
        peer: Identity,
        keys: ConnectionKeys,
        parameters: Parameters,
        options: Options,
        now: float,
        rtt: float,
    ) -> None:
        """`rtt`: first estimate, from the handshake."""
        self.peer = peer
        self.closed: str | None = None
        self.local = parameters.local
        self._remote = parameters.remote
        self._options = options
        self._seal = keys.seal
        self._open = keys.open
        self._received = Received()
        limit = parameters.socket_buffer
        self._congestion = Congestion(options, limit, now)
        self._recovery = Recovery(options, self._congestion, rtt, now)
        self._search = SizeSearch(options, now)
        self._control_out = OutgoingLane(
            0, options.control_queue, options.control_message, parameters.control_credit
        )
        self._bulk_out = OutgoingLane(
            1, options.bulk_queue, options.bulk_message, parameters.bulk_credit
        )
        self._control_in = IncomingLane(0, options.control_window, options.control_message)
        self._bulk_in = IncomingLane(1, options.bulk_window, options.bulk_message)
        self._beats = Beats()
        self._ack_due: float | None = None
        self._credit_due = False
        self._ping = False
        self._probes = 0
        self._unmarked = 0
        self._signs = 0
        self._idle_until = now
        self._size = self._search.size
        self._sign_after = options.sign_after
        self.last_heard = now
        self.last_sent = now
        self.moved = False
        self.drained: list[int] = []
        self._packets_received = self._bytes_sent = self._bytes_received = 0
        self._messages_sent = self._messages_received = 0
        self._duplicates = self._forged = 0

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
        number = expand(low, received.top)
        self.moved = False
        out: Messages = []
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
                lane = self._lane_in(place)
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

    # ---- sending ---------------------------------------------------------------------------

    def send(self, lane: int, stream: int, payload: bytes) -> bool:
        """Queue a message; False if the lane's queue is full. Raises ValueError if too large."""
        if lane == beats.LANE:
            self._beats.push(payload)
        elif not (self._bulk_out if lane else self._control_out).push(stream, payload):
            return False
        self._messages_sent += 1
        return True

    def queued(self, lane: int) -> int:
        """Bytes of that lane the peer has not acknowledged, with their overhead."""
        return (self._bulk_out if lane else self._control_out).queued if lane != beats.LANE else 0

    def transmit(self, now: float) -> list[bytes]:
        """Datagrams to send now, at most `Options.burst` bytes; see `timeout` for the next."""
        out: list[bytes] = []
        control, bulk = self._control_out, self._bulk_out
        waiting = control.active or control.lost or bulk.active or bulk.lost or self._beats.waiting
        if not (waiting or self._ping or self._credit_due):
            due = self._ack_due
            silent = now < self.last_sent + self._sign_after and now < self._search.when
            if silent and (due is None or due > now):
                return out
        budget = self._options.burst
        while budget > 0:
            datagram = self._datagram(now)
            if datagram is None:
                break
            out.append(datagram)
            budget -= len(datagram)
            if not (bulk.active or bulk.lost or control.active or control.lost):
                break
        if now >= self._search.when:
            probe = self._search.next(now)
            if probe:
                out.append(self._probe(probe, now))
        return out

    def _bulk_allowed(self, now: float) -> bool:
        congestion = self._congestion
        if self._probes:
            return True
        if self._recovery.in_flight >= congestion.window:
            congestion.limited = True
            return False
        return congestion.pace <= now

    def _control_allowed(self) -> bool:
        congestion = self._congestion
        if self._probes or self._recovery.in_flight < congestion.window:
            return True
        congestion.limited = True
        return self._recovery.in_flight < congestion.window + CONTROL_RESERVE

    def _datagram(self, now: float) -> bytes | None:
        """The next datagram, or None if nothing may or need be sent."""
        lane = self._control_out
        control = (lane.active or lane.lost) and lane.ready() and self._control_allowed()
        lane = self._bulk_out
        bulk = (lane.active or lane.lost) and lane.ready() and self._bulk_allowed(now)
        due = self._ack_due
        if not (control or bulk or self._ping or self._credit_due or self._beats.waiting):
            if now >= self.last_sent + self._sign_after:
                self._signs += 1
                self._ping = self._signs % PING_EVERY == 0
            elif due is None or due > now:
                return None
        room = self._size - DATAGRAM_OVERHEAD
        parts: list[bytes | memoryview] = []
        chunks: list[Chunk] = []
        recovery = self._recovery
        number = recovery.next_number
        if due is not None or not (control or bulk):
            if self._received.top >= 0:
                frame = self._received.frame(now - self.last_heard)
                parts.append(frame)
                room -= len(frame)
            self._ack_due = None
        beaten = self._beats.fill(room, parts) if self._beats.waiting else 0
        room -= beaten
        eliciting, room = self._small_frames(parts, room)
        if control:
            room = self._control_out.fill(room, parts, chunks, number)
        if bulk:
            before = room
            room = self._bulk_out.fill(room, parts, chunks, number)
            if before != room:
                self._congestion.paced(before - room, recovery.srtt, now)
        credit = eliciting == CREDIT
        if not chunks and not eliciting:
            if (control or bulk) and not beaten and (due is None or due > now):
                # the lanes had nothing that fits or is granted: send nothing for them
                self._ack_due = due
                if now < self.last_sent + self._options.ping_interval:
                    return None
            return self._sealed(0, b"".join(parts) or b"\x00", now)
        size = self._size - room
        flags = self._ack_now(size)
        recovery.add(number, (now, size, chunks, credit))
        return self._sealed(flags, b"".join(parts), now)

    def _small_frames(self, parts: list[bytes | memoryview], room: int) -> tuple[int, int]:
        """PING and CREDIT frames that are due: (0 if none, CREDIT if one is among them; room)."""
        eliciting = 0
        if self._ping:
            self._ping = False
            parts.append(PING_FRAME)
            room -= 1
            eliciting = PING
        if self._credit_due:
            self._credit_due = False
            parts.append(
                CREDIT_FRAME.pack(CREDIT, self._control_in.credit(), self._bulk_in.credit())
            )
            room -= CREDIT_FRAME.size
            eliciting = CREDIT
        return eliciting, room

    def _ack_now(self, size: int) -> int:
        """ACK_NOW four times per window once the window is filling, and on probes."""
        self._unmarked += size
        if self._probes:
            self._probes -= 1
            self._unmarked = 0
            return ACK_NOW
        window = self._congestion.window
        if self._unmarked * 4 < window or (self._recovery.in_flight + size) * 4 < window * 3:
            return 0
        self._unmarked = 0
        return ACK_NOW

    def _sealed(self, flags: int, plain: bytes, now: float) -> bytes:
        recovery = self._recovery
        number = recovery.next_number
        recovery.next_number = number + 1
        header = HEADER.pack(DATA | flags, self._remote, number & 0xFFFFFFFF)
        datagram = header + self._seal.encrypt(NONCE.pack(number), plain, header)
        self.last_sent = now
        self._bytes_sent += len(datagram)
        return datagram

    def _probe(self, size: int, now: float) -> bytes:
        recovery = self._recovery
        self._search.sent(recovery.next_number, now + max(3 * recovery.pto(), 0.05))
        room = size - DATAGRAM_OVERHEAD - 1
        return self._sealed(ACK_NOW, PING_FRAME + bytes(room), now)

    def close(self, reason: int, now: float) -> bytes:
        """End the connection; the datagram that tells the peer."""
        self.closed = REASONS[reason]
        return self._sealed(0, CLOSE_FRAME.pack(CLOSE, reason), now)

    def greet(self) -> None:
        """Send something that asks for an acknowledgement soon (it confirms the connection)."""
        self._ping = True

    # ---- time ------------------------------------------------------------------------------

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
