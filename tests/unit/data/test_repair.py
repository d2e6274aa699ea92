"""Every node rebuilds what it lacks of its own shards."""

import pytest
from unit.data.world import World, sample

from distkv.data import rows
from distkv.data.dispersal import Dispersed
from distkv.data.grace import STEP
from distkv.data.repair import RepairLimits
from distkv.ids import Member
from distkv.storage.base import Table


def wipe(world: World, ordinal: int) -> None:
    """All shards of a node are gone, its records are not."""
    for tables in (world.nodes[ordinal].engine.tables, world.nodes[ordinal].engine.durable):
        tables[Table.SHARD].clear()
    world.kill(ordinal)
    world.restart(ordinal)


def name(world: World, ordinal: int, written: Dispersed, slot: int) -> None:
    """This node alone learns that a record names the value."""
    node = world.nodes[ordinal]
    node.plane.apply_events(node.state.put(written.value_id.pack(), world.record_of(written, slot)))


def test_wiped_shards_come_back_at_k_bytes_for_each() -> None:
    world = World()
    values = {b"k%d" % i: sample(4000 + 500 * i, i) for i in range(20)}
    written = [world.write(key, value, at=i % 5) for i, (key, value) in enumerate(values.items())]
    world.step(3.0)
    before = sum(map(len, world.nodes[2].engine.tables[Table.SHARD].values()))
    kept = dict(world.nodes[2].engine.tables[Table.SHARD])
    wipe(world, 2)
    repairer = world.nodes[2].plane.repairer
    world.run(repairer.scan_once())
    world.step(0.1)
    assert all(world.complete(2, value) for value in written)
    rebuilt = {k: v for k, v in world.nodes[2].engine.tables[Table.SHARD].items() if k[0] != 255}
    assert rebuilt == {k: v for k, v in kept.items() if k[0] != 255}
    assert before > 0
    progress = repairer.progress
    assert (progress.rebuilt, repairer.missing, progress.passes) == (20, 0, 1)
    assert progress.fetched_bytes <= 1.01 * 3 * progress.rebuilt_bytes
    for key, value in values.items():
        assert world.read(key, 2) == value


def test_scan_of_a_healthy_node_fetches_nothing() -> None:
    world = World()
    for i in range(10):
        world.write(b"k%d" % i, sample(5000, i))
    world.step(5.0)
    world.traffic.clear()
    for node in world.nodes:
        world.run(node.plane.repairer.scan_once())
        assert node.plane.repairer.progress.scanned == 10
    assert world.traffic == []


def test_a_node_away_during_the_write_catches_up_by_itself() -> None:
    world = World()
    world.kill(4)
    written = world.write(b"key", sample(9000))
    world.restart(4)
    world.nodes[4].plane.repairer.start()
    world.put(b"other", None)
    name(world, 4, written, 1)
    world.until(lambda: world.complete(4, written))
    assert world.nodes[4].plane.repairer.progress.rebuilt == 1


def test_a_read_that_misses_a_shard_goes_first() -> None:
    world = World(repair=RepairLimits(pass_seconds=1e6))
    written = world.write(b"key", sample(9000))
    world.step(3.0)
    repairer = world.nodes[0].plane.repairer
    repairer.start()
    world.step(1.0)
    world.nodes[0].engine.rotten[Table.SHARD, rows.piece_key(written.value_id, 1)] = None
    assert world.read(b"key", 0) == sample(9000)
    world.until(lambda: repairer.progress.rebuilt == 1, 5.0)
    assert repairer.progress.rebuilt_bytes == 1000
    world.step(0.1)
    assert world.complete(0, written)


def test_rate_is_kept() -> None:
    world = World(repair=RepairLimits(bytes_per_second=40_000))
    for i in range(10):
        world.write(b"k%d" % i, sample(12_000, i))
    world.step(3.0)
    wipe(world, 1)
    start = world.kernel.now
    world.run(world.nodes[1].plane.repairer.scan_once(), 100.0)
    assert 2.5 <= world.kernel.now - start <= 5.0


def test_unrepairable_is_counted_and_tried_again() -> None:
    world = World()
    written = world.write(b"key", sample(9000))
    world.step(3.0)
    for ordinal in (1, 2, 3):
        world.kill(ordinal)
    wipe(world, 0)
    repairer = world.nodes[0].plane.repairer
    for ordinal in (1, 2, 3):
        world.cut(0, ordinal)
    world.run(repairer.scan_once())
    assert (repairer.missing, repairer.progress.unrepairable) == (1, 1)
    for ordinal in (1, 2):
        world.restart(ordinal)
    world.run(repairer.scan_once())
    world.step(0.1)
    assert repairer.missing == 0
    assert world.complete(0, written)


def test_resumes_after_a_crash_in_the_middle() -> None:
    world = World(repair=RepairLimits(bytes_per_second=8000))
    written = world.write(b"key", sample(30_000))
    world.step(3.0)
    wipe(world, 3)
    task = world.kernel.spawn(world.nodes[3].plane.repairer.scan_once())
    world.step(1.5)
    assert not task.done
    held = len(world.nodes[3].held())
    assert 2 < held < 11
    task.cancel()
    world.kill(3)
    world.restart(3)
    repairer = world.nodes[3].plane.repairer
    world.run(repairer.scan_once())
    world.step(0.1)
    assert world.complete(3, written)
    assert repairer.progress.rebuilt_bytes < 10_000


def test_what_is_missing_is_counted_before_it_is_mended() -> None:
    """A node that lost its shards must not say that none is missing before it has looked."""
    world = World()
    for i in range(6):
        world.write(b"k%d" % i, sample(5000, i))
    world.step(3.0)
    wipe(world, 2)
    for other in (0, 1, 3, 4):
        world.kill(other)
    repairer = world.nodes[2].plane.repairer
    assert repairer.missing == 6
    repairer.start()
    world.step(0.1)
    assert repairer.missing == 6


def test_what_is_named_before_the_start_is_not_still_under_way() -> None:
    """Entries that a node catches up with are old: nobody is sending it their shards."""
    world = World()
    world.kill(4)
    written = world.write(b"key", sample(9000))
    world.restart(4)
    repairer = world.nodes[4].plane.repairer
    name(world, 4, written, 1)
    for other in range(4):
        world.kill(other)
    repairer.start()
    world.step(0.1)
    assert repairer.missing == 1


def test_what_is_missing_speaks_of_old_values_only() -> None:
    """Full world 46: a node that had just caught up said that it lacked nothing, and others
    believed that of values it had yet to look for."""
    world = World()
    world.kill(4)
    written = world.write(b"key", sample(9000))
    world.restart(4)
    repairer = world.nodes[4].plane.repairer
    repairer.start()
    world.step(0.1)
    assert (repairer.missing, repairer.counted(7)) == (0, 7)
    for other in range(4):
        world.kill(other)
    name(world, 4, written, 6)
    assert (repairer.missing, repairer.counted(7)) == (0, 5)
    world.until(lambda: repairer.counted(7) == 7, 10.0)
    assert repairer.missing == 1


def test_what_could_not_be_rebuilt_at_once_stays_counted_until_the_next_pass() -> None:
    world = World(repair=RepairLimits(pass_seconds=1e6, patience_seconds=5.0))
    world.kill(4)
    written = world.write(b"key", sample(9000))
    world.restart(4)
    repairer = world.nodes[4].plane.repairer
    repairer.start()
    world.step(0.1)
    for other in range(4):
        world.kill(other)
    name(world, 4, written, 6)
    world.until(lambda: repairer.progress.unrepairable > 0, 60.0)
    world.step(1.0)
    assert repairer.missing == 1
    for other in range(4):
        world.restart(other)
    repairer.hurry()
    world.until(lambda: repairer.missing == 0, 60.0)
    assert world.complete(4, written)


def test_values_that_no_queue_has_room_for_are_missing_at_once() -> None:
    world = World(repair=RepairLimits(pass_seconds=1e6, queue=1))
    world.kill(4)
    written = [world.write(key, sample(9000)) for key in (b"a", b"b", b"c")]
    world.restart(4)
    repairer = world.nodes[4].plane.repairer
    repairer.start()
    world.step(0.1)
    assert repairer.missing == 0
    for other in range(4):
        world.kill(other)
    for slot, value in enumerate(written, 6):
        name(world, 4, value, slot)
    assert (repairer.missing, repairer.counted(20)) == (2, 5)
    world.until(lambda: repairer.counted(20) == 20, 10.0)
    assert repairer.missing == 3


def test_what_is_superseded_is_not_missing_any_more() -> None:
    """It was counted until the end of the pass under way, which may take hours."""
    world = World(repair=RepairLimits(pass_seconds=1e6))
    for i in range(6):
        world.write(b"k%d" % i, sample(5000, i))
    world.step(3.0)
    wipe(world, 2)
    for other in (0, 1, 3, 4):
        world.kill(other)
    node = world.nodes[2]
    node.plane.repairer.start()
    world.step(0.1)
    assert node.plane.repairer.missing == 6
    for i in range(4):
        node.plane.apply_events(node.state.put(b"k%d" % i, None))
        assert node.plane.repairer.missing == 5 - i
    assert 0 < (node.plane.repairer.missing_bytes or 0) < 5000
    world.step(60.0)
    assert node.plane.repairer.missing == 2


@pytest.mark.parametrize("collected", [False, True])
def test_a_shard_that_is_here_is_not_counted_for_a_value_that_is_superseded(
    collected: bool,
) -> None:
    """Also in the moment before its grace begins, or if it rots just then."""
    world = World()
    written = [world.write(b"k%d" % i, sample(5000, i)) for i in range(3)]
    world.step(3.0)
    node = world.nodes[2]
    node.plane.apply_events(node.state.put(b"k0", None))
    if collected:
        world.step(1.0)
    assert (node.plane.repairer.missing, node.plane.keeper.standing()) == (0, 2)
    node.plane.keeper.shelf.lose(written[0].value_id, 0)
    assert (node.plane.repairer.missing, node.plane.keeper.standing()) == (0, 2)
    world.step(1.0)
    assert (node.plane.repairer.missing, node.plane.keeper.counters.standing) == (0, 2)
    node.plane.keeper.shelf.lose(written[1].value_id, 0)
    node.plane.keeper.shelf.rotten(rows.header_key(written[2].value_id))
    assert (node.plane.repairer.missing, node.plane.keeper.counters.held) == (2, 0)


def test_more_than_can_be_looked_at_was_just_superseded() -> None:
    world = World()
    for i in range(STEP + 2):
        world.write(b"k%d" % i, sample(100, i))
    world.step(3.0)
    node = world.nodes[2]
    events = [e for i in range(STEP + 1) for e in node.state.put(b"k%d" % i, None)]
    node.plane.apply_events(events)
    assert node.plane.repairer.missing is None
    world.step(1.0)
    assert (node.plane.repairer.missing, node.plane.keeper.counters.standing) == (0, 1)


def test_the_next_pass_begins_at_once_when_a_member_is_back() -> None:
    world = World()
    written = [world.write(b"k%d" % i, sample(5000, i)) for i in range(6)]
    world.step(3.0)
    wipe(world, 2)
    for other in (0, 1, 3, 4):
        world.kill(other)
    repairer = world.nodes[2].plane.repairer
    repairer.limits = RepairLimits(pass_seconds=10_000)
    repairer.start()
    world.step(40.0)
    assert repairer.missing == 6
    for other in (0, 1, 3, 4):
        world.restart(other)
    world.step(40.0)
    assert all(world.complete(2, value) for value in written)
    assert repairer.missing == 0


def test_a_shard_under_a_wrong_number_is_dropped_and_the_right_one_rebuilt() -> None:
    world = World()
    written = world.write(b"key", sample(9000))
    world.step(3.0)
    shelf = world.nodes[2].plane.keeper.shelf
    other = world.nodes[3].engine.tables[Table.SHARD]
    for tables in (world.nodes[2].engine.tables, world.nodes[2].engine.durable):
        tables[Table.SHARD].clear()
        tables[Table.SHARD].update(other)
    world.kill(2)
    world.restart(2)
    assert not world.complete(2, written)
    repairer = world.nodes[2].plane.repairer
    world.run(repairer.scan_once())
    world.step(0.1)
    assert world.complete(2, written)
    assert world.nodes[2].plane.keeper.counters.misplaced == 1
    assert shelf is not world.nodes[2].plane.keeper.shelf
    for ordinal in (0, 1):
        world.kill(ordinal)
    assert world.read(b"key", 2) == sample(9000)


def test_who_is_no_member_yet_does_not_say_that_it_lacks_nothing() -> None:
    """Others would believe that of the seat that they know it has by now."""
    world = World()
    world.write(b"key", sample(9000))
    node = world.nodes[2]
    assert node.plane.repairer.missing == 0
    others = tuple(m for m in world.configuration.members if m != node.member)
    stranger = (*others, Member(2, 77))
    node.state.configuration = world.configuration._replace(members=tuple(sorted(stranger)))
    assert node.plane.repairer.missing is None
