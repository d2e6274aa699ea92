"""Every row is read again within the period; what has rotted is found and repaired."""

from __future__ import annotations

from unit.data.world import World, sample

from distkv.data import rows
from distkv.data.repair import RepairLimits
from distkv.data.scrub import ScrubLimits
from distkv.storage.base import Put, Table


def world_with(period: float, count: int = 12) -> World:
    world = World(
        scrub=ScrubLimits(period=period, step_bytes=2000, step_rows=8, save_seconds=1.0),
        repair=RepairLimits(pass_seconds=1e6),
    )
    for i in range(count):
        world.write(b"k%d" % i, sample(9000, i))
    world.step(5.0)
    return world


def test_every_row_is_read_once_in_each_round_spread_over_the_period() -> None:
    world = world_with(100.0)
    node = world.nodes[1]
    read: list[bytes] = []
    reread = node.engine.reread

    def watched(table: Table, key: bytes) -> bytes | None:
        if table is Table.SHARD:
            read.append(key)
        return reread(table, key)

    node.engine.reread = watched  # type: ignore[method-assign]
    node.plane.start()
    world.step(50.0)
    held = len(node.held())
    assert held * 0.3 <= len(read) <= held * 0.7
    assert 0.3 <= node.plane.scrubber.progress.share <= 0.7
    world.until(lambda: node.plane.scrubber.progress.rounds == 1, 60.0, grain=0.5)
    assert sorted(read) == sorted(node.held())


def test_a_round_over_a_small_store_fills_its_period_too() -> None:
    world = World(scrub=ScrubLimits(period=20.0), repair=RepairLimits(pass_seconds=1e6))
    for i in range(8):
        world.write(b"k%d" % i, sample(900, i))
    world.step(5.0)
    progress = world.nodes[1].plane.scrubber.progress
    world.nodes[1].plane.start()
    world.step(60.0)
    assert 2 <= progress.rounds <= 4


def test_a_rotten_piece_is_found_counted_and_rebuilt() -> None:
    world = world_with(20.0)
    for node in world.nodes:
        node.plane.start()
    node = world.nodes[2]
    piece = next(key for key in node.held() if key[:1] != rows.HEADERS)
    before = node.engine.tables[Table.SHARD][piece]
    node.engine.rotten[Table.SHARD, piece] = None
    world.until(lambda: (Table.SHARD, piece) not in node.engine.rotten, 60.0, grain=0.1)
    world.until(lambda: node.engine.tables[Table.SHARD].get(piece) == before, 10.0)
    assert node.plane.scrubber.progress.rotten == {"SHARD": 1}
    assert node.plane.keeper.counters.corrupt == 1
    assert node.plane.repairer.progress.rebuilt == 1


def test_bytes_that_changed_under_a_right_row_are_found_by_the_checksum_inside() -> None:
    world = world_with(20.0)
    for node in world.nodes:
        node.plane.start()
    node = world.nodes[3]
    piece = next(key for key in node.held() if key[:1] != rows.HEADERS)
    before = node.engine.tables[Table.SHARD][piece]
    flipped = before[:-1] + bytes([before[-1] ^ 1])
    node.engine.settle(Put(Table.SHARD, piece, flipped))
    world.until(lambda: node.plane.keeper.counters.corrupt == 1, 60.0, grain=0.1)
    world.until(lambda: node.engine.tables[Table.SHARD].get(piece) == before, 10.0)


def test_a_rotten_header_costs_the_shard_and_it_comes_back() -> None:
    world = world_with(20.0)
    for node in world.nodes:
        node.plane.start()
    node = world.nodes[0]
    header = next(key for key in node.held() if key[:1] == rows.HEADERS)
    node.engine.rotten[Table.SHARD, header] = None
    held = sorted(node.held())
    world.until(lambda: node.plane.keeper.counters.corrupt >= 1, 60.0, grain=0.1)
    world.until(lambda: sorted(node.held()) == held and not node.engine.rotten, 10.0)
    assert node.plane.repairer.progress.rebuilt == 1


def test_rows_of_other_tables_are_handed_on() -> None:
    world = world_with(20.0)
    node = world.nodes[0]
    name = node.engine.keys(Table.NAME)[0]
    node.engine.rotten[Table.NAME, name] = None
    node.plane.start()
    world.until(lambda: bool(node.rotten_rows), 60.0, grain=0.1)
    assert node.rotten_rows[0] == (Table.NAME, name)
    assert node.plane.scrubber.progress.rotten["NAME"] >= 1


def test_it_goes_on_after_a_restart_where_it_was() -> None:
    world = world_with(100.0)
    node = world.nodes[1]
    node.plane.start()
    world.step(50.0)
    done = node.plane.scrubber.progress.done_bytes
    node.engine.flush()
    world.kill(1)
    world.step(20.0)
    world.restart(1)
    node.plane.start()
    scrubber = node.plane.scrubber
    assert done * 0.9 <= scrubber.progress.done_bytes <= done + 5000
    began = world.kernel.now
    world.until(lambda: scrubber.progress.rounds == 1, 60.0, grain=0.5)
    assert world.kernel.now - began <= 40.0, "what the pause took is caught up with"


def test_many_bytes_do_not_go_faster_than_the_pace_allows() -> None:
    world = World(
        scrub=ScrubLimits(period=1.0, step_bytes=4000),
        repair=RepairLimits(pass_seconds=1e6, bytes_per_second=20_000),
    )
    for i in range(20):
        world.write(b"k%d" % i, sample(30_000, i))
    node = world.nodes[0]
    node.plane.start()
    world.step(5.0)
    assert node.plane.scrubber.progress.rounds == 0
    assert node.plane.scrubber.progress.done_bytes <= 7 * 20_000
