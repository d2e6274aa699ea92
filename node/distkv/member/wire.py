"""Codes under which the member's own messages travel."""

from __future__ import annotations

from distkv.member.messages import (
    Forward,
    Founding,
    Greeting,
    NotLeader,
    RowsGiven,
    RowsWanted,
    SnapshotPiece,
    SnapshotWanted,
    WentBack,
)
from distkv.storage.base import Table
from distkv.wire import fields as f
from distkv.wire.codec import KEY_BYTES_MAX, register

_COUNT = f.optional_slot
"""A number, or -1 if it is not known."""
_PAIR = f.tuple_of(lambda *items: items, f.integer(0, 255), f.number)

_TABLE = f.one_of(Table)
_ROW_KEY = f.blob_to(KEY_BYTES_MAX + 64)
"""A user's key, perhaps behind a time."""


def register_messages() -> None:
    """Call once, at import of `distkv.member.member`."""
    register(
        64,
        Greeting,
        *(f.boolean, f.boolean, f.boolean, f.number),
        *(f.number, _COUNT, f.number),
        *(f.number, f.boolean, f.text_to(64)),
        *(_COUNT, f.number, _COUNT, f.number, _COUNT),
        *(f.number, f.number),
        *(f.number, f.number, f.number),
    )
    register(
        65,
        Founding,
        f.blob_to(64),
        f.text_to(256),
        f.integer(1, 255),
        f.integer(0, 255),
        f.array_of(_PAIR),
        f.number,
        f.number,
    )
    register(66, Forward, f.blobs)
    register(67, NotLeader)
    register(68, SnapshotWanted, f.number, f.number)
    register(69, SnapshotPiece, f.number, f.number, f.number, f.boolean, f.blob)
    register(70, WentBack, f.number, f.number)
    register(71, RowsWanted, f.array_of(f.tuple_of(lambda *row: row, _TABLE, _ROW_KEY)))
    given = f.tuple_of(lambda *row: row, _TABLE, _ROW_KEY, f.blob)
    register(72, RowsGiven, f.number, f.array_of(given))
