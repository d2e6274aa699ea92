"""A disk that is lost between a dispersal and its put does not count as a holder."""

from __future__ import annotations

import pytest
from simulation.full.test_healing import world_of

from distkv.ids import Member
from distkv.kernel import Future
from distkv.member.messages import Forward
from distkv.operations import Put, Write
from distkv.simulation import disk as raw
from distkv.simulation.disk import Disk, Naming
from distkv.simulation.full_world import World
from distkv.simulation.member_host import Host
from distkv.transport.base import Identity
from distkv.wire.codec import decode


class Held:
    """Keeps back what one coordinator forwards to the leader, until `release`."""

    def __init__(self, leader: Host, coordinator: Host) -> None:
        self._pass_on = leader.receive
        self._coordinator = coordinator
        self.kept: list[tuple[Identity, bytes]] = []
        self.namings: list[Naming] = []
        self._leader = leader
        leader.receive = self._receive  # type: ignore[method-assign]

    def _receive(self, sender: Identity, payload: bytes) -> None:
        namings = [
            naming
            for message in decode(payload)
            if isinstance(message, Forward) and sender.ordinal == self._coordinator.ordinal
            for command in message.commands
            for naming in raw.namings(command)
        ]
        if namings:
            self.kept.append((sender, payload))
            self.namings += namings
        else:
            self._pass_on(sender, payload)

    def release(self) -> None:
        self._leader.receive = self._pass_on  # type: ignore[method-assign]
        for sender, payload in self.kept:
            self._pass_on(sender, payload)


def replaced(host: Host) -> list[Member]:
    assert host.member is not None
    return host.member.peers.replaced(host.machine.configuration)


def durable_shards(world: World, value_id: bytes) -> int:
    shards = [Disk(host.engine).shard(value_id) for host in world.hosts]
    return len({shard[-1][0] for shard in shards if shard is not None})


@pytest.mark.parametrize("leads", [False, True], ids=["forwarded", "own"])
def test_the_leader_counts_no_holder_in_whose_place_another_incarnation_sits(leads: bool) -> None:
    world = world_of()
    leader = next(h for h in world.hosts if h.leads)
    others = [h for h in world.hosts if h is not leader]
    victim, coordinator = others[0], others[1]
    held = Held(leader, coordinator)
    future = coordinator.execute(Write((Put(b"key", bytes(9000)),)), world.now + 60.0)
    assert isinstance(future, Future)
    coordinator.wake()
    assert world.run_until(lambda: bool(held.kept), 5.0)
    naming = held.namings[0]
    lost = Member(victim.ordinal, victim.incarnation)
    assert lost in naming.holders
    assert len(naming.holders) == 5
    world.lose_disk(victim)
    victim.start()
    assert world.run_until(lambda: replaced(leader) == [lost], 10.0)
    if leads:
        # The coordinator itself leads when it sends the command again.
        leader.receive = held._pass_on  # type: ignore[method-assign]
        assert leader.member is not None
        assert leader.member.seat is not None
        assert leader.member.seat.replica.transfer(coordinator.ordinal)
        leader.wake()
        assert world.run_until(lambda: replaced(coordinator) == [lost], 10.0)
    else:
        held.release()
    assert world.run_until(lambda: future.done, 30.0)
    future.result()
    named = [
        n
        for e in world.checker.entries.values()
        for c in raw.commands_of(e)
        for n in raw.namings(c)
    ]
    first = [n for n in named if n.value_id == naming.value_id]
    assert all(lost not in n.holders for n in named)
    assert first, "it was proposed, and the log refused it"
    record = coordinator.machine.record(b"key")  # it has applied its own put
    assert record is not None
    assert record.value_id is not None
    assert record.value_id.pack() != naming.value_id
    assert durable_shards(world, record.value_id.pack()) >= record.data_shards + 2
