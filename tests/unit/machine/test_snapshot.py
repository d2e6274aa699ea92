"""Snapshots: equal rows on the other side, damage and interruption noticed."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from unit.machine.support import SESSION, STATE_TABLES, World, rows_of

from distkv.machine import commands as c
from distkv.machine.interface import OutcomeKind
from distkv.machine.machine import Machine, is_founded
from distkv.machine.snapshot import (
    InstallInterrupted,
    SnapshotError,
    SnapshotSink,
    SnapshotSource,
)
from distkv.operations import Expiry, Put
from distkv.storage.base import CorruptRow, Table


def filled() -> World:
    world = World()
    for i in range(60):
        world.results(Put(b"k%03d" % i, b"v" * i * 10, Expiry(after_ms=1000 + i)))
        world.write_raw(*c.wire_mutations([Put(b"c%03d" % i, b"")], {0: world.dispersed()}))
    once = c.pack_write(b"\0Kabcdefghij", 1, 0, True, c.wire_mutations([Put(b"o", b"1")]))
    world.commands(c.pack_open(b"gateway-0001"), once)
    return world


def pieces_of(world: World, piece_bytes: int = 2000) -> list[bytes]:
    source = SnapshotSource(world.engine.view(), piece_bytes)
    assert source.slot == world.machine.applied
    bodies: list[bytes] = []
    last = False
    while not last:
        given = source.piece(len(bodies))
        assert given is not None
        assert source.piece(len(bodies)) == given, "the last piece may be asked for again"
        body, last = given
        bodies.append(body)
        assert len(body) < 2 * piece_bytes
    assert source.piece(len(bodies)) is None
    assert source.piece(0) is None
    source.close()
    return bodies


def install(world: World, bodies: list[bytes]) -> None:
    sink = SnapshotSink()
    world.engine.write(sink.begin(0))
    for body in bodies:
        assert not sink.done
        world.engine.write(sink.take(body))
    assert sink.done


def test_an_installed_snapshot_is_the_same_state() -> None:
    world, other = filled(), World()
    other.results(*(Put(b"stale%d" % i, b"x") for i in range(50)))
    other.write_raw(*c.wire_mutations([Put(b"old", b"")], {0: other.dispersed(counter=999)}))
    bodies = pieces_of(world)
    assert len(bodies) > 5
    # What happens after the view was taken is not part of it.
    expected = rows_of(world.engine)
    install(other, bodies)
    assert rows_of(other.engine) == expected
    other.machine.reload()
    assert other.machine.applied == world.machine.applied
    assert other.machine.scan(b"", None, b"", 1000) == world.machine.scan(b"", None, b"", 1000)
    # Both go on alike, retries included.
    command = c.pack_write(SESSION, 3, 0, False, c.wire_mutations([Put(b"never", b"again")]))
    assert other.commands(command) == world.commands(command)
    assert rows_of(other.engine) == rows_of(world.engine)


def test_a_source_that_met_rot_gives_nothing_more() -> None:
    """Full world 6051287: what it had not read was taken for the end, an empty state installed."""
    world = filled()
    view = world.engine.view()
    scan = view.scan
    rotten = [True]

    def rot_once(table: Table, *rest: Any) -> Any:
        if table is Table.RECORD and rotten:
            rotten.clear()
            raise CorruptRow(table, b"k")
        return scan(table, *rest)

    view.scan = rot_once  # type: ignore[method-assign]
    source = SnapshotSource(view, 1 << 20)
    with pytest.raises(CorruptRow):
        source.piece(0)
    assert source.piece(0) is None
    assert source.piece(1) is None


def test_an_empty_snapshot_is_refused() -> None:
    with pytest.raises(SnapshotError, match="empty"):
        SnapshotSink().take(msgpack.packb((1, 0, (), 0)))


def test_the_view_does_not_see_later_changes() -> None:
    world = filled()
    source = SnapshotSource(world.engine.view(), 2000)
    before = rows_of(world.engine)
    bodies = [source.piece(0)]
    for i in range(30):
        world.results(Put(b"k%03d" % i, b"changed"))
    while bodies[-1] is not None and not bodies[-1][1]:
        bodies.append(source.piece(len(bodies)))
    other = World()
    install(other, [body[0] for body in bodies if body is not None])
    assert rows_of(other.engine) == before


def test_an_interrupted_installation_is_noticed_and_starts_again() -> None:
    world, other = filled(), World()
    bodies = pieces_of(world)
    for stop in (0, 1, len(bodies) // 2, len(bodies) - 1):
        sink = SnapshotSink()
        other.engine.write(sink.begin(0))
        for body in bodies[:stop]:
            other.engine.write(sink.take(body))
        with pytest.raises(InstallInterrupted):
            Machine.load(other.engine)
        assert is_founded(other.engine), "an interrupted directory must not be founded again"
    install(other, bodies)
    other.reload()
    assert rows_of(other.engine) == rows_of(world.engine)


def test_damage_loss_and_disorder_are_noticed() -> None:
    bodies = pieces_of(filled())
    sink = SnapshotSink()
    sink.take(bodies[0])
    for wrong in (bodies[0], bodies[2], bodies[-1], b"", b"\xc1", bodies[1][:-1]):
        with pytest.raises(SnapshotError):
            sink.take(wrong)
    for body in bodies[1:-2]:
        sink.take(body)
    # A row that was changed on the way shows in the checksum of the last piece.
    version, number, rows = msgpack.unpackb(bodies[-2], use_list=False)
    changed = (*rows[:-1], rows[-1] + b"!")
    sink.take(msgpack.packb((version, number, changed)))
    with pytest.raises(SnapshotError, match="checksum"):
        sink.take(bodies[-1])
    assert not sink.done


@pytest.mark.parametrize(
    "rows",
    [
        (),
        "text",
        (3, b"key"),
        (int(Table.META), b"identity", b"other"),
        (int(Table.SHARD), b"key", b"value"),
        (3, "key", b"value"),
        (3, b"key", None),
        ((3,), b"key", b"value"),
    ],
)
def test_a_peer_cannot_write_anything_but_rows_of_the_state(rows: object) -> None:
    with pytest.raises(SnapshotError):
        SnapshotSink().take(msgpack.packb((1, 0, rows)))


def test_identity_and_shards_are_left_alone() -> None:
    batch = SnapshotSink().begin(0)
    tables = {operation.table for operation in batch[1:]}
    assert tables == set(STATE_TABLES) - {Table.META}
    world = filled()
    outcome = world.write(Put(b"x", b"1"))
    assert outcome.kind is OutcomeKind.APPLIED
