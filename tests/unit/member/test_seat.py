"""What a member tells clients when its cluster, its disk or its process is not well."""

from __future__ import annotations

import pytest
from unit.member.alone import CLUSTER, member_on

from distkv.errors import DiskFull, DistKVError, NoQuorum, ShuttingDown
from distkv.member.identity import founding_row
from distkv.member.messages import Founding, Greeting
from distkv.operations import Delete, Flush, Get, Operation, Put, Write
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity

FOUNDERS = tuple((ordinal, 100 + ordinal) for ordinal in range(5))
WRITE = Write((Delete(b"key"),))


def peer(ordinal: int, boot: int = 1) -> Identity:
    return Identity(CLUSTER, 0, ordinal, 100 + ordinal, boot)


class Lone:
    """Member 0 of five, and a clock; the others are only claimed to be there."""

    def __init__(self) -> None:
        engine = MemoryEngine()
        engine.write([founding_row(Founding(CLUSTER, "owner", 3, 2, FOUNDERS, 4096))])
        self.now = 1000.0
        self.member = member_on(engine)
        assert self.member.seat is not None
        self.seat = self.member.seat
        self.seat.machine.formed = True
        self.seat.booted = True
        self.engine = engine

    def step(self, seconds: float = 0.0) -> None:
        end = self.now + seconds
        while True:
            output = self.member.turn(self.now, int(self.now * 1000))
            self.engine.write(output.writes)
            self.member.flushed(output.number)
            if self.now >= end:
                return
            self.now = min(end, self.now + 0.025)

    def error(self, operation: Operation) -> BaseException | None:
        """Of a request that is refused at once; None: it waits."""
        future = self.member.execute(operation, self.now + 10)
        return future.error if future.done else None


@pytest.fixture
def lone() -> Lone:
    return Lone()


def test_a_start_gives_the_peers_time_before_requests_are_refused(lone: Lone) -> None:
    lone.step()
    assert lone.error(Get(b"key")) is None
    lone.step(3.0)
    assert isinstance(lone.error(Get(b"key")), NoQuorum)


def test_the_rate_of_repair_changes_while_it_runs(lone: Lone) -> None:
    lone.step()
    assert lone.member.seat is not None
    pace = lone.member.seat.data.pace
    for rate in (1 << 20, 1 << 30):
        lone.member.set_repair_rate(rate)
        assert (pace.rate, pace.most) == (rate, rate)
        health = lone.member.status()["health"]
        assert isinstance(health, dict)
        assert health["background_rate_max"] == rate


def test_requests_are_taken_as_soon_as_enough_peers_are_back(lone: Lone) -> None:
    lone.step(3.0)
    for ordinal in (1, 2):
        assert isinstance(lone.error(WRITE), NoQuorum)
        lone.member.peer_up(peer(ordinal))
    assert lone.error(WRITE) is None


def test_without_a_quorum_a_node_does_not_say_that_it_serves(lone: Lone) -> None:
    lone.step(3.0)
    status = lone.member.status()
    assert (status["state"], status["serving"]) == ("no quorum", False)
    assert "1 of 5 nodes answer" in str(status["detail"])


def test_a_stopping_node_refuses_what_is_new_and_goes_on_with_the_rest(lone: Lone) -> None:
    lone.step()
    begun = lone.member.execute(WRITE, lone.now + 10)
    lone.member.stop_taking()
    assert isinstance(lone.error(WRITE), ShuttingDown)
    assert isinstance(lone.error(Get(b"key")), ShuttingDown)
    with pytest.raises(ShuttingDown):
        lone.member.upload(5000)
    assert not begun.done
    assert lone.seat.busy
    lone.member.shut_down()
    assert isinstance(begun.error, DistKVError)
    assert not lone.seat.busy


def test_a_blocked_node_greets_as_full_and_tells_who_waits(lone: Lone) -> None:
    """No turn runs while a batch cannot be written; peers must not wait for it in vain."""
    lone.member.peer_up(peer(1))
    lone.step()
    waiting = lone.member.execute(WRITE, lone.now + 10)
    lone.member.disk_full = True
    sent = lone.member.fail_waiting(lone.now)
    assert isinstance(waiting.error, DiskFull)
    assert [(out.ordinal, type(out.message)) for out in sent] == [(1, Greeting)]
    greeting = sent[0].message
    assert isinstance(greeting, Greeting)
    assert greeting.disk_full


def test_a_full_node_takes_deletions_only_and_says_which_disks_are_full(lone: Lone) -> None:
    """Were they refused too, a cluster whose disks are all full would stay so for ever."""
    for ordinal in (1, 2):
        lone.member.peer_up(peer(ordinal))
    lone.member.receive(peer(2), Greeting(True, True, True, 0, 0, 0, 0))
    lone.step()
    lone.member.disk_full = True
    assert lone.error(WRITE) is None
    assert lone.error(Write((Flush(),))) is None
    for mutations in ((Put(b"key", b"1"),), (Delete(b"a"), Put(b"b", b"1"))):
        refusal = lone.error(Write(mutations))
        assert isinstance(refusal, DiskFull)
        assert str(refusal).startswith("the disks of nodes 0, 2 are full")
    with pytest.raises(DiskFull, match="nodes 0, 2"):
        lone.member.upload(5000)
    assert lone.seat.situation().endswith("; the disks of nodes 0, 2 are full")
    lone.member.disk_full = False
    assert lone.seat.situation().endswith("; the disk of node 2 is full")


def test_a_peer_that_greets_as_full_is_spared(lone: Lone) -> None:
    lone.member.peer_up(peer(1))
    lone.member.receive(peer(1), Greeting(True, True, True, 0, 0, 0, 0))
    assert list(lone.seat.data.disperser.full) == [1]
    lone.member.receive(peer(1), Greeting(True, True, False, 0, 0, 0, 0))
    assert list(lone.seat.data.disperser.full) == []
    lone.member.receive(peer(1), Greeting(True, True, True, 0, 0, 0, 0))
    lone.member.peer_down(peer(1))
    assert list(lone.seat.data.disperser.full) == []


def test_who_waits_for_a_node_to_start_is_told_that_there_is_no_quorum(lone: Lone) -> None:
    lone.seat.booted = False
    lone.step()
    waiting = lone.member.execute(Get(b"key"), lone.now + 10)
    lone.step(1.0)
    assert not waiting.done
    lone.step(2.0)
    assert isinstance(waiting.error, NoQuorum)
    assert "1 of 5 nodes answer" in str(waiting.error)


def test_a_start_that_takes_too_long_is_told_as_such(lone: Lone) -> None:
    lone.seat.booted = False
    for ordinal in (1, 2, 3, 4):
        lone.member.peer_up(peer(ordinal))
    lone.step()
    waiting = lone.member.execute(Get(b"key"), lone.now + 1)
    lone.step(1.5)
    assert isinstance(waiting.error, NoQuorum)
    assert "no leader is known" in str(waiting.error)


@pytest.mark.parametrize("closing", [False, True])
def test_what_probes_ask_is_what_the_status_says(closing: bool) -> None:
    lone = Lone()
    lone.seat.closing = closing
    health, status = lone.member.health(), lone.member.status()
    assert health == {name: status[name] for name in ("serving", "state", "detail", "keys")}
    assert health["serving"] is not closing


def test_what_probes_ask_of_a_node_without_a_cluster() -> None:
    member = member_on(MemoryEngine())
    health, status = member.health(), member.status()
    assert health == {name: status[name] for name in ("serving", "state", "detail")}
    assert health["serving"] is False
