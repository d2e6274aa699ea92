"""What the replica and the member see of the replicated state machine.

The machine is a deterministic function of the log: `apply` uses the state after the
previous entry, the entry's own bytes, and nothing else (no clock, no chance, no local
knowledge), so every node that applied slot s holds equal rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import NamedTuple, Protocol

from distkv.core.configuration import Configuration
from distkv.ids import Ballot, Member, ValueId
from distkv.storage.base import StorageOperation


class OutcomeKind(IntEnum):
    """How a command ended; numbers are wire and disk format."""

    APPLIED = 0
    """`detail`: list with one plain result per mutation."""
    CONDITION = 1
    """`detail`: index of the mutation whose condition was not met. Sequence consumed."""
    REFUSED = 2
    """`detail`: name of the reason (barrier, boot, settled, holders, epoch, coordinator:
    disperse again; not_formed; window, sessions: the table of sessions is full, later).
    Nothing changed, the sequence is not consumed."""
    UNKNOWN_SESSION = 3
    """Never applied under this session; whether an earlier try was is not known."""
    FAILED = 4
    """`detail`: message for the caller (not an integer, overflow, ...). Sequence consumed."""
    NEEDS_VALUE = 5
    """A mutation needs the old value and that one is coded: read it, then compare-and-set.
    `detail`: index of the mutation. Nothing changed, the sequence is not consumed."""


NOT_CONSUMED = (OutcomeKind.REFUSED, OutcomeKind.NEEDS_VALUE)
"""Nothing is remembered: the same command may be applied when it comes again."""


class Outcome(NamedTuple):
    """One command of a known session, decided by an applied entry."""

    session: bytes
    sequence: int
    kind: OutcomeKind
    detail: object


class Record(NamedTuple):
    """One key. Inline: `value` holds it. Coded: `value` is None and the rest locates it.

    `version`: revision of the last change (unique, growing over the whole store).
    `slot`: slot whose entry named this value (for repair copies). `checksum`: CRC-32C of
    the whole value. `holders`: who held a shard durably when the put was submitted.
    """

    version: int
    expires_ms: int | None
    length: int
    checksum: int
    value: bytes | None
    value_id: ValueId | None
    data_shards: int
    size: int
    stripe_bytes: int
    epoch: int
    slot: int
    holders: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class BarrierRaised:
    """Puts dispersed under a lower ballot can no longer take effect."""

    barrier: Ballot


@dataclass(frozen=True, slots=True)
class Booted:
    """Values of earlier boots of this incarnation can no longer be put."""

    incarnation: int
    boot: int


@dataclass(frozen=True, slots=True)
class Settled:
    """All values of this boot with a counter below are decided."""

    incarnation: int
    boot: int
    counter: int


@dataclass(frozen=True, slots=True)
class Named:
    """A record now refers to this value."""

    key: bytes
    value_id: ValueId
    slot: int
    record: Record | None = field(default=None, compare=False)
    """The record, as the entry left it."""


@dataclass(frozen=True, slots=True)
class Superseded:
    """No record refers to this value any more; its shards may go after their grace."""

    value_id: ValueId
    record: Record | None = field(default=None, compare=False)
    """The record that referred to it, if it was at hand."""


@dataclass(frozen=True, slots=True)
class ConfigurationChanged:
    """Members or layout changed; `removed` incarnations may never come back."""

    slot: int
    configuration: Configuration
    removed: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Formed:
    """The owner recorded the formation; client writes are accepted from here on."""


@dataclass(frozen=True, slots=True)
class ChangeRefused:
    """The configuration entry at `slot` changed nothing."""

    slot: int
    reason: str


Event = (
    BarrierRaised
    | Booted
    | Settled
    | Named
    | Superseded
    | ConfigurationChanged
    | Formed
    | ChangeRefused
)


class StateMachine(Protocol):
    """See machine.machine.Machine."""

    applied: int
    """Last applied slot."""
    configuration: Configuration
    barrier: Ballot
    log_time_ms: int
    formed: bool

    def apply(self, slot: int, entry: bytes) -> None:
        """Apply the entry of slot applied + 1. Raises UnknownEntry (halt the node)."""

    def drain_writes(self) -> list[StorageOperation]:
        """Rows changed since the last drain, the applied index among them."""

    def drain_outcomes(self) -> list[Outcome]:
        """Commands decided since the last drain, in log order."""

    def drain_events(self) -> list[Event]:
        """What the data plane must know, in log order."""
