"""What the doors are told: addresses and every limit, in one place.

The runtime fills these from the typed configuration. Sizes are bytes, times are seconds
unless a name says otherwise. Going past a limit is answered with an error that names the
field (`key_bytes_max`, ...).
"""

from __future__ import annotations

from dataclasses import dataclass, field

KIB = 1024
MIB = 1024 * KIB

STREAMED_FROM = 64 * KIB
"""Values above this are handed to the store while they arrive; smaller ones whole."""

SLOWEST = 128 * KIB
"""Bytes per second at which a value is given time to reach the members, at least."""

RESP_BULK_MAX = 512 * MIB
"""A longer bulk ends the connection, as with Redis (proto-max-bulk-len)."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a door listens; port 0 lets the kernel choose."""

    host: str = "127.0.0.1"
    port: int = 0
    backlog: int = 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what clients may ask of one process."""

    key_bytes_max: int = 4 * KIB
    value_bytes_max: int = 256 * MIB
    connections_max: int = 1024
    """Per door."""
    pipeline_max: int = 512
    """Commands of one connection being executed; more wait unread."""
    memory_in_flight_max: int = 64 * MIB
    """Bytes of requests and answers held by all doors together; above it nobody is read."""
    upload_reserve: int = MIB
    """Most an upload counts against `memory_in_flight_max`: it leaves as it arrives."""
    arguments_max: int = 64 * KIB
    """Arguments of one command."""
    command_bytes_max: int = 16 * MIB
    """Arguments of one command that cannot leave as they arrive, together."""
    inline_bytes_max: int = 64 * KIB
    """An inline command."""
    header_bytes_max: int = 16 * KIB
    """Start line and headers of one HTTP request."""
    keys_listed_max: int = 100_000
    """Keys in one answer of KEYS."""
    scan_count_max: int = 10_000
    """Keys looked at by one SCAN or one HTTP listing."""
    cursors_max: int = 4096
    """SCAN cursors remembered; the one unused for longest goes first."""
    output_bytes_high: int = 256 * KIB
    """Answers not yet taken by the kernel above which a connection executes nothing new."""
    request_seconds: float = 10.0
    """Deadline of a request that names none; see `seconds_to_store`."""
    request_seconds_max: float = 300.0
    stall_seconds: float = 60.0
    """A client that moves no byte for this long in the middle of a transfer is cut off, and so
    is a store that takes none; see `stall_patience`."""

    def __post_init__(self) -> None:
        """Check the relations the doors rely on. Raises ValueError naming the field."""
        _require(self.key_bytes_max < STREAMED_FROM, "key_bytes_max", "below 64 KiB")
        _require(self.value_bytes_max <= RESP_BULK_MAX, "value_bytes_max", "at most 512 MiB")
        _require(
            self.memory_in_flight_max >= 2 * self.upload_reserve,
            "memory_in_flight_max",
            "at least twice upload_reserve",
        )
        _require(self.upload_reserve >= STREAMED_FROM, "upload_reserve", "at least 64 KiB")
        _require(self.arguments_max >= 4 * KIB, "arguments_max", "at least 4096")
        _require(self.pipeline_max >= 1, "pipeline_max", "at least 1")
        _require(self.connections_max >= 1, "connections_max", "at least 1")
        _require(self.cursors_max >= 1, "cursors_max", "at least 1")
        _require(
            self.command_bytes_max <= self.memory_in_flight_max,
            "command_bytes_max",
            "at most memory_in_flight_max",
        )
        _require(
            0 < self.request_seconds <= self.request_seconds_max,
            "request_seconds",
            "above 0 and at most request_seconds_max",
        )

    def stall_patience(self, memory_is_short: bool) -> float:
        """Seconds for which a client may move no byte. While others wait for memory that answers
        hold which nobody fetches, not so long that their own deadlines pass over it."""
        if memory_is_short:
            return min(self.stall_seconds, self.request_seconds / 2)
        return self.stall_seconds

    def seconds_to_store(self, length: int) -> float:
        """Deadline of a write that names none and has so many bytes, all of which arrived: what
        still stands in line for the members may be megabytes, and their links slow."""
        return min(self.request_seconds_max, self.request_seconds + length / SLOWEST)


def _require(holds: bool, name: str, what: str) -> None:
    if not holds:
        raise ValueError(f"limits.{name} must be {what}")


@dataclass(frozen=True, slots=True)
class RespOptions:
    """The RESP door. `password` None: no AUTH needed."""

    listen: Listen = field(default_factory=Listen)
    limits: Limits = field(default_factory=Limits)
    password: str | None = None


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """The HTTP door for clients."""

    listen: Listen = field(default_factory=Listen)
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class AdminOptions:
    """The administration listener. `token` None: everything on it is refused."""

    listen: Listen = field(default_factory=Listen)
    limits: Limits = field(default_factory=Limits)
    token: str | None = None


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """A node's end of gateway links. `token` None: any gateway may connect."""

    listen: Listen = field(default_factory=Listen)
    limits: Limits = field(default_factory=Limits)
    token: str | None = None
