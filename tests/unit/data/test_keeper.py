"""Section 3 of the protocol: which shards are taken, kept and dropped."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.data.world import World, sample

from distkv.coding.checksum import checksum
from distkv.core.configuration import Configuration
from distkv.data import rows
from distkv.data.dispersal import Dispersed
from distkv.data.messages import (
    Code,
    Found,
    Refusal,
    ShardDropped,
    ShardPiece,
    ShardRefused,
    ShardStored,
)
from distkv.data.shards import KeeperLimits
from distkv.ids import Ballot, Member, ValueId
from distkv.machine.interface import ConfigurationChanged
from distkv.storage.base import Table

COORDINATOR = Member(1, 1001)
CODE = Code(3, 5, 3000)
NEXT = Ballot(2, 0, 1000)


def piece(
    counter: int = 1, stripe: int = 0, last: int = 1, slot: int = 0, salt: int = 0, boot: int = 1
) -> ShardPiece:
    body = sample(1000, salt + stripe)
    return ShardPiece(
        ValueId(COORDINATOR.incarnation, boot, counter),
        0,
        stripe,
        last,
        CODE,
        1,
        Ballot(1, 0, 1000),
        slot,
        b"key" if slot else b"",
        3000,
        checksum(body),
        body,
    )


def answers(world: World) -> list[object]:
    """What node 0 sent back to the coordinator so far."""
    world.step(0.1)
    return [m for a, b, m in world.traffic if (a, b) == (0, 1)]


def named(world: World, of: ShardPiece) -> Dispersed:
    holders = world.configuration.members
    return Dispersed(of.value_id, CODE, 3000, 0, of.stamp, 1, holders)


def headers(world: World, ordinal: int = 0) -> list[ValueId]:
    return [rows.value_of(key) for key in world.nodes[ordinal].held() if key[:1] == b"\xff"]


def world_with_shard(limits: KeeperLimits | None = None) -> tuple[World, ShardPiece]:
    world = World(keeper=limits)
    sent = piece()
    world.nodes[0].deliver(COORDINATOR, sent)
    assert answers(world) == [ShardStored(sent.value_id, 0)]
    return world, sent


def test_acknowledged_only_once_durable() -> None:
    world = World()
    world.nodes[0].flush_seconds = lambda: 0.5
    world.nodes[0].deliver(COORDINATOR, piece())
    world.step(0.4)
    assert world.traffic == []
    world.nodes[0].engine.crash()
    assert world.nodes[0].held() == []
    world.nodes[0].engine.write([])
    assert answers(world)


def test_acknowledged_with_the_last_stripe_whatever_the_order() -> None:
    world = World()
    pieces = [piece(stripe=s, last=3 if s == 2 else 0) for s in range(3)]
    for each in (pieces[2], pieces[0], pieces[0]):
        world.nodes[0].deliver(COORDINATOR, each)
    assert answers(world) == []
    world.nodes[0].deliver(COORDINATOR, pieces[1])
    assert answers(world) == [ShardStored(pieces[0].value_id, 0)]
    world.nodes[0].deliver(COORDINATOR, pieces[2])
    assert len(answers(world)) == 2
    assert world.nodes[0].plane.keeper.counters.piece_bytes == 3000


def test_wrong_pieces_are_not_stored() -> None:
    world = World()
    good = piece()
    for bad in (
        good._replace(crc=good.crc ^ 1),
        good._replace(piece=good.piece[:-1], crc=checksum(good.piece[:-1])),
        good._replace(shard=5),
        good._replace(length=3001),
        good._replace(code=Code(0, 5, 3000)),
        good._replace(last=7),
    ):
        world.nodes[0].deliver(COORDINATOR, bad)
    world.nodes[0].deliver(Member(2, 1002), good)
    assert all(isinstance(answer, ShardRefused) for answer in answers(world))
    assert world.nodes[0].held() == []
    assert world.nodes[0].plane.keeper.counters.wrong == 7


def test_a_shard_of_an_epoch_yet_to_come_is_kept_though_its_coordinator_has_no_seat_now() -> None:
    """Full world 6400230: a node that caught up passed a layout without the coordinator, which
    a later one seated again. It dropped a shard that it had acknowledged, and the put followed."""
    world = World()
    state = world.nodes[0].state
    sent = piece()._replace(epoch=3)
    world.nodes[0].deliver(COORDINATOR, sent)
    assert answers(world) == [ShardStored(sent.value_id, 0)]
    others = tuple(m for m in world.configuration.members if m != COORDINATOR)
    for epoch, members in ((2, (others[0],)), (3, (others[0],))):
        layout = Configuration(epoch, 1, 0, members)
        state.configuration = layout
        world.nodes[0].plane.apply_events([ConfigurationChanged(epoch, layout, ())])
        world.step(0.1)
        assert headers(world) == ([sent.value_id] if epoch == 2 else [])


@pytest.mark.parametrize("how", ["barrier", "boot", "settled", "replaced"])
def test_ruled_out_values_are_refused_and_dropped(how: str) -> None:
    world, sent = world_with_shard()
    later = sent.value_id._replace(counter=9, boot=3)
    world.nodes[0].deliver(COORDINATOR, piece(counter=9, boot=3)._replace(stamp=NEXT))
    answers(world)
    if how == "barrier":
        world.barrier(NEXT)
    elif how == "boot":
        world.boot(COORDINATOR.incarnation, 2)
    elif how == "settled":
        world.settle(COORDINATOR.incarnation, 1, 2)
    else:
        world.replace(Member(1, 2001))
    world.step(0.1)
    assert headers(world) == ([] if how == "replaced" else [later])
    world.traffic.clear()
    world.nodes[0].deliver(COORDINATOR, sent)
    reason = Refusal.NOT_MEMBER if how == "replaced" else Refusal.STALE
    assert answers(world) == [ShardRefused(sent.value_id, 0, reason)]


@pytest.mark.parametrize("how", ["barrier", "boot", "settled", "replaced", "dropped"])
def test_named_values_stay_whatever_comes(how: str) -> None:
    world, sent = world_with_shard()
    world.put(b"key", named(world, sent))
    if how == "barrier":
        world.barrier(NEXT)
    elif how == "boot":
        world.boot(COORDINATOR.incarnation, 2)
    elif how == "settled":
        world.settle(COORDINATOR.incarnation, 1, 100)
    elif how == "replaced":
        world.replace(Member(1, 2001))
    else:
        world.nodes[0].deliver(COORDINATOR, ShardDropped((sent.value_id,)))
    world.step(100.0)
    assert headers(world) == [sent.value_id]
    assert world.nodes[0].plane.keeper.pending == 0


def test_silence_and_reconnects_permit_nothing() -> None:
    world, sent = world_with_shard()
    world.cut(0, 1)
    world.step(1000.0)
    world.join(0, 1)
    world.kill(1)
    world.restart(1)
    world.step(1000.0)
    assert headers(world) == [sent.value_id]
    world.put(b"key", named(world, sent))
    world.step(1000.0)
    assert headers(world) == [sent.value_id]


def test_only_the_coordinator_may_drop() -> None:
    world, sent = world_with_shard()
    world.nodes[0].deliver(Member(2, 1002), ShardDropped((sent.value_id,)))
    world.step(0.1)
    assert headers(world) == [sent.value_id]
    world.nodes[0].deliver(COORDINATOR, ShardDropped((sent.value_id,)))
    world.step(0.1)
    assert world.nodes[0].held() == []
    assert world.nodes[0].plane.keeper.counters.held == 0


def test_superseded_shards_stay_for_their_grace() -> None:
    world, sent = world_with_shard(KeeperLimits(grace_seconds=30.0))
    world.put(b"key", named(world, sent))
    world.put(b"key", None)
    world.barrier(NEXT)
    world.step(29.0)
    assert headers(world) == [sent.value_id]
    assert world.nodes[0].plane.keeper.read(sent.value_id, 0) != Found.GONE
    world.step(2.0)
    assert world.nodes[0].held() == []
    assert world.nodes[0].plane.keeper.read(sent.value_id, 0) is Found.GONE


def test_grace_has_a_byte_cap() -> None:
    world = World(keeper=KeeperLimits(grace_seconds=30.0, grace_bytes=2500))
    for counter in (1, 2, 3, 4):
        world.nodes[0].deliver(COORDINATOR, piece(counter))
        world.put(b"key", named(world, piece(counter)))
    world.step(1.0)
    assert [v.counter for v in headers(world)] == [2, 3, 4]
    world.put(b"key", None)
    world.step(1.0)
    assert [v.counter for v in headers(world)] == [3, 4]


def test_repair_pieces_wait_for_their_slot() -> None:
    world = World(keeper=KeeperLimits(held_back_bytes=1500))
    sender = Member(3, 1003)
    world.nodes[0].deliver(sender, piece(1, slot=1))
    world.nodes[0].deliver(sender, piece(2, slot=1))
    world.step(0.1)
    refused = [m for a, b, m in world.traffic if (a, b) == (0, 3)]
    assert refused == [ShardRefused(piece(2).value_id, 0, Refusal.BUSY)]
    assert world.nodes[0].held() == []
    world.put(b"key", named(world, piece(1)))
    world.step(0.1)
    assert headers(world) == [piece(1).value_id]
    world.traffic.clear()
    world.nodes[0].deliver(sender, piece(2, slot=1))
    world.step(0.1)
    assert [m for _, _, m in world.traffic] == [ShardRefused(piece(2).value_id, 0, Refusal.STALE)]


def test_full_disk_and_full_table_refuse() -> None:
    world = World(keeper=KeeperLimits(pending=2))
    world.nodes[0].plane.keeper.disk_full = True
    world.nodes[0].deliver(COORDINATOR, piece(9))
    world.nodes[0].plane.keeper.disk_full = False
    for counter in (1, 2, 3):
        world.nodes[0].deliver(COORDINATOR, piece(counter))
    assert answers(world) == [
        ShardRefused(piece(9).value_id, 0, Refusal.DISK_FULL),
        ShardRefused(piece(3).value_id, 0, Refusal.BUSY),
        ShardStored(piece(1).value_id, 0),
        ShardStored(piece(2).value_id, 0),
    ]


def test_restart_keeps_what_matters_and_leaks_nothing() -> None:
    world = World(keeper=KeeperLimits(grace_seconds=5.0))
    node = world.nodes[0]
    for counter in (1, 2, 3):
        node.deliver(COORDINATOR, piece(counter))
    node.deliver(COORDINATOR, piece(4, stripe=0, last=0))
    world.put(b"a", named(world, piece(1)))
    world.put(b"b", named(world, piece(2)))
    world.put(b"b", None)
    world.step(0.1)
    world.kill(0)
    world.restart(0)
    keeper = node.plane.keeper
    assert (keeper.counters.held, keeper.counters.piece_bytes) == (3, 4000)
    world.step(100.0)
    assert [v.counter for v in headers(world)] == [1, 2, 3, 4]
    node.deliver(COORDINATOR, piece(4, stripe=1, last=2))
    assert answers(world)[-1] == ShardStored(piece(4).value_id, 0)
    world.settle(COORDINATOR.incarnation, 1, 5)
    world.step(100.0)
    assert [v.counter for v in headers(world)] == [1]
    assert len(node.held()) == 2
    assert keeper.pending == 0


def test_restart_gives_ruled_out_shards_their_grace() -> None:
    world = World(keeper=KeeperLimits(grace_seconds=5.0))
    world.nodes[0].deliver(COORDINATOR, piece(1))
    world.step(0.1)
    world.kill(0)
    world.nodes[0].state.barrier = NEXT
    world.restart(0)
    world.step(4.0)
    assert len(headers(world)) == 1
    world.step(2.0)
    assert headers(world) == []


def test_rotten_piece_is_reported_dropped_and_counted() -> None:
    world, sent = world_with_shard()
    world.put(b"key", named(world, sent))
    world.step(1.0)
    keeper = world.nodes[0].plane.keeper
    world.nodes[0].engine.rotten[Table.SHARD, rows.piece_key(sent.value_id, 0)] = None
    assert keeper.read(sent.value_id, 0) is Found.CORRUPT
    assert keeper.read(sent.value_id, 0) is Found.GONE
    world.nodes[0].wake()
    world.step(0.1)
    assert keeper.read(sent.value_id, 0) is Found.GONE
    assert keeper.missing(sent.value_id, 0, 1) == [0]
    assert (keeper.counters.corrupt, keeper.counters.held) == (1, 0)
    world.kill(0)
    world.restart(0)
    assert world.nodes[0].plane.keeper.missing(sent.value_id, 0, 1) == [0]


def test_rotten_header_does_not_stop_the_start() -> None:
    world, sent = world_with_shard()
    world.nodes[0].deliver(COORDINATOR, piece(2))
    world.step(0.1)
    world.nodes[0].engine.rotten[Table.SHARD, rows.header_key(sent.value_id)] = None
    world.kill(0)
    world.restart(0)
    world.nodes[0].wake()
    world.step(0.1)
    assert headers(world) == [piece(2).value_id]
    assert world.nodes[0].plane.keeper.counters.corrupt == 1


def test_memory_holds_only_what_may_change() -> None:
    world = World()
    for counter in range(1, 200):
        world.nodes[0].deliver(COORDINATOR, piece(counter))
        world.put(b"key%d" % counter, named(world, piece(counter)))
        world.step(0.01)
    world.step(1.0)
    keeper = world.nodes[0].plane.keeper
    assert keeper.counters.held == 199
    assert len(keeper.shelf.shards) == len(keeper.shelf.gone) == 0


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["piece", "name", "delete", "barrier", "settle", "boot", "crash", "time"]),
        st.integers(1, 6),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_never_dropped_early_and_never_kept_for_ever(steps: list[tuple[str, int]]) -> None:
    """Any history: an acknowledged shard that may still be named is there; in the end,
    after everything is settled, exactly the named ones are."""
    world = World(keeper=KeeperLimits(grace_seconds=1.0))
    node, acknowledged, boot = world.nodes[0], {}, 1
    used: dict[ValueId, None] = {}
    for what, number in steps:
        sent = piece(number, boot=boot)._replace(stamp=world.leader)
        if what == "piece":
            node.deliver(COORDINATOR, sent)
        elif what == "name" and sent.value_id in acknowledged and sent.value_id not in used:
            if node.plane.keeper.missing(sent.value_id, 0, 1) == []:
                used[sent.value_id] = None
                world.put(b"key%d" % (number % 3), named(world, sent))
        elif what == "delete":
            world.put(b"key%d" % (number % 3), None)
        elif what == "barrier":
            world.barrier(Ballot(world.leader.round + 1, 0, 1000))
            acknowledged.clear()
        elif what == "settle":
            world.settle(COORDINATOR.incarnation, boot, number)
            acknowledged = {v: None for v in acknowledged if v.counter >= number}
        elif what == "boot":
            boot += 1
            world.boot(COORDINATOR.incarnation, boot)
            acknowledged.clear()
        elif what == "crash":
            world.kill(0)
            world.restart(0)
        else:
            world.step(0.1 * number)
        world.step(0.01)
        for _, _, message in world.traffic:
            if isinstance(message, ShardStored):
                acknowledged[message.value_id] = None
        world.traffic.clear()
        must = [v for v in acknowledged if v not in used] + list(node.state.names)
        for value_id in must:
            assert node.plane.keeper.missing(value_id, 0, 1) == [], (what, value_id)
    world.boot(COORDINATOR.incarnation, boot + 1)
    world.step(10.0)
    assert headers(world) == sorted(node.state.names)
    assert node.plane.keeper.counters.held == len(node.state.names)
    assert node.plane.keeper.pending == 0
