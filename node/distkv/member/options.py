"""What a member may be told; every relation between limits is checked here."""

from __future__ import annotations

from dataclasses import dataclass, field

from distkv.core.options import ReplicaOptions

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MemberOptions:
    """Times in seconds, sizes in bytes."""

    replica: ReplicaOptions = field(default_factory=lambda: ReplicaOptions(tick=5))
    tick: float = 0.005
    sweep: float = 0.1
    """How often deadlines of waiting commands and reads are looked at."""
    resend_after: float = 1.0
    """A command without outcome for this long is handed to the leader again."""
    no_quorum_after: float = 2.0
    """Requests are refused at once after too few peers answered for this long."""
    greeting_every: float = 1.0
    pending_commands_max: int = 100_000
    pending_reads_max: int = 100_000
    stripe_bytes: int = 256 * 1024
    stream_above: int = MEBIBYTE
    """A read value above this is handed out as a Download instead of bytes."""
    value_max: int = 256 * MEBIBYTE
    memory_in_flight: int = 512 * MEBIBYTE
    """Values being dispersed or gathered at once, all requests together."""
    grace: float = 30.0
    """Shards of a superseded value stay readable this long (at least the read deadline)."""
    grace_bytes: int = 1024 * MEBIBYTE
    repair_bytes_per_second: int = 32 * MEBIBYTE
    repair_pass_every: float = 60.0
    """Pause between two passes over all records in search of missing shards."""
    scrub_period: float = 7 * 86400.0
    """Within this time every row on disk is read again and its checksum verified."""
    restripe_after: float = 10.0
    """A value coded worse than the layout wants is left alone for so long after it was named."""
    settle_every: float = 5.0
    """How often a coordinator tells, through the log, which of its values are decided."""
    truncate_every: float = 1.0
    """How often log rows that no peer should need any more are dropped."""

    def __post_init__(self) -> None:
        if round(self.tick * 1000) != self.replica.tick:
            raise ValueError(f"tick ({self.tick} s) must equal replica.tick ({self.replica.tick})")
        if self.value_max > self.memory_in_flight:
            raise ValueError(
                f"value_max ({self.value_max}) must not exceed memory_in_flight "
                f"({self.memory_in_flight}): such a value could never be written"
            )
        if self.stripe_bytes > self.value_max:
            raise ValueError(f"stripe_bytes ({self.stripe_bytes}) must not exceed value_max")
