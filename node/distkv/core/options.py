"""Limits and timeouts of the consensus core: one place, relations asserted."""

from __future__ import annotations

from dataclasses import dataclass

MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class ReplicaOptions:
    """All times in milliseconds, all sizes in bytes of entries."""

    tick: int = 10
    """Interval of `Replica.tick`; every other time is rounded up to whole ticks."""
    heartbeat: int = 50
    election_min: int = 300
    """A leader unheard for this long may be replaced; one that hears no quorum resigns."""
    election_max: int = 600
    election_jitter: int = 100
    """Spread of the start of elections that a lost connection or a refusal makes urgent."""
    retry: int = 100
    """Wait before a lost LearnRequest or Prepare is sent again."""
    look_again: int = 250
    """How often a follower at least looks what it has to ask for."""
    resend: int = 200
    """First wait before accepts without an answer are sent again; doubles up to resend_max."""
    resend_max: int = 2000
    read_timeout: int = 400
    """A read token is answered (perhaps with -1) at the latest after about this time."""
    recovery_timeout: int = 5000
    """A leader that cannot learn what it needs to propose gives up after this time."""
    queue_commands: int = 16384
    queue_bytes: int = 32 * MEBIBYTE
    """Commands that wait for a slot."""
    batch_commands: int = 4096
    batch_bytes: int = MEBIBYTE
    window_slots: int = 512
    window_bytes: int = 4 * MEBIBYTE
    """Proposed and not yet chosen; also what a Promise may have to carry."""
    message_bytes: int = MEBIBYTE
    inflight_bytes: int = 8 * MEBIBYTE
    """Sent to one peer and not yet acknowledged."""
    lazy: int = 75
    lazy_slots: int = 64
    lazy_bytes: int = 64 * 1024
    """Voters that no quorum needs get entries this late, or when so many or so much wait."""
    hedge_min: int = 10
    hedge_max: int = 50
    """Wait for a quorum, by what its members usually take, before all voters are asked."""
    choose_again: int = 250
    """How often the leader looks which voters answer soonest."""
    ahead_slots: int = 4096
    """An acceptor ignores slots this far above its chosen prefix."""
    apply_slots: int = 64
    """Entries applied per call of `ready`, so that a turn stays short."""
    retain_slots: int = 4096
    retain_bytes: int = 16 * MEBIBYTE
    """Applied entries kept after `truncate`, for peers that are a little behind."""
    reads_waiting: int = 8192
    read_rounds: int = 4
    """Confirmation rounds in flight on the leader."""
    learners: int = 16

    def ticks(self, milliseconds: int) -> int:
        """Number of ticks that last at least this long."""
        return max(1, -(-milliseconds // self.tick))


def check(o: ReplicaOptions) -> None:
    """Raise ValueError, naming the fields, if the options contradict each other."""
    rules = (
        (o.tick >= 1, "tick must be at least 1 ms"),
        (o.tick <= o.heartbeat, "heartbeat must be at least one tick"),
        (4 * o.heartbeat <= o.election_min, "election_min must be at least 4 heartbeats"),
        (o.election_min < o.election_max, "election_max must be above election_min"),
        (o.resend <= o.resend_max, "resend_max must be at least resend"),
        (o.batch_bytes <= o.window_bytes, "window_bytes must hold one batch"),
        (o.message_bytes <= o.inflight_bytes, "inflight_bytes must hold one message"),
        (o.hedge_min <= o.hedge_max < o.resend, "hedge_min <= hedge_max < resend must hold"),
        (o.lazy < o.election_min, "lazy must be below election_min"),
        (o.window_slots < o.ahead_slots, "ahead_slots must be above window_slots"),
        (o.batch_bytes <= o.queue_bytes, "queue_bytes must hold one batch"),
        (min(o.apply_slots, o.read_rounds, o.window_slots) >= 1, "a limit of 0 stops everything"),
    )
    for holds, message in rules:
        if not holds:
            raise ValueError(message)
