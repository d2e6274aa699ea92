"""Values of an older layout: read from, and repaired at, the members of *their* layout."""

from __future__ import annotations

from unit.data.world import World, sample

from distkv.core.configuration import Configuration
from distkv.data.messages import ShardWanted
from distkv.ids import Member
from distkv.machine.interface import ConfigurationChanged
from distkv.storage.base import Table


def relayout(world: World, k: int, m: int) -> None:
    """A new epoch; members keep their seats, further nodes are not simulated."""
    old = world.configuration
    members = (*old.members, *(Member(i, 1000 + i) for i in range(old.size, k + m)))[: k + m]
    world.configuration = Configuration(old.epoch + 1, k, m, members)
    for node in world.nodes:
        node.state.configuration = world.configuration
        event = ConfigurationChanged(world.slot, world.configuration, ())
        node.plane.apply_events([event])


def test_a_smaller_layout_reads_old_values_from_the_nodes_it_left_out() -> None:
    world = World(4, 2)
    value = sample(9000)
    world.write(b"key", value)
    world.step(1.0)
    relayout(world, 2, 1)
    for ordinal in (0, 2, 5):
        assert world.read(b"key", ordinal) == value
    world.kill(1)
    world.kill(2)
    assert world.read(b"key", 0) == value  # 0, 3, 4 and 5 hold four shards of six


def test_a_node_that_was_left_out_still_mends_its_old_shards() -> None:
    world = World(4, 2)
    written = world.write(b"key", sample(9000))
    world.step(1.0)
    relayout(world, 2, 1)
    node = world.nodes[5]
    for tables in (node.engine.tables, node.engine.durable):
        tables[Table.SHARD].clear()
    world.kill(5)
    world.restart(5)
    world.run(node.plane.repairer.scan_once())
    assert world.complete(5, written)


def test_members_of_a_larger_layout_are_not_asked_for_shards_of_an_older_one() -> None:
    world = World(2, 1)
    value = sample(9000)
    written = world.write(b"key", value)
    world.step(1.0)
    relayout(world, 4, 2)
    for node in world.nodes:
        for ordinal in range(3, 6):
            node.plane.peer_up(Member(ordinal, 1000 + ordinal))
    world.traffic.clear()
    world.kill(1)
    assert world.read(b"key", 0) == value
    asked = {to for _, to, message in world.traffic if isinstance(message, ShardWanted)}
    assert asked == {2}
    record = world.nodes[0].state.record(b"key")
    assert record is not None
    new = world.nodes[0].plane.repairer
    new._own = Member(4, 1004)
    assert new.lacking(written.value_id, record) == []
