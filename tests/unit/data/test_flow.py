"""Disperse and gather over a network: the ordinary way, and with members gone."""

import pytest
from unit.data.world import World, sample

from distkv.data.dispersal import Inline
from distkv.data.gather import ShardsGone
from distkv.data.messages import DataMessage, ShardGiven
from distkv.data.ports import Dispersed
from distkv.errors import DataLost, DeadlineExceeded, DiskFull, NoQuorum
from distkv.ids import Member


@pytest.mark.parametrize(
    ("k", "m"), [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (3, 2), (4, 4), (2, 3), (11, 1)]
)
@pytest.mark.parametrize("length", [65, 3000, 3001, 20000])
def test_round_trip(k: int, m: int, length: int) -> None:
    world = World(k, m)
    value = sample(length, k)
    result = world.write(b"key", value, at=(k + m) // 2)
    f = world.configuration.failures
    assert len(result.holders) >= result.code.data_shards + f
    for at in range(k + m):
        assert world.read(b"key", at) == value


def test_all_members_get_their_shard() -> None:
    world = World()
    result = world.write(b"key", sample(20000))
    world.until(lambda: all(world.complete(i, result) for i in range(5)))
    assert result.code.data_shards == 3
    assert world.sent_bytes <= 20000 * 4 / 3 + 40


def test_small_values_are_not_dispersed() -> None:
    world = World()
    dispersal = world.nodes[0].plane.disperser.disperse(b"x" * 64)
    assert world.wait(dispersal.outcome(1.0)) == Inline(b"x" * 64)
    dispersal.close()
    assert world.traffic == []
    assert world.nodes[0].plane.budget.used == 0


@pytest.mark.parametrize("gone", [(1,), (4,), (1, 2), (3, 4)])
def test_writes_and_reads_go_on_with_members_gone(gone: tuple[int, ...]) -> None:
    world = World()
    before = sample(9000, 1)
    world.write(b"before", before)
    world.step(1.0)
    for ordinal in gone:
        world.kill(ordinal)
    value = sample(9000, 2)
    result = world.write(b"key", value)
    assert result.code.data_shards == 3 - len(gone)
    for at in range(5):
        if at not in gone:
            assert world.read(b"key", at) == value
            assert world.read(b"before", at) == before


def test_too_few_members_is_refused_at_once() -> None:
    world = World()
    for ordinal in (1, 2, 3):
        world.kill(ordinal)
    dispersal = world.nodes[0].plane.disperser.disperse(sample(5000))
    with pytest.raises(NoQuorum, match="2 of 5 nodes"):
        world.wait(dispersal.outcome(10.0))
    assert world.kernel.now < 0.1
    assert world.nodes[0].plane.budget.used == 0
    assert world.nodes[0].held() == []


def test_silence_lowers_k_under_a_new_value_id() -> None:
    world = World()
    world.lost = lambda a, b, message: 4 in (a, b)
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    result = world.wait(dispersal.outcome(10.0))
    assert result.code.data_shards == 2
    assert result.value_id.counter == 2
    assert {m.ordinal for m in result.holders} == {0, 1, 2, 3}
    world.put(b"key", result)
    dispersal.close()
    world.step(1.0)
    assert world.read(b"key", 3) == sample(9000)
    assert world.nodes[0].plane.disperser.settled_counter == 3
    for node in world.nodes[:4]:
        assert len({key[-20:] for key in node.held() if key[:1] == b"\xff"}) == 1


def test_two_silent_members_need_whole_copies() -> None:
    world = World()
    world.lost = lambda a, b, message: a in (2, 3) or b in (2, 3)
    result = world.write(b"key", sample(9000))
    assert result.code.data_shards == 1
    assert world.read(b"key", 4) == sample(9000)


def test_three_silent_members_end_the_ladder() -> None:
    world = World()
    world.lost = lambda a, b, message: a in (2, 3, 4) or b in (2, 3, 4)
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    with pytest.raises(NoQuorum, match="silent"):
        world.wait(dispersal.outcome(20.0))
    world.step(1.0)
    assert world.nodes[0].held() == world.nodes[1].held() == []
    assert world.nodes[0].plane.budget.used == 0


def test_deadline_before_anything_was_submitted() -> None:
    world = World()
    world.lost = lambda a, b, message: a == 4 or b == 4
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    with pytest.raises(DeadlineExceeded):
        world.wait(dispersal.outcome(0.3))
    world.step(1.0)
    assert all(node.held() == [] for node in world.nodes[:4])


def test_connection_lost_under_way_steps_down_at_once() -> None:
    world = World()
    world.lost = lambda a, b, message: b == 4
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    outcome = dispersal.outcome(10.0)
    world.step(0.01)
    assert not outcome.done
    world.kill(4)
    result = world.wait(outcome, 0.1)
    assert result.code.data_shards == 2


def test_a_holder_whose_disk_is_lost_under_way_counts_no_more() -> None:
    """Its ordinal greets with another incarnation before the value has enough holders."""
    world = World()
    world.delay = lambda a, b, message: 0.5 if b == 4 else 0.001
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    outcome = dispersal.outcome(10.0)
    world.step(0.1)
    assert not outcome.done
    world.nodes[0].plane.peer_down(1)
    world.nodes[0].plane.peer_up(Member(1, 2001))
    result = world.wait(outcome, 5.0)
    assert Member(1, 1001) not in result.holders
    assert (result.code.data_shards, len(result.holders)) == (2, 4)


def measured() -> World:
    """Every member took some small values, quickly."""
    world = World()
    for i in range(12):
        world.write(b"small%d" % i, sample(2900, i))
    return world


def slow_links(world: World, rates: dict[int, float], shared: bool = False) -> None:
    """Links to these carry so many bytes per second, one message after the other; `shared`:
    each of them has one link, from all others."""
    free: dict[tuple[int, int], float] = {}

    def delay(a: int, b: int, message: DataMessage) -> float:
        if b not in rates:
            return 0.001
        now, size = world.kernel.now, len(getattr(message, "piece", b"")) + 64
        link = (b if shared else a, b)
        free[link] = max(now, free.get(link, 0.0)) + size / rates[b]
        return free[link] - now + 0.001

    world.delay = delay


def test_bytes_in_line_for_a_slow_link_are_not_taken_for_silence() -> None:
    """To go round it added all of them again: over 10 Mbit/s no value above some MB was stored."""
    world = measured()
    slow_links(world, dict.fromkeys(range(5), 100_000.0))
    world.capacity = 50_000
    sent = world.sent_bytes
    written = world.write(b"key", sample(3_000_000), seconds=60.0)
    assert written.code.data_shards == 3
    assert [n.plane.disperser.counters.hedged for n in world.nodes] == [0] * 5
    assert world.sent_bytes - sent == 4 * 1_000_000


def test_the_last_of_many_slow_links_are_waited_for() -> None:
    """Who is slower than the others by a third, with all bytes in line from the start, so that
    nobody looked for long: over 10 Mbit/s two of four writes were sent once more."""
    world = measured()
    slow_links(world, {1: 100_000.0, 2: 100_000.0, 3: 75_000.0, 4: 75_000.0})
    world.capacity = 2_000_000
    written = world.write(b"key", sample(3_000_000), seconds=60.0)
    assert written.code.data_shards == 3
    assert world.nodes[0].plane.disperser.counters.hedged == 0


@pytest.mark.parametrize("to", [(4,), (3, 4)])
def test_as_many_slow_links_as_may_fail_are_gone_round(to: tuple[int, ...]) -> None:
    world = measured()
    slow_links(world, dict.fromkeys(to, 50_000.0))
    began = world.kernel.now
    written = world.write(b"key", sample(3_000_000), seconds=60.0)
    assert written.code.data_shards == 3 - len(to)
    assert world.kernel.now - began < 1.0, "20 seconds over the slow link"


def test_a_link_that_carries_nothing_any_more_is_gone_round() -> None:
    world = measured()
    world.delay = lambda a, b, message: 1e9 if 4 in (a, b) else 0.001
    began = world.kernel.now
    written = world.write(b"key", sample(30_000))
    assert written.code.data_shards == 2
    assert world.kernel.now - began < 0.5


def test_reads_that_wait_for_one_link_ask_nobody_else() -> None:
    """What is asked twice makes all of them wait longer: four reads of 10 MB at once over
    10 Mbit/s moved up to half as much again."""
    world = World()
    value = sample(2_000_000)
    written = world.write(b"key", value)
    slow_links(world, {0: 500_000.0}, shared=True)
    for i in range(12):
        world.write(b"%d" % i, sample(200_000, i))
        world.read(b"%d" % i)
    reader, record = world.nodes[0].plane.reader, world.nodes[0].state.record(b"key")
    assert record is not None
    world.traffic.clear()
    reads = [world.kernel.spawn(reader.read(record, world.kernel.now + 60.0)) for _ in range(4)]
    for read in reads:
        assert world.wait(read) == value
    pieces = [m.piece for _, b, m in world.traffic if b == 0 and isinstance(m, ShardGiven)]
    needed = written.code.data_shards
    asked_once = 4 * len(value) * (needed - 1) / needed  # one of the shards lies here
    assert sum(map(len, pieces)) < 1.02 * asked_once
    assert reader.under_way == 0


def test_the_older_attempt_may_still_win() -> None:
    """An acknowledgement that was only late completes the first attempt."""
    world = World()
    world.delay = lambda a, b, message: (
        1.005 if b == 4 else 0.5 if world.kernel.now > 0.9 else 0.001
    )
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    result = world.wait(dispersal.outcome(10.0))
    assert world.nodes[0].plane.disperser.counters.hedged == 1
    assert result.value_id.counter == 1
    assert result.code.data_shards == 3


def test_upload_in_pieces_with_back_pressure() -> None:
    world = World()
    world.capacity = 6000
    value = sample(300_000)
    upload = world.nodes[1].plane.disperser.upload(None)
    import distkv.data.dispersal as dispersal_module

    position = 0
    paused = False

    def resume() -> None:
        nonlocal paused
        paused = False

    upload.on_resume = resume
    while position < len(value):
        if not paused:
            paused = not upload.write(value[position : position + 7000])
            position += 7000
        world.step(0.0005)
    upload.finish()
    result = world.wait(upload.outcome(world.kernel.now + 10))
    assert dispersal_module.WINDOW_BYTES > 0
    world.put(b"key", result)
    upload.close()
    assert world.read(b"key", 4) == value


def test_upload_pauses_and_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distkv.data.dispersal.WINDOW_BYTES", 20_000)
    world = World()
    world.capacity = 2000
    world.delay = lambda a, b, message: 0.01
    value = sample(200_000)
    upload = world.nodes[0].plane.disperser.upload(len(value))
    resumed = []
    upload.on_resume = lambda: resumed.append(world.kernel.now)
    pauses, position = 0, 0
    while position < len(value):
        more = upload.write(value[position : position + 5000])
        position += 5000
        if not more:
            pauses += 1
            count = len(resumed)
            world.until(lambda count=count: len(resumed) > count, 5.0)
    upload.finish()
    result = world.wait(upload.outcome(world.kernel.now + 10))
    world.put(b"key", result)
    assert pauses == len(resumed) > 5
    assert world.read(b"key", 2) == value


def test_abort_leaves_nothing() -> None:
    world = World()
    upload = world.nodes[0].plane.disperser.upload(None)
    upload.write(sample(10_000))
    world.step(0.1)
    assert all(node.held() for node in world.nodes)
    upload.abort()
    world.step(0.1)
    assert all(node.held() == [] for node in world.nodes)
    assert world.nodes[0].plane.budget.used == 0


def test_refused_at_apply_disperses_again() -> None:
    world = World()
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    first = world.wait(dispersal.outcome(10.0))
    leader = world.leader._replace(round=5)
    world.barrier(leader)
    second = world.wait(dispersal.again(10.0))
    assert second.value_id != first.value_id
    assert second.stamp == leader
    assert first.stamp < leader
    world.put(b"key", second)
    dispersal.close()
    world.step(1.0)
    assert world.read(b"key", 2) == sample(9000)
    for node in world.nodes:
        assert len([key for key in node.held() if key[:1] == b"\xff"]) == 1


def test_stale_refusal_is_followed_by_a_fresh_stamp() -> None:
    """Holders that applied a later barrier refuse; once we know it too, we begin again."""
    world = World()
    new = world.leader._replace(round=7)
    old = world.leader
    world.barrier(new, only=[1, 2, 3, 4])
    world.leader = old
    dispersal = world.nodes[0].plane.disperser.disperse(sample(9000))
    outcome = dispersal.outcome(10.0)
    world.step(0.5)
    assert not outcome.done
    world.leader = new
    result = world.wait(outcome)
    assert result.stamp == new


def test_reader_goes_round_a_silent_member() -> None:
    world = World()
    world.write(b"key", sample(9000))
    world.step(1.0)
    world.lost = lambda a, b, message: 1 in (a, b)
    assert world.read(b"key", 0) == sample(9000)
    assert world.kernel.now < 5.0


def test_reader_repairs_what_it_missed_and_corruption_never_shows() -> None:
    world = World()
    value = sample(9000)
    result = world.write(b"key", value)
    world.step(1.0)
    for ordinal in (0, 1):
        engine = world.nodes[ordinal].engine
        key = result.value_id.pack() + bytes(4)
        row = bytearray(engine.tables[next(t for t in engine.tables if t.name == "SHARD")][key])
        row[-1] ^= 1
        engine.tables[next(t for t in engine.tables if t.name == "SHARD")][key] = bytes(row)
    for at in (2, 0):
        assert world.read(b"key", at) == value
    counters = [node.plane.keeper.counters.corrupt for node in world.nodes]
    assert counters[0] == 1


def test_too_few_shards_is_data_lost_or_no_quorum() -> None:
    world = World()
    result = world.write(b"key", sample(9000))
    world.step(1.0)
    for ordinal in (1, 2, 3):
        engine = world.nodes[ordinal].engine
        engine.tables = {table: {} for table in engine.tables}
    record = world.nodes[0].state.record(b"key")
    assert record is not None

    async def same() -> object:
        return record

    reader = world.nodes[0].plane.reader
    with pytest.raises(ShardsGone):
        world.run(reader.read(record, world.kernel.now + 5))
    with pytest.raises(DataLost):
        world.run(reader.read_current(record, same, world.kernel.now + 5))  # type: ignore[arg-type]
    world.kill(4)
    with pytest.raises(NoQuorum):
        world.run(reader.read_current(record, same, world.kernel.now + 5))  # type: ignore[arg-type]
    assert world.nodes[0].plane.budget.used == 0
    assert isinstance(result, Dispersed)


def test_download_in_stripes() -> None:
    world = World()
    value = sample(100_000)
    world.write(b"key", value)
    record = world.nodes[3].state.record(b"key")
    assert record is not None
    download = world.nodes[3].plane.reader.stream(record, 10.0)
    parts = []
    while part := world.wait(download.next()):
        parts.append(part)
    assert b"".join(parts) == value
    assert max(map(len, parts)) == 3000
    assert world.wait(download.next()) == b""


def test_record_superseded_while_reading() -> None:
    world = World()
    world.write(b"key", sample(9000, 1))
    record = world.nodes[0].state.record(b"key")
    assert record is not None
    world.write(b"key", sample(9000, 2))
    world.step(60.0)

    async def refresh() -> object:
        return world.nodes[0].state.record(b"key")

    reader = world.nodes[0].plane.reader
    newer, value = world.run(
        reader.read_current(record, refresh, world.kernel.now + 5)  # type: ignore[arg-type]
    )
    assert value == sample(9000, 2)
    assert newer == world.nodes[0].state.record(b"key")


def test_a_full_queue_is_tried_again_though_nobody_tells() -> None:
    world = World()
    world.capacity = 1500
    for node in world.nodes:
        node.plane.drained = lambda ordinal: None  # type: ignore[method-assign]
    values = {b"k%d" % i: sample(9000, i) for i in range(10)}
    disperser = world.nodes[0].plane.disperser
    started = {key: disperser.disperse(value) for key, value in values.items()}
    for key, dispersal in started.items():
        result = world.wait(dispersal.outcome(world.kernel.now + 5))
        assert result.value_id.counter <= 10, "nobody was late"
        world.put(key, result)
        dispersal.close()
    for key, value in values.items():
        assert world.read(key, 3) == value


def test_a_member_whose_disk_is_full_is_spared_and_not_waited_for() -> None:
    world = World()
    world.nodes[0].plane.peer_full(3, True)
    value = sample(9000)
    result = world.write(b"key", value)
    assert result.code.data_shards == 2
    assert 3 not in [member.ordinal for member in result.holders]
    assert world.read(b"key", 1) == value
    world.nodes[0].plane.peer_full(3, False)
    assert world.write(b"key", value).code.data_shards == 3


def test_too_many_full_disks_are_told_as_such() -> None:
    world = World()
    for ordinal in (1, 2, 3):
        world.nodes[0].plane.peer_full(ordinal, True)
    with pytest.raises(DiskFull, match="2 of 5 nodes take shards"):
        world.write(b"key", sample(9000))
