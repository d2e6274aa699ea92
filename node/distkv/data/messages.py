"""Messages of the data plane (bulk lane, one stream per value). Each is a tuple.

| message     | from        | to          | answers    |
|-------------|-------------|-------------|------------|
| ShardPiece  | coordinator | holder      |            |
| ShardStored | holder      | coordinator | the last ShardPiece of a shard, once durable |
| ShardRefused| holder      | coordinator | ShardPiece |
| ShardDropped| coordinator | holder      | "never submitted": its pieces are garbage |
| ShardWanted | reader      | holder      |            |
| ShardGiven  | holder      | reader      | ShardWanted, one for each stripe |
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from distkv.ids import Ballot, ValueId


class Code(NamedTuple):
    """How a value was coded: any `data_shards` of `size` shards rebuild it."""

    data_shards: int
    size: int
    stripe_bytes: int


class ShardPiece(NamedTuple):
    """Stripe `stripe` of the shard number `shard` (0 <= shard < size).

    `length`: bytes of the *value's* stripe; `crc`: CRC-32C of `piece`.
    `last`: the total number of stripes when this is the last one, else 0.
    `stamp`: ballot under which it is dispersed. `repair_slot` > 0: a repair copy of a
    committed record named at that slot. `key`: of a repair copy, else empty.
    """

    value_id: ValueId
    shard: int
    stripe: int
    last: int
    code: Code
    epoch: int
    stamp: Ballot
    repair_slot: int
    key: bytes
    length: int
    crc: int
    piece: bytes


class ShardStored(NamedTuple):
    """All stripes of shard number `shard` of the value are durable at the sender."""

    value_id: ValueId
    shard: int


class Refusal(IntEnum):
    """Why a holder takes no piece."""

    STALE = 1
    """An applied barrier, boot, replacement or settled mark already rules the value out."""
    DISK_FULL = 2
    NOT_MEMBER = 3
    BUSY = 4


class ShardRefused(NamedTuple):
    """The holder keeps nothing of it."""

    value_id: ValueId
    shard: int
    reason: Refusal


class ShardDropped(NamedTuple):
    """The coordinator never submitted these values, and never will."""

    value_ids: tuple[ValueId, ...]


class ShardWanted(NamedTuple):
    """Send stripes first, ..., first+stripes-1 of the shard you hold of the value."""

    request: int
    value_id: ValueId
    first: int
    stripes: int


class Found(IntEnum):
    """Result of looking for a piece."""

    HERE = 0
    GONE = 1
    CORRUPT = 2


class ShardGiven(NamedTuple):
    """One piece, or word that it is gone or corrupt (then `piece` is empty)."""

    request: int
    found: Found
    shard: int
    stripe: int
    length: int
    crc: int
    piece: bytes


DataMessage = ShardPiece | ShardStored | ShardRefused | ShardDropped | ShardWanted | ShardGiven
