"""Rot in metadata and in the log of running nodes: refused or mended, never answered wrongly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from distkv.errors import Corrupt, DeadlineExceeded, DistKVError
from distkv.kernel import Future
from distkv.machine.snapshot import SnapshotSource
from distkv.member.healing import MANY
from distkv.member.messages import RowsGiven, SnapshotPiece
from distkv.member.seat import Seat
from distkv.operations import Get, Operation, Put, Scan, Value, Write
from distkv.simulation.full_world import CALM, World
from distkv.simulation.member_host import Host
from distkv.storage.base import CorruptRow, DeleteRange, Table


def world_of(geometry: tuple[int, int] = (3, 2)) -> World:
    world = World(1, geometry, CALM)
    world.member_options = world.member_options.__class__(
        **{
            field: getattr(world.member_options, field)
            for field in world.member_options.__dataclass_fields__
            if field != "scrub_period"
        },
        scrub_period=1e6,
    )
    world.begin()
    return world


def ask(world: World, ordinal: int, operation: Operation, seconds: float = 5.0) -> object:
    host = world.hosts[ordinal]
    future = host.execute(operation, world.now + seconds)
    assert isinstance(future, Future)
    host.wake()
    assert world.run_until(lambda: future.done, seconds + 1.0)
    return future.result()


def put(world: World, key: bytes, value: bytes, at: int = 0) -> None:
    ask(world, at, Write((Put(key, value),)))


def get(world: World, key: bytes, at: int) -> object:
    found = ask(world, at, Get(key))
    return found.data if isinstance(found, Value) else found


def restart(world: World, ordinal: int) -> Host:
    """A process that remembers no row."""
    host = world.hosts[ordinal]
    world.crash(host)
    host.start()
    assert world.run_until(lambda: host.votes and host.machine.formed, 10.0)
    world.run_until(lambda: False, 2.0)
    forget(host)
    return host


def forget(host: Host) -> None:
    """What the replayed end of the log left in memory."""
    records = host.machine.keyspace.records
    records._young, records._old = {}, {}


def sound(host: Host, table: Table, key: bytes) -> bool:
    try:
        host.engine.get(table, key)
    except CorruptRow:
        return False
    return True


def taken(host: Host) -> int:
    assert host.member is not None
    assert host.member.seat is not None
    return host.member.seat.healer.states_taken


def rows_taken(host: Host) -> int:
    assert host.member is not None
    assert host.member.seat is not None
    return host.member.seat.healer.rows_taken


def other_than_the_leader(world: World) -> int:
    return next(h.ordinal for h in world.hosts if not h.leads)


def test_a_read_of_a_rotten_record_waits_until_a_peer_gave_its_own() -> None:
    world = world_of()
    put(world, b"key", b"value")
    host = restart(world, other_than_the_leader(world))
    host.engine.rot(Table.RECORD, b"key")
    assert get(world, b"key", host.ordinal) == b"value"
    assert sound(host, Table.RECORD, b"key")
    assert (rows_taken(host), taken(host)) == (1, 0)


def test_a_row_that_no_peer_may_give_comes_with_a_whole_state() -> None:
    world, host, seat = restarted_follower()
    row = host.engine.keys(Table.STATE)[-1]
    host.engine.rot(Table.STATE, row)
    seat.healer.on_rot(Table.STATE, row)
    host.wake()
    assert world.run_until(lambda: not seat.healer.waiting, 5.0)
    assert sound(host, Table.STATE, row)
    assert (rows_taken(host), taken(host)) == (0, 1)


def test_many_rows_come_soon() -> None:
    """A walk meets them one by one; so many are not asked for one by one."""
    world = world_of()
    for i in range(200):
        put(world, b"key%03d" % i, b"value")
    host = restart(world, other_than_the_leader(world))
    for i in range(200):
        host.engine.rot(Table.RECORD, b"key%03d" % i)
    page = ask(world, host.ordinal, Scan(b"", None, b"", 1000), 3.0)
    assert len(page.keys) == 200  # type: ignore[attr-defined]


def test_an_engine_that_names_a_sound_row_gets_a_whole_state() -> None:
    """As RocksDB does when it walks over a damaged block: it names the last row before it."""
    world = world_of()
    for i in range(5):
        put(world, b"key%d" % i, b"value")
    host = restart(world, other_than_the_leader(world))
    engine = host.engine
    scan, write, damaged = engine.scan, engine.write, True

    def broken_scan(table: Table, *arguments: Any) -> Any:
        if damaged and table is Table.RECORD:
            raise CorruptRow(Table.RECORD, b"key2")
        return scan(table, *arguments)

    def replacing(batch: Any) -> Any:
        nonlocal damaged
        damaged &= not any(isinstance(o, DeleteRange) and o.table is Table.RECORD for o in batch)
        return write(batch)

    engine.scan, engine.write = broken_scan, replacing  # type: ignore[method-assign]
    page = ask(world, host.ordinal, Scan(b"", None, b"", 1000), 5.0)
    assert len(page.keys) == 5  # type: ignore[attr-defined]
    assert taken(host) == 1


def test_a_state_that_takes_long_is_not_begun_for_every_row() -> None:
    world = world_of()
    for i in range(100):
        put(world, b"key%03d" % i, b"value")
    host = restart(world, other_than_the_leader(world))
    receiver = host.member.seat.receiver  # type: ignore[union-attr]
    on_piece = receiver.on_piece
    receiver.on_piece = lambda ordinal, piece: host._at(  # type: ignore[method-assign]
        0.03, lambda: (on_piece(ordinal, piece), host.wake())
    )
    for other in world.hosts:
        other.member.seat.server._source = in_small_pieces(other, 120)  # type: ignore
    for i in range(100):
        host.engine.rot(Table.RECORD, b"key%03d" % i)
    page = ask(world, host.ordinal, Scan(b"", None, b"", 1000), 60.0)
    assert len(page.keys) == 100  # type: ignore[attr-defined]
    assert receiver._transfer <= 2


def test_a_read_waits_for_its_own_row_alone() -> None:
    """Here another row is to be had from nobody: all others are damaged, too."""
    world, host, seat = restarted_follower()
    row = host.engine.keys(Table.STATE)[-1]
    host.engine.rot(Table.STATE, row)
    seat.healer.on_rot(Table.STATE, row)
    for other in world.hosts:
        other.member.seat.server._source = lambda key, piece: None  # type: ignore
    host.engine.rot(Table.RECORD, b"key")
    assert get(world, b"key", host.ordinal) == b"value"
    assert seat.healer.waiting


def test_a_state_is_not_taken_to_the_end_if_nothing_is_damaged_any_more() -> None:
    world, host, seat = restarted_follower()
    given: list[tuple[Any, Any]] = []
    receive = seat.receive

    def late(peer: Any, message: Any) -> None:
        if isinstance(message, RowsGiven):
            given.append((peer, message))
        else:
            receive(peer, message)

    seat.receive = late  # type: ignore[method-assign]
    for other in world.hosts:
        other.member.seat.server._source = in_small_pieces(other)  # type: ignore
    host.engine.rot(Table.RECORD, b"key")
    seat.healer.on_rot(Table.RECORD, b"key")
    host.wake()
    assert world.run_until(lambda: seat.replica.held, 3.0)
    for peer, message in given:
        receive(peer, message)
    host.wake()
    assert world.run_until(lambda: not seat.healer.waiting, 1.0)
    assert not seat.receiver.active
    assert not seat.replica.held
    assert (rows_taken(host), taken(host)) == (1, 0)


def in_small_pieces(host: Host, size: int = 1) -> Callable[..., SnapshotSource | None]:
    original = host.member.seat.server._source  # type: ignore[union-attr]

    def source(key: tuple[int, int], piece: int) -> SnapshotSource | None:
        found = original(key, piece)
        if found is not None:
            found._piece_bytes = size
        return found

    return source


def test_rows_that_are_known_together_come_together() -> None:
    world = world_of()
    count = MANY
    for i in range(count):
        put(world, b"key%d" % i, b"value")
    host = restart(world, other_than_the_leader(world))
    seat = host.member.seat  # type: ignore[union-attr]
    for i in range(count):
        host.engine.rot(Table.RECORD, b"key%d" % i)
        seat.healer.on_rot(Table.RECORD, b"key%d" % i)  # type: ignore[union-attr]
    host.wake()
    assert world.run_until(lambda: not seat.healer.waiting, 2.0)  # type: ignore[union-attr]
    assert (rows_taken(host), taken(host)) == (count, 0)
    assert all(sound(host, Table.RECORD, b"key%d" % i) for i in range(count))


def test_an_entry_that_needs_a_rotten_record_waits_for_it() -> None:
    world = world_of()
    put(world, b"key", b"one")
    host = restart(world, other_than_the_leader(world))
    host.engine.rot(Table.RECORD, b"key")
    writer = next(h.ordinal for h in world.hosts if h is not host)
    put(world, b"key", b"two", writer)
    for i in range(5):
        put(world, b"other%d" % i, b"x", writer)
    assert get(world, b"key", host.ordinal) == b"two"
    world.run_until(lambda: False, 3.0)
    assert len({h.machine.applied for h in world.hosts}) == 1
    assert taken(host) == 1


def test_what_the_process_remembers_is_written_again() -> None:
    world = world_of()
    put(world, b"key", b"value")
    host = world.hosts[other_than_the_leader(world)]
    host.engine.rot(Table.RECORD, b"key")
    assert host.member is not None
    assert host.member.seat is not None
    host.member.seat.healer.on_rot(Table.RECORD, b"key")
    assert sound(host, Table.RECORD, b"key")
    assert taken(host) == 0


def test_a_rotten_entry_of_the_log_is_written_again() -> None:
    world = world_of()
    for i in range(10):
        put(world, b"key%d" % i, b"value")
    host = world.hosts[other_than_the_leader(world)]
    assert host.member is not None
    assert host.member.seat is not None
    for slot in host.engine.keys(Table.LOG)[-3:]:
        before = host.engine.get(Table.LOG, slot)
        host.engine.rot(Table.LOG, slot)
        host.member.seat.healer.on_rot(Table.LOG, slot)
        host.wake()
        assert world.run_until(lambda slot=slot: sound(host, Table.LOG, slot), 2.0)
        assert host.engine.get(Table.LOG, slot) == before


def test_a_promise_that_rotted_is_written_again() -> None:
    world = world_of()
    put(world, b"key", b"value")
    host = world.hosts[other_than_the_leader(world)]
    assert host.member is not None
    assert host.member.seat is not None
    for key in (b"core.state", b"identity", b"founding"):
        host.engine.rot(Table.META, key)
        host.member.seat.healer.on_rot(Table.META, key)
        host.wake()
        assert world.run_until(lambda key=key: sound(host, Table.META, key), 2.0)
    restart(world, host.ordinal)
    assert get(world, b"key", host.ordinal) == b"value"


def test_a_leader_with_rotten_metadata_hands_over_and_heals() -> None:
    world = world_of()
    put(world, b"key", b"value")
    leader = next(h for h in world.hosts if h.leads)
    world.crash(leader)
    leader.start()
    assert world.run_until(lambda: any(h.leads for h in world.hosts), 10.0)
    assert world.run_until(lambda: leader.votes and leader.machine.formed, 10.0)
    for host in world.hosts:
        if host.leads and host is not leader:
            assert host.member is not None
            assert host.member.seat is not None
            host.member.seat.replica.transfer(leader.ordinal)
            host.wake()
    assert world.run_until(lambda: leader.leads, 10.0)
    forget(leader)
    leader.engine.rot(Table.RECORD, b"key")
    assert get(world, b"key", leader.ordinal) == b"value"
    assert leader.leads, "for one row of a peer it need not"
    row = leader.engine.keys(Table.STATE)[-1]
    leader.engine.rot(Table.STATE, row)
    leader.member.seat.healer.on_rot(Table.STATE, row)  # type: ignore[union-attr]
    leader.wake()
    assert world.run_until(lambda: taken(leader) == 1, 10.0)
    assert sound(leader, Table.STATE, row)
    assert not any(h is leader for h in world.hosts if h.leads)


def test_a_damaged_state_is_not_replaced_by_an_older_one() -> None:
    world = world_of()
    for i in range(5):
        put(world, b"key%d" % i, b"value")
    host = restart(world, other_than_the_leader(world))
    assert host.member is not None
    seat = host.member.seat
    assert seat is not None
    applied, peer = seat.machine.applied, (host.ordinal + 1) % 5
    for slot, taken_on in ((applied - 1, False), (applied, True)):
        receiver = seat.receiver
        receiver.take_anew(peer, world.now)
        source = SnapshotSource(world.hosts[peer].engine.view())
        found = source.piece(0)
        assert found is not None
        receiver.on_piece(peer, SnapshotPiece(receiver._transfer, 0, slot, False, found[0]))
        source.close()
        assert receiver.active is taken_on
        assert seat.replica.held is taken_on, "from its first piece on nothing may be applied"
    assert seat.machine.applied == applied


def restarted_follower() -> tuple[World, Host, Seat]:
    """One of five nodes that have a key; it remembers no row."""
    world = world_of()
    put(world, b"key", b"value")
    host = restart(world, other_than_the_leader(world))
    assert host.member is not None
    assert host.member.seat is not None
    return world, host, host.member.seat


def test_a_peer_that_dies_as_it_is_asked_does_not_keep_a_read_waiting() -> None:
    """World 6702074, where such a read was told at its deadline that nobody has the row."""
    world, host, seat = restarted_follower()
    host.engine.rot(Table.RECORD, b"key")
    seat.healer.exchange.ask = lambda peers, rotten: False  # type: ignore[method-assign]
    future = host.execute(Get(b"key"), world.now + 4.0)
    assert isinstance(future, Future)
    host.wake()
    assert world.run_until(lambda: seat.receiver.active, 1.0)
    world.crash(world.hosts[seat.receiver._peer])
    assert world.run_until(lambda: future.done, 5.0)
    assert future.error is None


def test_a_transfer_goes_on_with_a_peer_that_is_back() -> None:
    world, host, seat = restarted_follower()
    receiver, peer = seat.receiver, (host.ordinal + 1) % 5
    receiver.take_anew(peer, world.now)
    sent: list[object] = []
    seat.owner.send = lambda ordinal, message, stream=0: sent.append((ordinal, message))  # type: ignore[method-assign]
    receiver.peer_down((peer + 1) % 5)
    assert receiver.active, "another peer"
    receiver.peer_up(peer, world.now)
    assert [ordinal for ordinal, _ in sent] == [peer], "it is asked again at once"
    receiver._sink.number = 3
    receiver.peer_down(peer)
    assert receiver.active, "what it gave is kept"
    receiver._sink.number = 0
    receiver.peer_down(peer)
    assert not receiver.active


@pytest.mark.parametrize(
    ("without", "error"), [((1, 2, 3), DeadlineExceeded), ((1, 2, 3, 4), Corrupt)]
)
def test_a_row_counts_as_lost_only_if_no_peer_has_it(
    without: tuple[int, ...], error: type[DistKVError]
) -> None:
    world = world_of()
    put(world, b"key", b"value")
    host = restart(world, 0)
    for other in world.hosts[1:]:
        world.crash(other)
    assert host.member is not None
    seat = host.member.seat
    assert seat is not None
    host.engine.rot(Table.RECORD, b"key")
    seat.healer.on_rot(Table.RECORD, b"key")
    for ordinal in without:
        seat.healer.refused(ordinal)
    waiting = seat.kernel.spawn(seat.healer.wait((Table.RECORD, b"key"), world.now + 0.2))
    host.wake()
    assert world.run_until(lambda: waiting.done, 1.0)
    assert type(waiting.error) is error


def test_alone_the_row_is_refused_and_all_others_are_served() -> None:
    world = world_of((1, 0))
    put(world, b"key", b"value")
    put(world, b"other", b"x")
    host = restart(world, 0)
    host.engine.rot(Table.RECORD, b"key")
    with pytest.raises(DistKVError) as refused:
        get(world, b"key", 0)
    assert isinstance(refused.value, Corrupt)
    assert get(world, b"other", 0) == b"x"
    put(world, b"third", b"y")
    assert get(world, b"third", 0) == b"y"
