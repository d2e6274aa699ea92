"""The checker of whole worlds lets pass what the protocol allows, and nothing else."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from distkv.data.messages import ShardStored
from distkv.ids import ValueId
from distkv.kernel import Future
from distkv.member.messages import Forward
from distkv.operations import Put, Write
from distkv.simulation import disk as raw
from distkv.simulation.disk import Disk
from distkv.simulation.full_check import Checker
from distkv.simulation.full_world import CALM, Violation, World
from distkv.simulation.member_host import Host
from distkv.storage.base import Delete, StorageOperation, Table


class Told(NamedTuple):
    """A world in which one coded put took effect, as a checker sees it that saw nothing yet."""

    world: World
    checker: Checker
    value_id: bytes
    command: bytes
    slot: int
    entry: bytes

    def submit(self) -> None:
        """The coordinator sends its put."""
        self.checker.sending(self.world.hosts[1], Forward((self.command,)))

    def drop(self, host: Host) -> None:
        """The node removes its shard."""
        rows: list[StorageOperation] = [Delete(Table.SHARD, b"\xff" + self.value_id)]
        host.engine.write(rows)
        host.engine.flush()
        self.checker.wrote(host, rows)

    def acknowledge(self, host: Host) -> None:
        """The node tells the coordinator that it holds its shard."""
        shard = Disk(host.engine).shard(self.value_id)
        assert shard is not None
        message = ShardStored(ValueId.unpack(self.value_id), shard[-1][0])
        self.checker.sending(host, message)

    def replace(self, host: Host) -> None:
        """The disk is lost, and another directory has refilled since."""
        self.world.lose_disk(host)
        host.start()
        self.world.wiped.remove(host.ordinal)


@pytest.fixture
def told() -> Told:
    world = World(1, (3, 2), CALM, transport=False)
    world.inline_max = 64
    world.begin()
    future = world.hosts[1].execute(Write((Put(b"key", b"x" * 5000),)), world.now + 5.0)
    assert isinstance(future, Future)
    world.hosts[1].wake()
    assert world.run_until(lambda: future.done, 5.0)
    assert future.error is None
    world.run_until(lambda: False, 1.0)
    found = [
        (naming.value_id, command, slot, entry)
        for slot, entry in world.checker.entries.items()
        for command in raw.commands_of(entry)
        for naming in raw.namings(command)
    ]
    assert len(found) == 1
    layouts = world.checker.layouts
    checker = world.checker = Checker(world)
    checker.layouts = layouts
    return Told(world, checker, *found[0])


def test_a_put_whose_holders_have_their_shards_may_leave(told: Told) -> None:
    told.submit()


def test_a_holder_without_its_shard_is_found(told: Told) -> None:
    host = told.world.hosts[0]
    host.engine.write([Delete(Table.SHARD, b"\xff" + told.value_id)])
    host.engine.flush()
    with pytest.raises(Violation, match="names node 0 as holder"):
        told.submit()


def test_a_put_may_be_late_for_shards_that_a_refilled_node_dropped(told: Told) -> None:
    """Worlds 2001289 and 2002096: the drop was not noted, because the node was not refilled yet."""
    world, host = told.world, told.world.hosts[0]
    world.wiped.append(0)
    told.drop(host)
    world.wiped.remove(0)
    told.submit()


def test_a_put_that_takes_effect_after_a_holder_dropped_its_shard_is_found(told: Told) -> None:
    told.world.wiped.append(0)
    told.drop(told.world.hosts[0])
    told.world.wiped.remove(0)
    with pytest.raises(Violation, match="node 0 dropped its shard"):
        told.checker.applied(told.world.hosts[1], told.slot, told.entry)


def test_a_put_may_name_an_incarnation_whose_disk_was_lost_since_it_acknowledged(
    told: Told,
) -> None:
    told.acknowledge(told.world.hosts[0])
    told.replace(told.world.hosts[0])
    told.submit()


def test_a_lost_incarnation_that_never_acknowledged_is_found(told: Told) -> None:
    told.replace(told.world.hosts[0])
    with pytest.raises(Violation, match="names node 0 as holder"):
        told.submit()
