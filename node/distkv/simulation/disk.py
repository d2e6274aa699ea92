"""What is durable on a simulated disk, read from its rows by the documented formats only.

The checkers must not believe the code they check, so nothing here calls its parsers.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

import msgpack

from distkv.storage.base import CorruptRow, Table
from distkv.storage.memory import MemoryEngine

_BALLOT = struct.Struct(">QiQ")
_CORE = struct.Struct(">BQiQQQ")
_HEADER = struct.Struct(">BBBBBIIIQQIQQ")
_PIECE = struct.Struct(">BBBBII")


class Coded(NamedTuple):
    """A coded record's row (format 2)."""

    key: bytes
    version: int
    slot: int
    checksum: int
    length: int
    value_id: bytes
    data_shards: int
    size: int
    stripe_bytes: int
    epoch: int

    @property
    def stripes(self) -> int:
        """At least one, for an empty value."""
        return max(1, -(-self.length // self.stripe_bytes))


class Disk:
    """Rows as a crash at this moment would surely leave them; `surely` False: as written."""

    def __init__(self, engine: MemoryEngine, surely: bool = True) -> None:
        self._engine = engine
        self._before = engine.replaced() if surely else {}

    def get(self, table: Table, key: bytes) -> bytes | None:
        """The row; a rotten one counts as absent."""
        if (table, key) in self._before:
            return self._before[table, key]
        try:
            return self._engine.get(table, key)
        except CorruptRow:
            return None

    @property
    def promised(self) -> tuple[int, int, int]:
        """Ballot below which nothing is accepted."""
        row = self.get(Table.META, b"core.state")
        return (0, 0, 0) if row is None else _CORE.unpack(row)[1:4]

    @property
    def batches(self) -> int:
        """Count of batches that had to be flushed."""
        row = self.get(Table.META, b"core.state")
        return 0 if row is None else int(_CORE.unpack(row)[5])

    @property
    def boot(self) -> int:
        """Count of starts."""
        row = self.get(Table.META, b"identity")
        return 0 if row is None else int(msgpack.unpackb(row)[5])

    @property
    def applied(self) -> int:
        """Slot whose state the rows are."""
        row = self.get(Table.STATE, b"a")
        return 0 if row is None else int(msgpack.unpackb(row)[1])

    @property
    def size(self) -> int:
        """Members of the newest layout in the applied state."""
        row = self.get(Table.STATE, b"c")
        return 0 if row is None else len(msgpack.unpackb(row)[5][-1][3])

    @property
    def barrier(self) -> tuple[int, int, int]:
        """Highest applied barrier."""
        row = self.get(Table.STATE, b"a")
        return (0, 0, 0) if row is None else tuple(msgpack.unpackb(row)[6])

    def accepted(self, slot: int) -> tuple[tuple[int, int, int], bytes] | None:
        """Ballot and entry in a slot of the log."""
        row = self.get(Table.LOG, slot.to_bytes(8, "big"))
        return None if row is None else (_BALLOT.unpack_from(row), row[_BALLOT.size :])

    def shard(self, value_id: bytes) -> dict[int, bytes] | None:
        """Pieces by stripe of the shard, and its number under -1; None if it is not whole."""
        raw = self.get(Table.SHARD, b"\xff" + value_id)
        if raw is None:
            return None
        _, complete, shard, _, _, _, stripes, *_ = _HEADER.unpack(raw)
        if not complete:
            return None
        pieces: dict[int, bytes] = {-1: bytes([shard])}
        for stripe in range(stripes):
            row = self.get(Table.SHARD, value_id + stripe.to_bytes(4, "big"))
            if row is None or _PIECE.unpack_from(row)[1] != shard:
                return None
            pieces[stripe] = row[_PIECE.size :]
        return pieces


def record(key: bytes, raw: bytes) -> Coded | None:
    """The row of a key, if it is a coded one."""
    fields: list[Any] = msgpack.unpackb(raw)
    if fields[0] != 2:
        return None
    _, version, _, slot, checksum, length, value_id, k, n, stripe_bytes, epoch, *_ = fields
    return Coded(key, version, slot, checksum, length, value_id, k, n, stripe_bytes, epoch)


def version_and_slot(raw: bytes) -> tuple[int, int]:
    """Of a record of either format."""
    fields: list[Any] = msgpack.unpackb(raw)
    return fields[1], fields[3]


def stored_kinds(key: bytes, row: bytes) -> list[int]:
    """Kinds of the outcomes in a page of a session's results; none for another row."""
    if len(key) != 21 or key[:1] != b"p":
        return []
    return [result[1] for result in msgpack.unpackb(row, use_list=False)[2:]]


def is_header(key: bytes) -> bool:
    """Whether a key of table SHARD is a shard's header."""
    return len(key) == 21 and key[:1] == b"\xff"


class Naming(NamedTuple):
    """A coded put inside a command. `holders`: (ordinal, incarnation)."""

    key: bytes
    value_id: bytes
    holders: tuple[tuple[int, int], ...]


def namings(command: bytes) -> list[Naming]:
    """Every coded put, and every value put in place of another, in a packed command."""
    fields = msgpack.unpackb(command, use_list=False)
    if fields[0] != 1:
        return []
    found = []
    for mutation in fields[5]:
        at = {2: 7, 9: 3}.get(mutation[0])  # a coded put, a re-striped value
        if at is not None:
            holders = mutation[at + 8]
            pairs = tuple(zip(holders[::2], holders[1::2], strict=True))
            found.append(Naming(mutation[1], mutation[at], pairs))
    return found


def commands_of(entry: bytes) -> list[bytes]:
    """Packed commands in a log entry."""
    return msgpack.unpackb(entry[9:]) if entry[0] == 1 else []


def named_values(entry: bytes) -> list[tuple[bytes, bytes]]:
    """(key, value id) of every coded put in a log entry."""
    return [(n.key, n.value_id) for command in commands_of(entry) for n in namings(command)]
