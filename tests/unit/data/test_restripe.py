"""Values that are coded worse than the layout wants are coded anew, once, by one member."""

from __future__ import annotations

from unit.data.world import World, sample

from distkv.core.configuration import Configuration
from distkv.data.messages import ShardPiece
from distkv.data.ports import Dispersed
from distkv.data.repair import RepairLimits
from distkv.ids import Member
from distkv.machine.interface import ConfigurationChanged, Event


def write_while_down(
    world: World, count: int, down: tuple[int, ...] = (4,), length: int = 9000
) -> dict[bytes, Dispersed]:
    """Values written with members down; then these are back and know the records."""
    for ordinal in down:
        world.kill(ordinal)
    up = [n.member.ordinal for n in world.nodes if n.alive]
    written = {}
    for i in range(count):
        key = b"k%d" % i
        written[key] = world.write(key, sample(length, i), at=up[i % len(up)])
    for ordinal in down:
        world.restart(ordinal)
        for key, value in written.items():
            record = world.nodes[up[0]].state.record(key)
            assert record is not None
            assert record.value_id == value.value_id
            world.nodes[ordinal].plane.apply_events(world.nodes[ordinal].state.put(key, record))
    return written


def start(world: World) -> None:
    for node in world.nodes:
        if node.alive:
            node.plane.start()


def records(world: World, at: int = 0) -> list[tuple[bytes, int, int]]:
    state = world.nodes[at].state
    return sorted((key, r.data_shards, r.epoch) for key, r in state.records.items())


def test_values_written_while_a_member_was_down_are_brought_back_to_k() -> None:
    world = World()
    written = write_while_down(world, 12)
    assert {v.code.data_shards for v in written.values()} == {2}
    versions = {k: r.version for k, r in world.nodes[0].state.records.items()}
    start(world)
    world.until(lambda: all(k == 3 for _, k, _ in records(world)))
    census = [n.plane.restriper.census for n in world.nodes]
    world.until(lambda: all(c.known and c.records == 0 and c.bytes == 0 for c in census))
    assert {k: r.version for k, r in world.nodes[0].state.records.items()} == versions
    done = [n.plane.restriper.progress.done for n in world.nodes]
    assert sum(done) == 12
    assert sum(count > 0 for count in done) > 1
    for i in range(12):
        assert world.read(b"k%d" % i, 4) == sample(9000, i)
    world.step(40.0)
    for node in world.nodes:
        held = [key for key in node.held() if key[:1] == b"\xff"]
        assert len(held) == 12, "the old shards go after their grace"
        assert node.plane.disperser.undecided == 0
        assert node.plane.budget.used == 0


def test_a_value_may_take_as_long_as_the_rate_makes_it() -> None:
    """It began anew after thirty seconds, again and again: a large value, or one at the low
    rate that clients leave, was never done, and took the rate from all others."""
    world = World(repair=RepairLimits(bytes_per_second=2000))
    write_while_down(world, 2, length=60_000)
    start(world)
    world.until(lambda: all(k == 3 for _, k, _ in records(world)), 400.0)
    assert sum(n.plane.restriper.progress.failed for n in world.nodes) == 0
    assert world.read(b"k1", 4) == sample(60_000, 1)


def test_what_is_overwritten_meanwhile_is_not_moved_to_its_end() -> None:
    world = World(repair=RepairLimits(bytes_per_second=2000))
    write_while_down(world, 1, length=60_000)
    start(world)
    world.until(lambda: any(len(n.held()) > 22 for n in world.nodes), 60.0)
    world.write(b"k0", sample(100, 1))
    sent = world.sent_bytes
    world.step(60.0)
    assert world.sent_bytes - sent < 20_000
    progress = [n.plane.restriper.progress for n in world.nodes]
    assert [sum(p.lost_races for p in progress), sum(p.done for p in progress)] == [1, 0]
    assert all(n.plane.budget.used == 0 for n in world.nodes)
    world.step(60.0)
    assert all(len(node.held()) == 2 for node in world.nodes), "a header and one piece"


def test_nothing_is_done_while_it_would_not_help() -> None:
    world = World()
    write_while_down(world, 5)
    world.kill(3)
    start(world)
    world.traffic.clear()
    world.step(60.0)
    assert not [m for _, _, m in world.traffic if isinstance(m, ShardPiece)]
    assert world.nodes[0].plane.restriper.census.records == 5
    world.restart(3)
    world.nodes[3].plane.start()
    world.until(lambda: all(k == 3 for _, k, _ in records(world)))


def test_it_goes_up_by_what_is_possible() -> None:
    world = World()
    written = write_while_down(world, 3, down=(3, 4))
    assert {v.code.data_shards for v in written.values()} == {1}
    world.kill(4)
    start(world)
    world.until(lambda: all(k == 2 for _, k, _ in records(world)))
    world.restart(4)
    for key, record in world.nodes[0].state.records.items():
        world.nodes[4].plane.apply_events(world.nodes[4].state.put(key, record))
    world.nodes[4].plane.start()
    world.until(lambda: all(k == 3 for _, k, _ in records(world)))


def test_a_straggler_is_waited_for_instead_of_coding_worse() -> None:
    world = World()
    write_while_down(world, 4)
    start(world)
    slow = world.nodes[2]
    slow.flush_seconds = lambda: 3.0
    world.until(lambda: all(k == 3 for _, k, _ in records(world)), 120.0)
    by_code = [n.plane.disperser.counters.by_data_shards for n in world.nodes]
    world.step(5.0)
    assert all(set(codes) <= {2, 3} for codes in by_code)
    assert sum(n.plane.restriper.progress.done for n in world.nodes) == 4


def test_large_values_flow_through_in_little_memory() -> None:
    world = World()
    length = 3_000_000
    write_while_down(world, 1, length=length)
    for node in world.nodes:
        node.plane.budget.peak = node.plane.budget.used
    world.delay = lambda a, b, message: 0.02 if b == 1 else 0.001
    start(world)
    world.until(lambda: records(world)[0][1] == 3, 300.0)
    assert max(n.plane.budget.peak for n in world.nodes) < length / 10
    assert world.read(b"k0", 1, seconds=60.0) == sample(length, 0)


def test_another_write_wins() -> None:
    world = World()
    write_while_down(world, 3)
    world.refuse_restripes = True
    start(world)
    world.step(10.0)
    progress = [n.plane.restriper.progress for n in world.nodes]
    assert sum(p.lost_races for p in progress) >= 3
    assert sum(p.done for p in progress) == 0
    assert all(k == 2 for _, k, _ in records(world))
    for i in range(3):
        assert world.read(b"k%d" % i) == sample(9000, i)


def test_what_a_dead_member_would_have_done_falls_to_others() -> None:
    world = World(k=2, m=3)
    write_while_down(world, 10, down=(4,))
    assert {k for _, k, _ in records(world)} <= {2, 1}
    world.kill(0)
    start(world)
    world.step(30.0)
    world.restart(0)
    world.nodes[0].plane.start()
    world.until(lambda: all(k == 2 for _, k, _ in records(world, 1)))


def change_layout(world: World, k: int, m: int) -> None:
    old = world.configuration
    members = tuple(
        old.members[i] if i < len(old.members) else Member(i, 1000 + i) for i in range(k + m)
    )
    world.configuration = Configuration(old.epoch + 1, k, m, members)

    def change(state: object) -> list[Event]:
        state.configuration = world.configuration  # type: ignore[attr-defined]
        return [ConfigurationChanged(world.slot, world.configuration, ())]

    world.slot += 1
    world.apply(change)


def test_a_change_of_layout_moves_every_record_to_the_new_epoch() -> None:
    world = World()
    values = {b"k%d" % i: sample(4000 + i, i) for i in range(15)}
    for key, value in values.items():
        world.write(key, value)
    start(world)
    world.step(5.0)
    change_layout(world, 2, 1)
    census = world.nodes[0].plane.restriper.census
    world.until(lambda: census.known and census.records > 0)
    assert census.records <= 15
    world.until(lambda: all((k, e) == (2, 2) for _, k, e in records(world)))
    world.until(lambda: census.known and census.records == 0)
    for key, value in values.items():
        assert world.read(key, 2) == value
    world.step(60.0)
    for ordinal in (3, 4):
        assert world.nodes[ordinal].held() == [], "members of the old layout keep nothing"


def test_shards_are_read_from_members_that_only_the_old_layout_has() -> None:
    world = World(k=4, m=2)
    values = {b"k%d" % i: sample(7000 + i, i) for i in range(5)}
    for key, value in values.items():
        world.write(key, value)
    change_layout(world, 2, 1)
    for key, value in values.items():
        assert world.read(key, 0) == value


def test_a_crash_in_the_middle_leaves_nothing_behind() -> None:
    world = World()
    write_while_down(world, 6, length=200_000)
    start(world)
    world.until(lambda: any(n.plane.disperser.undecided for n in world.nodes), 30.0)
    world.step(0.002)
    busy = next(n for n in world.nodes if n.plane.disperser.undecided).member.ordinal
    world.kill(busy)
    world.step(2.0)
    world.restart(busy)
    node = world.nodes[busy]
    world.boot(node.member.incarnation, node.boot)
    other = world.nodes[(busy + 1) % 5]
    for key, record in other.state.records.items():
        node.plane.apply_events(node.state.put(key, record))
    node.plane.start()
    world.until(lambda: all(k == 3 for _, k, _ in records(world, (busy + 1) % 5)), 200.0)
    world.step(60.0)
    for i in range(6):
        assert world.read(b"k%d" % i, busy) == sample(200_000, i)
    for n in world.nodes:
        world.settle(n.member.incarnation, n.boot, n.plane.disperser.settled_counter)
    world.step(1.0)
    named = {r.value_id.pack() for r in other.state.records.values() if r.value_id}
    for n in world.nodes:
        held = {key[1:] for key in n.held() if key[:1] == b"\xff"}
        assert held == named
