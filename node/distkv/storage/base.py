"""The one narrow interface of every storage engine.

An engine is a small set of ordered tables. `write` applies a batch atomically and at once
visibly, but not durably; `flush` makes durable all that was written before it was called.
After a crash an engine reopens with a *prefix* of the written batches, at least up to the
last completed flush, and never with part of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple, Protocol


class Table(IntEnum):
    """Tables; numbers are disk format and are never reused."""

    META = 1
    """Identity and hard state of the acceptor."""
    LOG = 2
    """Slot (8 bytes, big endian) -> accepted entry."""
    STATE = 3
    """Rows of the replicated state other than records: sessions, boots, configuration."""
    RECORD = 4
    """User key -> record."""
    NAME = 5
    """Value id -> user key, for every coded record."""
    EXPIRY = 6
    """Expiry time (8 bytes, big endian, ms) + user key -> nothing."""
    SHARD = 7
    """Value id + stripe (4 bytes, big endian) -> shard piece, and the shard's header."""


class Put(NamedTuple):
    """Set `key` in `table`."""

    table: Table
    key: bytes
    value: bytes


class Delete(NamedTuple):
    """Remove `key` from `table`; no error if it is absent."""

    table: Table
    key: bytes


class DeleteRange(NamedTuple):
    """Remove all keys k with start <= k < end."""

    table: Table
    start: bytes
    end: bytes


StorageOperation = Put | Delete | DeleteRange


class StorageError(Exception):
    """The engine cannot go on; the message says where and what to do."""


class StorageFull(StorageError):
    """No space: the whole batch was refused, earlier ones stand; try again when space is back."""


class CorruptRow(StorageError):
    """A row failed its checksum. Other rows are still readable."""

    def __init__(self, table: Table, key: bytes) -> None:
        super().__init__(f"row {key!r} of table {table.name} fails its checksum")
        self.table = table
        self.key = key


class Usage(NamedTuple):
    """Bytes: what live rows need, what files take (but for zeros written ahead), what the file
    system still has."""

    live: int
    on_disk: int
    free: int


class Framing(NamedTuple):
    """What one step of `check_framing` found. `next`: where to go on; 0: all was looked at.
    `read`: bytes. `damaged`: places that are not as written; `mended`: of those, written again."""

    next: int
    read: int
    damaged: int
    mended: int


class View(Protocol):
    """A consistent, read-only picture of one moment; close it, it pins disk space."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows in key order with start <= key < end. Raises CorruptRow."""

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        """Like `scan`, keys only."""

    def close(self) -> None:
        """Release it; reading afterwards is an error."""


class Engine(Protocol):
    """See the module. `flush` may run in another thread while the owner reads and writes."""

    name: str
    framed: bool
    """Whether `check_framing` has anything to look at."""
    reserve_bytes: int
    """Free bytes below which `write` refuses batches that put rows."""

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row, or None. Raises CorruptRow."""

    def reread(self, table: Table, key: bytes) -> bytes | None:
        """Like `get`, from the medium as far as can be: no cache of this process answers, and
        the kernel is asked to forget its own copy first. For scrubbing. Raises CorruptRow."""

    def scan(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[tuple[bytes, bytes]]:
        """Up to `limit` rows in key order with start <= key < end. Raises CorruptRow."""

    def keys(
        self, table: Table, start: bytes = b"", end: bytes | None = None, limit: int = 1000
    ) -> list[bytes]:
        """Like `scan`, keys only."""

    def count(self, table: Table) -> int:
        """Number of live rows (exact for engines with an index, else an estimate)."""

    def write(self, batch: Sequence[StorageOperation]) -> int:
        """Apply atomically, in order; the bytes of its values. Raises StorageFull (nothing of
        it applied)."""

    def flush(self) -> None:
        """Return when everything written before the call is durable. Raises StorageError.

        After a failed flush the engine refuses all writes until reopened (a page that the
        kernel dropped after a write error would otherwise count as durable).
        """

    def compact_step(self, budget_bytes: int = 256 << 10) -> bool:
        """Give back space of dead rows: one bounded piece of work, about a millisecond.

        The owner calls it after each flush, with a budget of what was written since the last
        call or more, and while idle until it returns False. Engines that compact by
        themselves, or need not, return False. Raises StorageError if the engine failed.
        """

    def make_room(self) -> None:
        """Free space gets scarce: give back that of dead rows, in the background, as far as
        there is space to do it in. Returns at once, and may be called at any time and often.
        Engines whose `compact_step` does so need not do more."""

    def check_framing(self, position: int, budget_bytes: int) -> Framing:
        """Read again what is on disk besides rows, from `position` (0: the beginning) on, past
        every cache; write anew what is damaged, where that is known. For scrubbing. Engines
        that check and repeat such things by themselves have nothing to look at."""

    def view(self) -> View:
        """A consistent picture of all tables as of now."""

    def usage(self) -> Usage:
        """Sizes in bytes; cheap enough to call every second."""

    def close(self) -> None:
        """Flush and release files."""
