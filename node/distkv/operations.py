"""What clients can ask of the store, as doors, gateway link and members all speak it.

Every write is a list of conditional mutations on keys that take effect all or none.
Values of mutations are `bytes`, or an `Upload` whose bytes are still arriving.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple, Protocol

from distkv.kernel import Future


class Must(IntEnum):
    """Kinds of conditions on a key."""

    ANYTHING = 0
    BE_ABSENT = 1
    BE_PRESENT = 2
    HAVE_VERSION = 3
    NOT_HAVE_VERSION = 4
    """Absent counts as not having it (HTTP If-None-Match)."""


class Condition(NamedTuple):
    """What the record must be like for the whole write to take effect."""

    must: Must = Must.ANYTHING
    version: int = 0


ANYTHING = Condition()


class Expiry(NamedTuple):
    """When a key goes: `keep` leaves what was, else absolute or relative ms, else never."""

    at_ms: int | None = None
    after_ms: int | None = None
    keep: bool = False


NEVER = Expiry()


class Upload(Protocol):
    """A value that arrives in pieces; dispersal starts while it does."""

    def write(self, piece: bytes) -> bool:
        """Take the next piece; False asks to pause until `on_resume` is called."""

    def finish(self) -> None:
        """All pieces were written."""

    def abort(self) -> None:
        """The client went away; whatever was dispersed becomes garbage."""

    on_resume: Callable[[], None] | None


class Download(Protocol):
    """A large value, read stripe by stripe. Memory is bounded by the reader's pace."""

    length: int

    def next(self) -> Future[bytes]:
        """The next piece, b"" at the end (after the whole-value checksum was right).

        Fails with DataLost, Corrupt, NoQuorum or DeadlineExceeded.
        """

    def close(self) -> None:
        """Stop; nothing more is fetched."""


class Put(NamedTuple):
    """Set a key. `previous`: also return the value it had (as Get would)."""

    key: bytes
    value: bytes | Upload
    expiry: Expiry = NEVER
    condition: Condition = ANYTHING
    previous: bool = False


class Delete(NamedTuple):
    """Remove a key; no error if it is absent (unless the condition says so)."""

    key: bytes
    condition: Condition = ANYTHING
    previous: bool = False


class ExpireMode(IntEnum):
    """Conditions of the EXPIRE family."""

    ALWAYS = 0
    ONLY_WITHOUT = 1
    ONLY_WITH = 2
    ONLY_LATER = 3
    ONLY_SOONER = 4


class Expire(NamedTuple):
    """Change only when a key expires (NEVER persists it). Result: whether it was changed."""

    key: bytes
    expiry: Expiry
    mode: ExpireMode = ExpireMode.ALWAYS


class Check(NamedTuple):
    """Changes nothing: the other mutations of its write happen only if the condition is met.

    Result: True.
    """

    key: bytes
    condition: Condition


class Increment(NamedTuple):
    """Add to a decimal integer (64-bit, absent counts as 0). Result: the new value."""

    key: bytes
    delta: int


class IncrementFloat(NamedTuple):
    """Add to a decimal number, given as text. Result: the new value as text."""

    key: bytes
    delta: bytes


class Append(NamedTuple):
    """Append to a value (absent counts as empty). Result: the new length."""

    key: bytes
    piece: bytes


class Flush(NamedTuple):
    """Remove every key (FLUSHDB)."""


Mutation = Put | Delete | Expire | Check | Increment | IncrementFloat | Append | Flush


class Write(NamedTuple):
    """All or none. Result: list with one result per mutation:

    Put -> Written; Delete -> Written; Expire -> bool; Check -> True; Increment -> int;
    IncrementFloat -> bytes; Append -> int; Flush -> int (keys removed).
    If a condition is not met the whole write fails with ConditionFailed.

    `session` and `sequence`: set by a gateway (its own session) or, for an HTTP
    Idempotency-Key, derived from it; None: the executing node uses its own.
    `low`: every sequence below it was answered, its result may be forgotten.
    """

    mutations: tuple[Mutation, ...]
    session: bytes | None = None
    sequence: int = 0
    low: int = 0


class Get(NamedTuple):
    """Result: Value or None. `stale`: answer from applied state without a read index."""

    key: bytes
    stale: bool = False


class GetMany(NamedTuple):
    """Result: list of Value or None, one per key, from one read index."""

    keys: tuple[bytes, ...]


class Stat(NamedTuple):
    """Result: list of Meta or None, one per key. Never touches shards."""

    keys: tuple[bytes, ...]


class Scan(NamedTuple):
    """Result: Page of keys k in order with start <= k < end (None: no end) and the prefix."""

    start: bytes = b""
    end: bytes | None = None
    prefix: bytes = b""
    limit: int = 1000


class Count(NamedTuple):
    """Result: int, number of keys (DBSIZE)."""


class OpenSession(NamedTuple):
    """Register a gateway's session (12 random bytes). Result: True once applied."""

    session: bytes


Operation = Write | Get | GetMany | Stat | Scan | Count | OpenSession


class Meta(NamedTuple):
    """A record without its value. `version` is the ETag: unique per change of the key."""

    version: int
    length: int
    expires_ms: int | None
    coded: bool


class Value(NamedTuple):
    """A record with its value: bytes up to the streaming threshold, else a Download."""

    meta: Meta
    data: bytes | Download


class Written(NamedTuple):
    """`existed`: the key was there before. `previous`: its Value, if it was asked for.

    `version` 0: the key is now absent.
    """

    version: int
    existed: bool
    previous: Value | None = None


class Page(NamedTuple):
    """`next_start` None: that was all."""

    keys: list[tuple[bytes, Meta]]
    next_start: bytes | None


class Store(Protocol):
    """What doors talk to: a member of the cluster, or the gateway's client of members."""

    def execute(self, operation: Operation, deadline: float) -> Future[object]:
        """Start it; `deadline` on the kernel's clock (seconds). Fails with DistKVError only."""

    def upload(self, length: int | None) -> Upload:
        """Begin a value for a later Put. Raises Busy or TooLarge at once."""

    def now(self) -> float:
        """The kernel's clock, seconds."""

    def status(self) -> dict[str, object]:
        """For INFO and /v1/status: see runtime.status."""

    def health(self) -> dict[str, object]:
        """Of `status` only serving, state, detail and keys, which probes ask all the time."""
