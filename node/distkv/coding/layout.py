"""Which shard goes to which seat, and how large stripes and pieces are.

The shard number of a seat is rotated by the value id, so that data and parity, and with
them the load of reads, spread evenly over the members.
"""

from __future__ import annotations

from distkv.ids import ValueId

STRIPE_BYTES = 512 * 1024
"""Bytes of the value in one stripe. For every k >= 2 a piece stays at or below 256 KiB:
buffers from 512 KiB up are mapped and unmapped by malloc on every call, which makes
coding five times as slow."""

STRIPE_BYTES_MIN = 256 * 1024
STRIPE_BYTES_MAX = 1024 * 1024
assert STRIPE_BYTES_MIN <= STRIPE_BYTES <= STRIPE_BYTES_MAX


def rotation(value_id: ValueId) -> int:
    """How far the shards of this value are turned against the seats."""
    return value_id.counter + value_id.boot


def shard_of(ordinal: int, value_id: ValueId, size: int) -> int:
    """Shard number that belongs to the seat `ordinal` in a layout of `size` seats."""
    return (ordinal + rotation(value_id)) % size


def ordinal_of(shard: int, value_id: ValueId, size: int) -> int:
    """Seat that shard number `shard` belongs to; inverse of `shard_of`."""
    return (shard - rotation(value_id)) % size


def stripe_count(length: int, stripe_bytes: int) -> int:
    """Stripes of a value of `length` bytes; an empty value has one empty stripe."""
    return max(1, -(-length // stripe_bytes))


def stripe_length(length: int, stripe_bytes: int, stripe: int) -> int:
    """Bytes of the value in stripe number `stripe`."""
    return max(0, min(stripe_bytes, length - stripe * stripe_bytes))


def piece_bytes(length: int, data_shards: int) -> int:
    """Bytes of a full piece of a stripe of `length` bytes (every parity piece is full)."""
    return -(-length // data_shards)


def piece_length(length: int, data_shards: int, shard: int) -> int:
    """Bytes of piece number `shard`: data pieces at the end of the stripe may be shorter."""
    full = piece_bytes(length, data_shards)
    if shard >= data_shards:
        return full
    return max(0, min(full, length - shard * full))


def shard_bytes(length: int, stripe_bytes: int, data_shards: int) -> int:
    """Bytes of the largest shard of a value, all its stripes together."""
    whole, rest = divmod(length, stripe_bytes)
    return whole * piece_bytes(stripe_bytes, data_shards) + piece_bytes(rest, data_shards)
