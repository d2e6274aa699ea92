"""Loss is told from silence, listed, and taken off the list when it is over."""

from __future__ import annotations

from typing import Any

import pytest
from unit.data.world import World, sample

from distkv.data.losses import Lost
from distkv.errors import DataLost, NoQuorum
from distkv.machine.interface import Record
from distkv.storage.base import Table


def wipe(world: World, ordinal: int) -> None:
    for tables in (world.nodes[ordinal].engine.tables, world.nodes[ordinal].engine.durable):
        tables[Table.SHARD].clear()
    world.kill(ordinal)
    world.restart(ordinal)


def read(world: World, key: bytes, at: int = 0) -> bytes:
    node = world.nodes[at]

    async def refresh() -> Record | None:
        return node.state.record(key)

    async def flow() -> Any:
        record = node.state.record(key)
        assert record is not None
        return await node.plane.reader.read_current(record, refresh, world.kernel.now + 5.0)

    return bytes(world.run(flow())[1])


def losses(world: World, at: int = 0) -> list[Lost]:
    return world.nodes[at].plane.losses.listing(100)


def test_a_read_of_a_lost_value_says_so_and_lists_it() -> None:
    world = World()
    written = world.write(b"key", sample(9000))
    world.write(b"sound", sample(5000))
    world.step(3.0)
    for ordinal in (1, 2, 3):
        wipe(world, ordinal)
    world.write(b"newer", sample(5000))
    with pytest.raises(DataLost, match="2 shards of this value are left and 3 are needed"):
        read(world, b"key")
    assert read(world, b"newer") == sample(5000)
    lost = losses(world)
    assert [(x.key, x.value_id, x.shards, x.data_shards) for x in lost] == [
        (b"key", written.value_id, 2, 3)
    ]
    assert lost[0].since_ms > 1_700_000_000_000


def test_silence_is_not_loss() -> None:
    world = World()
    world.write(b"key", sample(9000))
    world.step(3.0)
    for ordinal in (1, 2):
        wipe(world, ordinal)
    world.kill(3)
    with pytest.raises(NoQuorum, match=r"\[3\] are cut off"):
        read(world, b"key")
    assert losses(world) == []
    world.restart(3)
    assert read(world, b"key") == sample(9000)


def test_repair_finds_what_is_lost_without_a_reader() -> None:
    world = World()
    for i in range(5):
        world.write(b"k%d" % i, sample(9000, i))
    world.step(3.0)
    for ordinal in (1, 2, 3):
        wipe(world, ordinal)
    world.run(world.nodes[1].plane.repairer.scan_once())
    world.step(0.1)
    assert sorted(x.key for x in losses(world, 1)) == [b"k%d" % i for i in range(5)]


def test_the_list_outlives_a_restart_and_ends_with_an_overwrite_or_a_delete() -> None:
    world = World()
    for i in range(3):
        world.write(b"k%d" % i, sample(9000, i))
    world.step(3.0)
    for ordinal in (2, 3, 4):
        wipe(world, ordinal)
    for i in range(3):
        with pytest.raises(DataLost):
            read(world, b"k%d" % i)
    world.step(1.0)
    since = [x.since_ms for x in losses(world)]
    world.kill(0)
    world.step(1.0)
    world.put(b"k2", None)  # while this node is down
    world.restart(0)
    node = world.nodes[0]
    node.state.put(b"k2", None)
    node.plane.load()
    assert [x.key for x in losses(world)] == [b"k0", b"k1"]
    assert [x.since_ms for x in losses(world)] == since[:2]
    world.write(b"k0", sample(100))
    world.put(b"k1", None)
    assert losses(world) == []
    world.step(1.0)
    assert not [k for k in node.engine.tables[Table.META] if k.startswith(b"lost.")]


def test_a_value_that_a_returning_member_brings_back_is_found_again() -> None:
    world = World()
    world.write(b"key", sample(9000))
    world.step(3.0)
    kept = dict(world.nodes[3].engine.durable[Table.SHARD])
    for ordinal in (1, 2, 3):
        wipe(world, ordinal)
    with pytest.raises(DataLost):
        read(world, b"key")
    world.kill(3)
    for tables in (world.nodes[3].engine.tables, world.nodes[3].engine.durable):
        tables[Table.SHARD].update(kept)
    world.restart(3)
    world.until(lambda: losses(world) == [], 10.0)
    assert read(world, b"key") == sample(9000)


def test_a_large_value_that_streams_is_told_lost_as_well() -> None:
    world = World()
    world.write(b"key", sample(60_000))
    world.step(3.0)
    for ordinal in (1, 2, 3):
        wipe(world, ordinal)
    node = world.nodes[0]
    record = node.state.record(b"key")
    assert record is not None

    async def refresh() -> Record | None:
        return node.state.record(b"key")

    stream = node.plane.reader.stream(record, 5.0, refresh)
    with pytest.raises(DataLost):
        world.wait(stream.next())
    assert [x.key for x in losses(world)] == [b"key"]
