"""A directory that holds less than it once told: its node halts, and others do not hear it."""

from __future__ import annotations

import pytest
from unit.member.alone import CLUSTER, HEALTHY, Alone

from distkv.core.messages import Prepare
from distkv.ids import Ballot
from distkv.ids import Member as Seat
from distkv.machine.commands import pack_boot
from distkv.member.identity import VolumeWentBack, open_identity
from distkv.member.messages import WentBack
from distkv.storage.memory import MemoryEngine
from distkv.transport.base import Identity

PEER = Identity(CLUSTER, 0, 1, 101, 1)
STARTED = HEALTHY._replace(start=77, flushes=10, flushed=25)


def sent(alone: Alone) -> list[object]:
    output = alone.member.turn(alone.now, 0)
    return [outgoing.message for outgoing in output.messages if outgoing.ordinal == 1]


def test_a_peer_that_started_with_less_is_told_and_not_heard() -> None:
    alone = Alone()
    alone.appear(1, STARTED)
    alone.member.peer_down(PEER)
    alone.step(0.05)
    alone.appear(1, STARTED._replace(start=78, flushes=24, flushed=40))
    assert WentBack(78, 25) in sent(alone)
    before = alone.seat.replica.ballot
    ballot = Ballot(before.round + 5, 1, 101)
    alone.member.receive(PEER, Prepare(ballot, 0))
    alone.step(0.1)
    assert alone.seat.replica.ballot == before
    assert [s["kind"] for s in alone.member.status()["suspicions"]] == ["durable_regression"]  # type: ignore[attr-defined]


def test_a_peer_that_started_with_all_it_told_is_heard() -> None:
    alone = Alone()
    alone.appear(1, STARTED)
    alone.member.peer_down(PEER)
    alone.appear(1, STARTED._replace(start=78, flushes=25, flushed=25))
    assert not any(isinstance(message, WentBack) for message in sent(alone))
    assert alone.member.peers.greetings[1].start == 78
    assert alone.seat.replica.records.trusted(Seat(1, 101))


def test_a_greeting_of_an_earlier_process_that_comes_late_is_not_taken_for_its_successors() -> None:
    """Full world 7100009."""
    alone = Alone()
    later = PEER._replace(boot=2)
    alone.appear(1, STARTED)
    alone.member.peer_up(later)
    alone.member.receive(later, STARTED._replace(start=78, flushes=30, flushed=40))
    alone.member.receive(PEER, STARTED)
    assert alone.member.peers.greetings[1].start == 78
    assert alone.seat.replica.records.trusted(Seat(1, 101))


def test_a_greeting_tells_the_start_and_what_was_there() -> None:
    engine = MemoryEngine()
    first = Alone(engine).seat
    again = Alone(engine).seat
    assert first.greeting().flushed > 0
    assert again.greeting().flushes >= first.greeting().flushed
    assert again.start != 0
    assert again.greeting().start == again.start


def test_who_is_told_so_halts_with_the_remedy() -> None:
    alone = Alone()
    alone.appear(1)
    alone.member.receive(PEER, WentBack(alone.seat.start, alone.seat.replica.flushes + 1))
    with pytest.raises(VolumeWentBack, match=r"restored from a snapshot.*distkv admin replace"):
        alone.member.turn(alone.now, 0)


def test_who_was_told_so_once_never_starts_again() -> None:
    """Each start flushes, and so counts on: restarted often enough (a pod is, by itself) it would
    begin with more than a peer remembers that was away when the newest was told."""
    alone = Alone()
    alone.appear(1)
    alone.member.receive(PEER, WentBack(alone.seat.start, alone.seat.replica.flushes + 1))
    with pytest.raises(VolumeWentBack) as told:
        alone.member.turn(alone.now, 0)
    for _ in range(2):
        with pytest.raises(VolumeWentBack, match=str(told.value)[:40]):
            open_identity(alone.engine, CLUSTER, 0, 1)


def test_whose_later_boot_is_in_the_log_halts() -> None:
    """Nobody may remember what it flushed; but the log has what it did since."""
    alone = Alone()
    assert alone.seat.boot == 1
    assert alone.seat.replica.propose([pack_boot(100, 0, 2, 1)])
    with pytest.raises(VolumeWentBack, match="boot 2 of this data directory is in the log"):
        alone.step(0.2)
    with pytest.raises(VolumeWentBack):
        open_identity(alone.engine, CLUSTER, 0, 1)


def test_whose_later_boot_a_peer_has_met_halts() -> None:
    """Full world 92 with restored disks: the transport refused it as an old boot, so nobody
    could tell it that it went back, and it tried for ever."""
    alone = Alone()
    woken: list[None] = []
    alone.member.on_work = lambda: woken.append(None)
    alone.member.outdated(PEER)
    assert woken
    with pytest.raises(VolumeWentBack, match=r"node 1 has met a later start .* which is boot 1"):
        alone.step(0.1)


def test_whose_boot_was_another_process_halts() -> None:
    """A directory restored from the last boot counts the same one again: under its session, the
    writes of this process would be taken for those of that one."""
    engine = MemoryEngine()
    Alone(engine, seed=1)
    with pytest.raises(VolumeWentBack, match="another process, boot 1"):
        Alone(engine, seed=2)


def test_who_holds_all_that_somebody_remembers_goes_on() -> None:
    alone = Alone()
    alone.appear(1)
    alone.member.receive(PEER, WentBack(alone.seat.start, alone.seat.replica.flushes))
    alone.step(0.1)
    assert alone.seat.replica.is_leader


def test_what_was_meant_for_the_directory_that_sat_here_before_halts_nobody() -> None:
    """Restoring world 57: it left just before that node was wiped and started anew."""
    alone = Alone()
    alone.appear(1)
    alone.member.receive(PEER, WentBack(alone.seat.start + 1, 57))
    alone.step(0.1)
    assert alone.seat.replica.is_leader
