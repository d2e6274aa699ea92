"""Limits and times of the transport, in one place, their relations asserted."""

from __future__ import annotations

from dataclasses import dataclass

KIBI = 1024
MEBI = 1024 * KIBI

MESSAGE_OVERHEAD = 128
"""Bytes charged per message besides its payload, so that empty messages are bounded too."""

BASE_DATAGRAM = 1200
"""Datagram size (bytes of UDP payload) every path is taken to carry (RFC 9000, section 14)."""

LARGEST_DATAGRAM = 61_440
"""Upper end of the size search; UDP over IPv4 ends at 65,507."""


BEAT_BYTES = 512
"""Largest beat: two and an acknowledgement fit every datagram."""

BEATS_WAITING = 16
"""Beats that wait for the next datagram; of more, the oldest are worth the least."""

CONTROL_RESERVE = 64 * 1024
"""Bytes the control lane may have in flight beyond the congestion window."""
SIGN_SHARE = 0.75
"""A sign of life may be this early (of its interval) when there is a wake-up anyway: one for
several peers."""
PING_EVERY = 10
"""Each so-manieth sign of life asks for an acknowledgement, for the round-trip time."""


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes are bytes, times are seconds.

    The flow-control windows are what one peer may make this node hold in messages that are
    incomplete or wait for an earlier one, per lane; queues are what this node holds for one
    peer until it acknowledged it.
    """

    control_message: int = 8 * MEBI
    bulk_message: int = 2 * MEBI
    control_queue: int = 16 * MEBI
    bulk_queue: int = 8 * MEBI
    control_window: int = 12 * MEBI
    bulk_window: int = 8 * MEBI

    ping_interval: float = 0.1
    """A side that sent nothing for this long sends a small datagram."""
    dead_after: float = 0.6
    """A peer not heard for this long, or that acknowledged nothing for it, is down."""
    ack_delay: float = 0.005
    """How long an acknowledgement waits for a message to ride with."""
    dial_timeout: float = 0.1
    """First wait for the answer to a greeting; grows by half up to `dial_timeout_limit`."""
    dial_timeout_limit: float = 0.5

    datagram_sizes: tuple[int, ...] = (LARGEST_DATAGRAM, 8_952, 1_472, 1_452)
    """Sizes above BASE_DATAGRAM to try, largest first (jumbo and plain Ethernet, IPv4 and 6)."""
    probe_interval: float = 60.0
    """Wait before a larger size is tried again."""

    queue_delay: float = 0.03
    """Standing queue, in seconds of delay, that bulk may build up on the path."""
    initial_window: int = 64 * KIBI
    window_limit: int = 16 * MEBI
    """Bound of the congestion window; the peer's socket buffer bounds it further."""

    burst: int = 256 * KIBI
    """Bytes one peer is sent in one turn before the others have theirs."""
    half_open_limit: int = 64
    peers_limit: int = 64

    @property
    def sign_after(self) -> float:
        """Silence after which a sign of life leaves if there is a wake-up anyway."""
        return SIGN_SHARE * self.ping_interval

    def __post_init__(self) -> None:
        """A message must fit its window and queue whole: it is started only if it can end."""
        assert self.control_window >= self.control_message + MESSAGE_OVERHEAD
        assert self.bulk_window >= self.bulk_message + MESSAGE_OVERHEAD
        assert self.control_queue >= self.control_message + MESSAGE_OVERHEAD
        assert self.bulk_queue >= self.bulk_message + MESSAGE_OVERHEAD
        assert 2 * self.ping_interval < self.dead_after
        assert self.ack_delay < self.ping_interval
        assert all(BASE_DATAGRAM < size <= 65_507 for size in self.datagram_sizes)
        assert list(self.datagram_sizes) == sorted(self.datagram_sizes, reverse=True)
        assert self.burst >= LARGEST_DATAGRAM


DEFAULT_OPTIONS = Options()
