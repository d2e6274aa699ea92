"""Which packets are in flight, which are lost, and the round-trip time (RFC 9002)."""

from __future__ import annotations

from typing import TypeAlias

from distkv.transport.congestion import Congestion
from distkv.transport.options import Options
from distkv.transport.outgoing import Chunk

Packet: TypeAlias = "tuple[float, int, list[Chunk], bool]"
"""(time sent, size, chunks carried, whether it carried a CREDIT frame)."""

GRANULARITY = 0.001
PACKET_THRESHOLD = 3
PACKET_THRESHOLD_LIMIT = 64
TIME_THRESHOLD = 1.125
TIME_THRESHOLD_LIMIT = 3.0
LOST_REMEMBERED = 256
PTO_LIMIT = 0.25


class Recovery:
    """Packets that ask for an acknowledgement and have none yet, oldest first."""

    __slots__ = (
        "_ack_delay",
        "_congestion",
        "_last_sent",
        "_lost",
        "_measured",
        "_packet_threshold",
        "_time_threshold",
        "in_flight",
        "largest",
        "loss_time",
        "losses",
        "next_number",
        "progress",
        "pto_count",
        "sent",
        "srtt",
        "variation",
    )

    def __init__(self, options: Options, congestion: Congestion, rtt: float, now: float) -> None:
        """`rtt`: first guess (seconds), until a packet was acknowledged."""
        self.sent: dict[int, Packet] = {}
        self.next_number = 0
        self.in_flight = 0
        self.largest = -1
        self.srtt = rtt
        self.variation = rtt / 2
        self.loss_time: float | None = None
        self.pto_count = 0
        self.progress = now
        self.losses = 0
        self._last_sent = now
        self._measured = False
        self._lost: dict[int, Packet] = {}
        self._ack_delay = options.ack_delay + 2 * GRANULARITY
        self._congestion = congestion
        self._packet_threshold = PACKET_THRESHOLD
        self._time_threshold = TIME_THRESHOLD

    def add(self, number: int, packet: Packet) -> None:
        """Packet `number` leaves now and asks for an acknowledgement."""
        if not self.sent:
            self.progress = packet[0]
        self.sent[number] = packet
        self.in_flight += packet[1]
        self._last_sent = packet[0]

    def move(self, congestion: Congestion) -> None:
        """The path is another one: measure it afresh."""
        self._congestion = congestion
        self.pto_count = 0

    def pto(self) -> float:
        """Probe timeout without back-off (RFC 9002, 6.2.1)."""
        spread = 4 * self.variation
        return self.srtt + (spread if spread > GRANULARITY else GRANULARITY) + self._ack_delay

    def timeout(self) -> float | None:
        """When `expired` wants to be called."""
        if self.loss_time is not None:
            return self.loss_time
        if not self.sent:
            return None
        if not self.pto_count:
            return self._last_sent + self.pto()
        return self._last_sent + min(self.pto() * (1 << min(self.pto_count, 6)), PTO_LIMIT)

    def acknowledged(
        self, runs: list[tuple[int, int]], delay: float, now: float
    ) -> tuple[list[Packet], list[tuple[int, Packet]]]:
        """Packets newly acknowledged, and those thereby found lost.

        `runs`: (lowest, highest) packet numbers, newest first; all were sent.
        `delay`: how long the peer held the acknowledgement of the newest.
        """
        sent = self.sent
        arrived: list[Packet] = []
        largest = runs[0][1]
        newest = sent.get(largest)
        if newest is not None:
            self._sample(now - newest[0], delay, now)
        if largest > self.largest:
            self.largest = largest
        size = 0
        if newest is not None and len(sent) == 1 and not self._lost:
            del sent[largest]
            arrived.append(newest)
            size = newest[1]
        elif sent or self._lost:
            oldest = next(iter(sent)) if sent else largest + 1
            for low, high in runs:
                for number in range(low if low > oldest else oldest, high + 1):
                    packet = sent.pop(number, None)
                    if packet is not None:
                        arrived.append(packet)
                        size += packet[1]
                if self._lost:
                    self._find_spurious(low, high, arrived)
        if not arrived:
            return arrived, []
        self.in_flight -= size
        self.pto_count = 0
        self.progress = now
        self._congestion.acknowledged(size, largest, self.next_number)
        return arrived, self._detect(now) if sent else []

    def _sample(self, rtt: float, delay: float, now: float) -> None:
        if rtt - delay >= self._congestion.minimum_rtt:
            rtt -= delay
        self._congestion.sample(rtt, now)
        if not self._measured:
            self._measured = True
            self.srtt, self.variation = rtt, rtt / 2
            return
        self.variation += (abs(self.srtt - rtt) - self.variation) / 4
        self.srtt += (rtt - self.srtt) / 8

    def _find_spurious(self, low: int, high: int, arrived: list[Packet]) -> None:
        """Packets were only late: be more patient with this path (RFC 9002, 6.1.1)."""
        late = [number for number in self._lost if low <= number <= high]
        for number in late:
            packet = self._lost.pop(number)
            arrived.append(packet)
            self._congestion.spurious(packet[0])
            patience = self._packet_threshold + 1 + (self._packet_threshold >> 2)
            self._packet_threshold = min(patience, PACKET_THRESHOLD_LIMIT)
            self._time_threshold = min(self._time_threshold * 1.125, TIME_THRESHOLD_LIMIT)

    def _detect(self, now: float) -> list[tuple[int, Packet]]:
        """Packets older than an acknowledged one by count or by time (RFC 9002, 6.1)."""
        self.loss_time = None
        wait = max(self._time_threshold * self.srtt, GRANULARITY)
        found: list[tuple[int, Packet]] = []
        for number, packet in self.sent.items():
            if number > self.largest:
                break
            if packet[0] + wait > now and self.largest - number < self._packet_threshold:
                self.loss_time = packet[0] + wait
                break
            found.append((number, packet))
        for number, packet in found:
            del self.sent[number]
            self.in_flight -= packet[1]
            self._lost[number] = packet
            self._congestion.lost(packet[0], now)
        self.losses += len(found)
        while len(self._lost) > LOST_REMEMBERED:
            del self._lost[next(iter(self._lost))]
        return found

    def expired(self, now: float) -> list[tuple[int, Packet]] | None:
        """At `timeout`: the packets found lost, or None if it is time for a probe."""
        if self.loss_time is not None:
            return self._detect(now)
        self.pto_count += 1
        self._last_sent = now
        return None
