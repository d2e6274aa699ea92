"""The record of one key as a row: msgpack, its first item is the format.

| format | fields                                                                          |
|--------|---------------------------------------------------------------------------------|
| 1      | inline: version, expires, slot, checksum, value                                 |
| 2      | coded: version, expires, slot, checksum, length, value id, k_e, n, stripe bytes, |
|        | epoch, holders (ordinal, incarnation, ordinal, ...)                             |
"""

from __future__ import annotations

from typing import Any

import msgpack
from google_crc32c import value as crc32c

from distkv.ids import Member, ValueId
from distkv.machine.commands import UnknownEntry
from distkv.machine.interface import Record

_INLINE = 1
_CODED = 2
_pack = msgpack.Packer().pack
_unpack = msgpack.unpackb
_new = tuple.__new__

Fields = tuple[Any, ...]


def encode_record(record: Record) -> bytes:
    """The row of a record."""
    packed: bytes
    if record.value is not None:
        version, expires, _, checksum, value, _, _, _, _, _, slot, _ = record
        packed = _pack((_INLINE, version, expires, slot, checksum, value))
        return packed
    assert record.value_id is not None, "a record has a value or names one"
    packed = _pack(
        (
            _CODED,
            record.version,
            record.expires_ms,
            record.slot,
            record.checksum,
            record.length,
            record.value_id.pack(),
            record.data_shards,
            record.size,
            record.stripe_bytes,
            record.epoch,
            tuple(number for holder in record.holders for number in holder),
        )
    )
    return packed


def decode_record(raw: bytes) -> Record:
    """Inverse of `encode_record`. Raises UnknownEntry for a format of a newer version."""
    fields: Fields = _unpack(raw, use_list=False)
    if fields[0] == _INLINE:
        _, version, expires, slot, checksum, value = fields
        return inline_record(version, expires, slot, checksum, value)
    if fields[0] != _CODED:
        raise UnknownEntry(f"a record has format {fields[0]}, this version reads 1 and 2")
    _, version, expires, slot, checksum, length, value_id, k, n, stripe, epoch, holders = fields
    return Record(
        version,
        expires,
        length,
        checksum,
        None,
        ValueId.unpack(value_id),
        k,
        n,
        stripe,
        epoch,
        slot,
        members_of(holders),
    )


def inline_record(
    version: int, expires: int | None, slot: int, checksum: int, value: bytes
) -> Record:
    """A record that holds its value."""
    # tuple.__new__ halves the cost of the hottest constructor of the node.
    return _new(
        Record,
        (version, expires, len(value), checksum, value, None, 0, 0, 0, 0, slot, ()),
    )


def fresh_inline(version: int, expires: int | None, slot: int, value: bytes) -> Record:
    """Like `inline_record`, for a value computed here."""
    return inline_record(version, expires, slot, crc32c(value), value)


def coded_record(version: int, expires: int | None, slot: int, dispersed: Fields) -> Record:
    """A record that names a dispersed value; `dispersed` as in commands._wire_dispersed."""
    value_id, k, n, stripe_bytes, length, checksum, _, epoch, holders = dispersed
    return Record(
        version,
        expires,
        length,
        checksum,
        None,
        ValueId.unpack(value_id),
        k,
        n,
        stripe_bytes,
        epoch,
        slot,
        members_of(holders),
    )


def members_of(numbers: tuple[int, ...]) -> tuple[Member, ...]:
    """(ordinal, incarnation, ordinal, incarnation, ...) as members."""
    return tuple(map(Member, numbers[::2], numbers[1::2]))


def record_from_fields(fields: Fields) -> Record:
    """A record that was packed as a plain array inside a stored result."""
    record = Record(*fields)
    if record.value_id is None:
        return record
    return record._replace(
        value_id=ValueId(*record.value_id),
        holders=tuple(Member(*holder) for holder in record.holders),
    )
