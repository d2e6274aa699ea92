"""Bytes of a log entry: kind (1 byte), stamp (8 bytes, big endian, ms), body. Disk format."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import msgpack

from distkv.ids import Ballot

NOOP = 0
BATCH = 1
BARRIER = 2
CONFIGURATION = 3

_HEADER = struct.Struct(">BQ")
HEADER_BYTES = _HEADER.size


def noop(stamp: int) -> bytes:
    """Fills a hole that a new leader found."""
    return _HEADER.pack(NOOP, stamp)


def batch(stamp: int, commands: Sequence[bytes]) -> bytes:
    """Commands to apply in this order."""
    packed: bytes = msgpack.packb(commands)
    return _HEADER.pack(BATCH, stamp) + packed


def barrier(stamp: int, ballot: Ballot) -> bytes:
    """First own entry of a leader."""
    packed: bytes = msgpack.packb(ballot)
    return _HEADER.pack(BARRIER, stamp) + packed


def configuration(stamp: int, body: bytes) -> bytes:
    """A change of members or layout; always alone in its slot and in flight alone."""
    return _HEADER.pack(CONFIGURATION, stamp) + body


def stamp_of(entry: bytes) -> int:
    """The leader's clock when the entry was made, ms."""
    stamp: int = _HEADER.unpack_from(entry)[1]
    return stamp


def is_configuration(entry: bytes) -> bool:
    """Whether the slot of this entry changes the quorums of the slots above it."""
    return entry[0] == CONFIGURATION
