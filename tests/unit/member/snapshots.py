"""A snapshot of a state in small pieces, and an installation of one that was broken off."""

from __future__ import annotations

from distkv.machine.snapshot import PIECE_BYTES, SnapshotSink, SnapshotSource
from distkv.member.messages import SnapshotPiece
from distkv.member.staging import stage_of
from distkv.storage.base import Put, Table
from distkv.storage.memory import MemoryEngine


def pieces(engine: MemoryEngine, size: int = PIECE_BYTES, transfer: int = 1) -> list[SnapshotPiece]:
    """Of this state, as a peer would give them."""
    source = SnapshotSource(engine.view(), size)
    found: list[SnapshotPiece] = []
    while not found or not found[-1].last:
        given = source.piece(len(found))
        assert given is not None
        body, last = given
        found.append(SnapshotPiece(transfer, len(found), source.slot, last, body))
    source.close()
    return found


def break_off(engine: MemoryEngine, giver: MemoryEngine, installed: int, size: int) -> None:
    """Leave `engine` as a crash does after so many pieces of the giver's state were installed."""
    found, sink = pieces(giver, size), SnapshotSink()
    engine.write([Put(Table.META, stage_of(piece.piece), piece.body) for piece in found])
    engine.write(sink.begin(found[0].slot))
    for piece in found[:installed]:
        engine.write(sink.take(piece.body))
