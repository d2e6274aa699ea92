"""What one connection sends: its state, and the datagrams made of all that waits.

The half of `session` that receives nothing and looks at no time but the one it is given.
"""

from __future__ import annotations

from distkv.transport import beats
from distkv.transport.base import Identity
from distkv.transport.beats import Beats
from distkv.transport.congestion import Congestion
from distkv.transport.connection import Parameters
from distkv.transport.incoming import IncomingLane
from distkv.transport.keys import ConnectionKeys
from distkv.transport.options import CONTROL_RESERVE, PING_EVERY, Options
from distkv.transport.outgoing import Chunk, OutgoingLane, emit
from distkv.transport.packet import (
    ACK_NOW,
    CREDIT,
    CREDIT_FRAME,
    DATA,
    DATAGRAM_OVERHEAD,
    HEADER,
    NONCE,
    PING,
    PING_FRAME,
)
from distkv.transport.probing import SizeSearch
from distkv.transport.ranges import Received
from distkv.transport.recovery import Recovery


class Sending:
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
        self.not_before: float | None = None
        """Nothing is due earlier but what `timeout` told before; None: ask it."""
        self.moved = False
        self.drained: list[int] = []
        self._packets_received = self._bytes_sent = self._bytes_received = 0
        self._messages_sent = self._messages_received = 0
        self._duplicates = self._forged = 0

    def send(self, lane: int, stream: int, payload: bytes) -> bool:
        """Queue a message; False if the lane's queue is full. Raises ValueError if too large."""
        self.not_before = None
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
        other = control.lost or bulk.active or bulk.lost or self._beats.waiting
        if not (other or self._ping or self._credit_due) and now < self._search.when:
            if not control.active:
                due = self._ack_due
                if now < self.last_sent + self._sign_after and (due is None or due > now):
                    return out
            elif not self._probes and self._recovery.in_flight < self._congestion.window:
                single = self._single(now)
                if single is not None:
                    out.append(single)
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

    def _single(self, now: float) -> bytes | None:
        """`_datagram` where one small control message is all that waits, as most often."""
        recovery = self._recovery
        number = recovery.next_number
        frame = b""
        if self._ack_due is not None:
            frame = self._received.frame(now - self.last_heard)
        chunk = self._control_out.only(self._size - DATAGRAM_OVERHEAD - len(frame), number)
        if chunk is None:
            return None
        self._ack_due = None
        if recovery.loss_time is None:
            # For an acknowledgement it waits longer than the peer may.
            self.not_before = now + self._options.ack_delay
        parts: list[bytes | memoryview] = [frame]
        size = DATAGRAM_OVERHEAD + len(frame) + emit(chunk, parts)
        flags = self._ack_now(size)
        recovery.add(number, (now, size, [chunk], False))
        return self._sealed(flags, b"".join(parts), now)

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
