"""Rows of the SHARD table: disk format, version 1.

| key                                  | value                                        |
|--------------------------------------|----------------------------------------------|
| value id (20 bytes) + stripe (u32)   | piece header (12 bytes), then the piece      |
| 0xFF + value id                      | shard header: what the shard is part of      |

Incarnations have 63 bits, so headers sort behind all pieces: they are read at start
without touching a piece. Both are big endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from distkv.coding.checksum import checksum
from distkv.data.messages import Code
from distkv.ids import VALUE_ID_BYTES, Ballot, ValueId

FORMAT = 1
HEADERS = b"\xff"
"""Where the shard headers start; they go on to the end of the table."""

_PIECE = struct.Struct(">BBBBII")
"""Format, shard, k, n, bytes of the value's stripe, CRC-32C of the piece."""
_HEADER = struct.Struct(">BBBBBIIIQQIQQ")
"""Format, complete, shard, k, n, stripe bytes, stripes (0: not known yet), epoch, repair slot,
round, ordinal and incarnation of the stamp, bytes of all pieces."""
_STRIPE = struct.Struct(">I")


class UnknownFormat(ValueError):
    """A row of a later version: this one must not touch it."""


class Piece(NamedTuple):
    """One stored piece; `length` is that of the value's stripe."""

    shard: int
    length: int
    crc: int
    piece: bytes


class Header(NamedTuple):
    """A shard as a whole. `stripes` 0: its last piece has not arrived."""

    complete: bool
    shard: int
    code: Code
    stripes: int
    epoch: int
    repair_slot: int
    stamp: Ballot
    piece_bytes: int


def piece_key(value_id: ValueId, stripe: int) -> bytes:
    """Key of one piece."""
    return value_id.pack() + _STRIPE.pack(stripe)


def stripe_of(key: bytes) -> int:
    """Stripe number in a piece key."""
    return int(_STRIPE.unpack_from(key, VALUE_ID_BYTES)[0])


def piece_range(value_id: ValueId) -> tuple[bytes, bytes]:
    """Start and end of all piece keys of a value."""
    packed = value_id.pack()
    return packed, packed + b"\xff\xff\xff\xff\xff"


def header_key(value_id: ValueId) -> bytes:
    """Key of the shard header."""
    return HEADERS + value_id.pack()


def value_of(key: bytes) -> ValueId:
    """Value id in a header key."""
    return ValueId.unpack(key[1:])


def pack_piece(code: Code, piece: Piece) -> bytes:
    """Row of a piece."""
    head = _PIECE.pack(FORMAT, piece.shard, code.data_shards, code.size, piece.length, piece.crc)
    return head + piece.piece


def unpack_piece(row: bytes) -> Piece:
    """Inverse of `pack_piece`. Raises UnknownFormat, struct.error."""
    version, shard, _, _, length, crc = _PIECE.unpack_from(row)
    if version != FORMAT:
        raise UnknownFormat(f"shard piece of format {version}; this node knows {FORMAT}")
    return Piece(shard, length, crc, row[_PIECE.size :])


def is_sound(piece: Piece) -> bool:
    """Whether the bytes are those that arrived."""
    return checksum(piece.piece) == piece.crc


def pack_header(header: Header) -> bytes:
    """Row of a shard header."""
    code, stamp = header.code, header.stamp
    return _HEADER.pack(
        FORMAT,
        header.complete,
        header.shard,
        code.data_shards,
        code.size,
        code.stripe_bytes,
        header.stripes,
        header.epoch,
        header.repair_slot,
        stamp.round,
        stamp.ordinal,
        stamp.incarnation,
        header.piece_bytes,
    )


def unpack_header(row: bytes) -> Header:
    """Inverse of `pack_header`. Raises UnknownFormat, struct.error."""
    if row[:1] != bytes([FORMAT]):
        raise UnknownFormat(f"shard header of format {row[:1]!r}; this node knows {FORMAT}")
    (_, complete, shard, k, n, stripe_bytes, stripes, epoch, slot, round_, ordinal, inc, size) = (
        _HEADER.unpack(row)
    )
    return Header(
        bool(complete),
        shard,
        Code(k, n, stripe_bytes),
        stripes,
        epoch,
        slot,
        Ballot(round_, ordinal, inc),
        size,
    )
