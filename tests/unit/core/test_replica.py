"""One test per rule of the core; what needs many faults at once is the simulator's."""

from __future__ import annotations

import random

import msgpack
import pytest
from unit.core.cluster import Cluster, Node, commands

from distkv.core import entries
from distkv.core.messages import (
    Accept,
    Accepted,
    Learn,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Refuse,
)
from distkv.core.options import ReplicaOptions, check
from distkv.ids import Ballot


@pytest.mark.parametrize(("k", "m"), [(1, 0), (1, 1), (2, 1), (3, 2), (2, 2), (5, 4), (3, 0)])
def test_elects_and_applies_everywhere(k: int, m: int) -> None:
    cluster = Cluster(k, m)
    leader = cluster.elect()
    assert leader.replica.propose([b"a", b"b"])
    cluster.settle()
    assert leader.replica.propose([b"c"])
    cluster.tick(10)
    assert all(commands(n) == [b"a", b"b", b"c"] for n in cluster.nodes)


def test_first_own_entry_is_the_barrier_with_the_ballot() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    entry = leader.applied[-1]
    assert entry[0] == entries.BARRIER
    assert tuple(msgpack.unpackb(entry[entries.HEADER_BYTES :])) == tuple(leader.replica.ballot)
    assert leader.machine.barrier == leader.replica.ballot


def test_commands_of_one_turn_are_one_entry() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    before = leader.replica.chosen
    for i in range(50):
        leader.replica.propose([b"%d" % i])
    cluster.settle()
    assert leader.replica.chosen == before + 1


def test_slots_are_pipelined() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    for i in range(3):
        leader.replica.propose([b"%d" % i])
        sent = leader.drain()
        # One more voter makes a quorum; the other is given all three a little later.
        assert sum(1 for _, m in sent if type(m) is Accept and m.entries) == 1
    assert leader.replica.status().window == 3


def test_window_and_queue_are_bounded() -> None:
    cluster = Cluster(2, 1, window_slots=2, queue_commands=4, ahead_slots=8)
    leader = cluster.elect()
    for i in range(2):
        assert leader.replica.propose([b"%d" % i])
        leader.drain()
    for i in range(4):
        assert leader.replica.propose([b"q%d" % i])
        leader.drain()
    assert leader.replica.status().window == 2
    assert leader.replica.status().queued == 4
    assert not leader.replica.propose([b"one too many"])
    for other in cluster.followers():
        assert not other.replica.propose([b"not the leader"])


def test_own_vote_counts_only_after_the_flush() -> None:
    cluster = Cluster(1, 0)
    node = cluster.elect()
    before = node.replica.chosen
    node.replica.propose([b"x"])
    node.drain()
    assert node.replica.chosen == before
    node.flush()
    assert node.replica.chosen == before + 1


def test_acceptor_answers_only_after_the_flush() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    leader.replica.propose([b"x"])
    accept = next(
        m for o, m in leader.drain() if o == follower.member.ordinal and type(m) is Accept
    )
    follower.replica.step(leader.member, accept)
    assert not any(type(m) is Accepted for _, m in follower.drain())
    answers = [m for _, m in follower.flush() if type(m) is Accepted]
    assert answers[0].upto == accept.first


def test_prepare_is_answered_after_the_flush_and_lower_ballots_are_refused() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    rival = next(n.member for n in cluster.followers() if n is not follower)
    high = Ballot(leader.replica.ballot.round + 5, rival.ordinal, rival.incarnation)
    follower.replica.step(rival, Prepare(high, 0))
    assert not any(type(m) is Promise for _, m in follower.drain())
    assert any(type(m) is Promise and m.ballot == high for _, m in follower.flush())
    follower.replica.step(leader.member, Accept(leader.replica.ballot, 9, (b"\x00" * 9,), 0, 0))
    assert (leader.member.ordinal, Refuse(high)) in follower.drain()
    follower.crash(random.Random(1))
    assert follower.replica.ballot == high


def test_promise_reports_open_slots_above_the_chosen_prefix() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    rival = next(n.member for n in cluster.followers() if n is not follower)
    chosen = follower.replica.chosen
    entry = entries.batch(5, [b"open"])
    ballot = leader.replica.ballot
    follower.replica.step(leader.member, Accept(ballot, chosen + 2, (entry,), chosen, 0))
    follower.replica.step(rival, Prepare(Ballot(99, *rival), chosen))
    follower.drain()
    promise = next(m for _, m in follower.flush() if type(m) is Promise)
    assert promise.entries == ((chosen + 2, ballot, entry),)
    assert promise.chosen == chosen


def test_hole_is_not_acknowledged() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    chosen = follower.replica.chosen
    entry = entries.batch(5, [b"x"])
    follower.replica.step(
        leader.member, Accept(leader.replica.ballot, chosen + 2, (entry,), chosen, 0)
    )
    follower.drain()
    answer = next(m for _, m in follower.flush() if type(m) is Accepted)
    assert answer.upto == chosen


def test_chosen_is_not_taken_from_another_ballot() -> None:
    """The leader's chosen prefix says nothing about what was accepted in an older ballot."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    rival = next(n.member for n in cluster.followers() if n is not follower)
    slot = follower.replica.chosen + 1
    old = entries.batch(1, [b"old"])
    follower.replica.step(leader.member, Accept(leader.replica.ballot, slot, (old,), slot - 1, 0))
    high = Ballot(50, rival.ordinal, rival.incarnation)
    follower.replica.step(rival, Accept(high, slot + 1, (), slot, 0))
    follower.drain()
    assert follower.replica.chosen == slot - 1
    new = entries.batch(1, [b"new"])
    follower.replica.step(rival, Accept(high, slot, (new,), slot, 0))
    follower.drain()
    assert commands(follower)[-1] == b"new"


def two_of_five() -> tuple[Cluster, Node, Node, Node]:
    """(cluster, leader, the one that is left to it, the new leader of the other three).

    The leader and its follower hold "ours" in the slot in which the others chose "theirs", and
    have not heard of it.
    """
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    follower, *others = cluster.followers()
    here = [leader.member.ordinal, follower.member.ordinal]
    cluster.drop = lambda sender, to, message: (sender in here) != (to in here)
    leader.replica.propose([b"ours"])
    cluster.settle()
    for node in others:
        node.replica.peer_down(leader.member.ordinal)
    while not (new := [n for n in others if n.replica.is_leader]):
        for node in others:
            node.replica.tick(cluster.wall)
        cluster.settle()
    new[0].replica.propose([b"theirs"])
    cluster.settle()
    assert leader.replica.is_leader
    assert leader.replica.chosen < new[0].replica.chosen
    return cluster, leader, follower, new[0]


def test_leader_that_learns_of_another_choice_leads_no_longer() -> None:
    """Core world 3209207: the answer to a question it had asked as a follower told a deposed
    leader what was chosen; its next accept named that slot as chosen in its own ballot, and
    whoever held its own proposal there applied that."""
    cluster, leader, follower, new = two_of_five()
    first = leader.replica.chosen + 1
    chosen = tuple(new.applied[first - 1 :])
    leader.replica.step(new.member, Learn(first, chosen, 1, new.replica.chosen))
    assert leader.replica.role == "follower"
    cluster.settle()
    for _ in range(4):
        leader.replica.tick(cluster.wall)
        cluster.settle()
    assert leader.replica.chosen == new.replica.chosen
    assert leader.applied == new.applied
    assert follower.replica.chosen < first
    cluster.drop = lambda sender, to, message: False
    cluster.tick(40)
    assert follower.applied[: len(new.applied)] == new.applied
    assert b"ours" not in commands(follower)


def test_leader_that_learns_what_it_proposed_leads_on() -> None:
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    cluster.drop = lambda sender, to, message: type(message) is Accepted
    leader.replica.propose([b"ours"])
    cluster.settle()
    first = leader.replica.chosen + 1
    entry = next(iter(leader.replica._log.chosen_entries(first, 1 << 20)), None)
    assert entry is None, "it is not chosen yet"
    ours = leader.replica._log.entries[first][1]
    other = cluster.followers()[0]
    leader.replica.step(other.member, Learn(first, (ours,), 1, first))
    cluster.settle()
    assert leader.replica.is_leader
    assert commands(leader)[-1] == b"ours"


def test_leader_whose_proposals_a_snapshot_replaces_leads_no_longer() -> None:
    cluster, leader, follower, new = two_of_five()
    leader.machine.restore(new.machine.snapshot())
    leader.replica.install(new.machine.applied)
    assert leader.replica.role == "follower"
    cluster.settle()
    for _ in range(4):
        leader.replica.tick(cluster.wall)
        cluster.settle()
    assert follower.replica.chosen < new.replica.chosen
    cluster.drop = lambda sender, to, message: False
    cluster.tick(40)
    assert b"ours" not in commands(follower)
    assert b"theirs" in commands(follower)


def test_new_leader_keeps_what_may_be_chosen_and_fills_holes() -> None:
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    survivor = cluster.followers()[0]
    slot = survivor.replica.chosen + 1
    kept = entries.batch(1, [b"kept"])
    survivor.replica.step(
        leader.member, Accept(leader.replica.ballot, slot + 1, (kept,), slot - 1, 0)
    )
    cluster.cut = [leader.member.ordinal, *(n.member.ordinal for n in cluster.followers()[3:])]
    new = cluster.elect()
    assert new is not leader
    assert new.applied[slot][0] == entries.BATCH
    assert new.applied[slot - 1][0] == entries.NOOP
    assert new.applied[slot + 1][0] == entries.BARRIER


def test_stamp_never_goes_back() -> None:
    cluster = Cluster(2, 1)
    cluster.wall = 1_000_000
    leader = cluster.elect()
    stamps = []
    for wall in (2_000_000, 5, 3_000_000):
        leader.replica.tick(wall)
        leader.replica.propose([b"x"])
        cluster.settle()
        stamps.append(entries.stamp_of(leader.applied[-1]))
    assert stamps == [2_000_000, 2_000_000, 3_000_000]


def test_leader_without_q1_voters_steps_down() -> None:
    """4+1: q1 = 4, q2 = 2. A leader that reaches only one more must not stay."""
    cluster = Cluster(4, 1)
    leader = cluster.elect()
    reached = cluster.followers()[0].member.ordinal
    cluster.cut = [n.member.ordinal for n in cluster.followers() if n.member.ordinal != reached]
    cluster.tick(40)
    assert not leader.replica.is_leader
    cluster.cut = []
    cluster.elect()


def test_pre_vote_protects_a_serving_leader() -> None:
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    lonely = cluster.followers()[0]
    ballot = leader.replica.ballot
    cluster.cut = [lonely.member.ordinal]
    cluster.tick(200)
    cluster.cut = []
    cluster.tick(100)
    assert leader.replica.is_leader
    assert leader.replica.ballot == ballot


def test_pre_vote_is_refused_to_whoever_needs_a_snapshot() -> None:
    cluster = Cluster(2, 1, retain_slots=0)
    leader = cluster.elect()
    leader.replica.propose([b"x"])
    cluster.tick(10)
    voter = cluster.followers()[0]
    candidate = cluster.followers()[1].member
    voter.replica.truncate(voter.machine.applied)
    voter.replica.peer_down(leader.member.ordinal)
    voter.drain()
    for chosen, granted in ((0, False), (voter.replica.chosen, True)):
        voter.replica.step(candidate, PreVote(Ballot(90, *candidate), chosen))
        reply = next(m for _, m in voter.drain() if type(m) is PreVoteReply)
        assert reply.granted is granted


def test_failover_after_a_connection_loss_is_quick() -> None:
    """kill -9: the transport reports it; the next leader is there well below a second."""
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    cluster.cut = [leader.member.ordinal]
    for node in cluster.nodes:
        if node is not leader:
            node.replica.peer_down(leader.member.ordinal)
    ticks = 0
    while not [n for n in cluster.leaders() if n is not leader] and ticks < 100:
        cluster.tick()
        ticks += 1
    assert ticks <= 20


def test_hurried_peer_learns_the_outcome_at_once_others_later() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    cluster.tick(10)
    hurried, other = cluster.followers()
    leader.replica.propose([b"x"])
    leader.replica.hurry(hurried.member.ordinal)
    cluster.settle()
    assert commands(hurried) == [b"x"]
    assert commands(other) == []
    cluster.tick(10)
    assert commands(other) == [b"x"]


def test_lost_accept_is_sent_again() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    target = cluster.followers()[0]
    cluster.drop = lambda sender, to, message: (
        type(message) is Accept and bool(message.entries) and to == target.member.ordinal
    )
    leader.replica.propose([b"x"])
    cluster.tick(10)
    assert commands(target) == []
    cluster.drop = lambda sender, to, message: False
    cluster.tick(100)
    assert commands(target) == [b"x"]


def test_restart_replays_from_the_log() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    leader.replica.propose([b"x"])
    cluster.tick(10)
    chains = [n.machine.chain for n in cluster.nodes]
    for node in cluster.nodes:
        node.crash(random.Random(2))
    cluster.elect()
    cluster.tick(10)
    assert all(n.machine.applied > 2 for n in cluster.nodes)
    assert len({n.machine.chain for n in cluster.nodes}) == 1
    assert cluster.nodes[0].machine.chain not in chains


def test_ready_is_none_when_idle() -> None:
    cluster = Cluster(2, 1)
    cluster.elect()
    cluster.settle()
    assert all(n.replica.ready() is None for n in cluster.nodes)


def test_contradictory_options_are_named() -> None:
    with pytest.raises(ValueError, match="election_min"):
        check(ReplicaOptions(heartbeat=200))
    check(ReplicaOptions())


def test_acknowledgement_of_another_ballot_is_not_counted() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    slot = leader.replica.chosen + 1
    leader.replica.propose([b"x"])
    leader.drain()
    ballot = leader.replica.ballot
    stale = Accepted(ballot._replace(round=ballot.round - 1), slot, slot - 1, 0, 1000)
    leader.replica.step(follower.member, stale)
    leader.flush()
    leader.drain()
    assert leader.replica.chosen == slot - 1
    leader.replica.step(follower.member, stale._replace(ballot=ballot))
    assert leader.replica.chosen == slot
