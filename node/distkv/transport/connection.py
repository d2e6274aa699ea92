"""What describes a connection: what the greetings settled, how it ends, what it counts."""

from __future__ import annotations

from typing import NamedTuple

REASONS = {0: "peer stopped", 1: "replaced", 2: "key retired", 3: "protocol error"}
STOPPED, REPLACED, KEY_RETIRED, PROTOCOL_ERROR = range(4)


class Parameters(NamedTuple):
    """What the two greetings settled."""

    local: int
    """Connection id in datagrams to us."""
    remote: int
    control_credit: int
    bulk_credit: int
    socket_buffer: int


class Statistics(NamedTuple):
    """Counters of one connection since it was made; sizes in bytes, times in seconds."""

    packets_sent: int
    packets_received: int
    bytes_sent: int
    bytes_received: int
    messages_sent: int
    messages_received: int
    packets_lost: int
    chunks_resent: int
    duplicates: int
    forged: int
    rtt: float
    window: int
    datagram: int
    in_flight: int
    queued_control: int
    queued_bulk: int
