"""Catching up, joining, leaving, handing over."""

from __future__ import annotations

import random

from unit.core.cluster import Cluster, Node, commands

from distkv.core.configuration import Configuration
from distkv.core.messages import (
    Accept,
    Accepted,
    Learn,
    LearnRequest,
    Prepare,
    PreVote,
    PreVoteReply,
    Promise,
    Refuse,
    Transfer,
)
from distkv.core.options import ReplicaOptions
from distkv.ids import Ballot, Member
from distkv.simulation.core_machine import pack_configuration
from distkv.storage.base import Table


def test_straggler_catches_up_by_log_then_only_by_snapshot() -> None:
    cluster = Cluster(2, 1, retain_slots=0)
    leader = cluster.elect()
    behind = cluster.followers()[0]
    cluster.cut = [behind.member.ordinal]
    for i in range(5):
        leader.replica.propose([b"%d" % i])
        cluster.tick(2)
    cluster.cut = []
    cluster.tick(60)
    assert commands(behind) == [b"%d" % i for i in range(5)]
    cluster.cut = [behind.member.ordinal]
    leader.replica.propose([b"late"])
    cluster.tick(10)
    for node in cluster.nodes:
        node.replica.truncate(node.machine.applied)
    cluster.cut = []
    cluster.tick(80)
    source = behind.replica.needs_snapshot
    assert source is not None
    behind.machine.restore(cluster.nodes[source].machine.snapshot())
    behind.replica.install(behind.machine.applied)
    assert behind.replica.needs_snapshot is None
    leader = cluster.elect()
    leader.replica.propose([b"after"])
    cluster.tick(60)
    assert commands(behind)[-1] == b"after"
    behind.crash(random.Random(1))
    assert behind.replica.chosen >= cluster.nodes[source].machine.applied - 1


def test_truncate_keeps_a_tail_of_slots_and_bytes() -> None:
    cluster = Cluster(1, 0, retain_slots=3)
    node = cluster.elect()
    for i in range(10):
        node.replica.propose([b"%d" % i])
        cluster.settle()
    node.replica.truncate(node.machine.applied)
    node.drain()
    assert node.replica.chosen - node.replica.first + 1 == 3
    assert node.engine.count(Table.LOG) == 3
    node.replica.step(Member(5, 5), LearnRequest(1))
    learn = next(m for _, m in node.drain() if type(m) is Learn)
    assert learn == Learn(1, (), node.replica.first, node.replica.chosen)


def test_change_stalls_and_goes_through() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    leaving = cluster.followers()[0]
    joiner = Node(Member(leaving.member.ordinal, 999), cluster.configuration, cluster.options)
    cluster.nodes.remove(leaving)
    cluster.nodes.append(joiner)
    leader.replica.add_learner(joiner.member)
    cluster.tick(30)
    assert joiner.replica.role == "learner"
    members = list(cluster.configuration.members)
    members[joiner.member.ordinal] = joiner.member
    new = Configuration(2, 2, 1, tuple(members))
    assert leader.replica.propose_configuration(pack_configuration(new))
    assert not leader.replica.propose_configuration(pack_configuration(new))
    leader.replica.propose([b"after the change"])
    leader.drain()
    stalled = leader.replica.status()
    assert (stalled.window, stalled.queued, stalled.changing) == (1, 1, True)
    cluster.tick(60)
    assert joiner.replica.may_vote
    assert commands(joiner)[-1] == b"after the change"
    # The newcomer's vote counts: the third member is not needed any more.
    third = next(n for n in cluster.nodes if n not in (leader, joiner))
    cluster.cut = [third.member.ordinal]
    cluster.tick(5)
    leader.replica.propose([b"with the newcomer"])
    cluster.tick(20)
    assert commands(joiner)[-1] == b"with the newcomer"


def test_a_voter_learns_from_the_pre_vote_of_a_member_it_does_not_know_yet() -> None:
    """Found by core world 1089: two of three were there, and never elected anybody."""
    cluster = Cluster(1, 1)
    leader = cluster.elect()
    unaware = cluster.followers()[0]
    joiner = Node(Member(2, 777), cluster.configuration, cluster.options)
    cluster.nodes.append(joiner)
    leader.replica.add_learner(joiner.member)
    cluster.tick(30)
    cluster.cut = [unaware.member.ordinal]
    new = Configuration(2, 2, 1, (*cluster.configuration.members, joiner.member))
    assert leader.replica.propose_configuration(pack_configuration(new))
    cluster.tick(20)
    assert joiner.machine.configuration.epoch == 2
    assert unaware.machine.configuration.epoch == 1
    cluster.nodes.remove(leader)
    cluster.cut = []
    assert cluster.elect() in (unaware, joiner)


def test_wiped_node_with_a_new_identity_never_votes() -> None:
    """Three nodes, one wiped, one cut off: two of the old three voters are not there."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    wiped = cluster.followers()[0]
    amnesiac = Node(Member(wiped.member.ordinal, 777), cluster.configuration, cluster.options)
    cluster.nodes[cluster.nodes.index(wiped)] = amnesiac
    cluster.cut = [leader.member.ordinal]
    cluster.tick(300)
    assert cluster.leaders() == []
    amnesiac.replica.step(
        leader.member, Prepare(Ballot(500, *leader.member), amnesiac.replica.chosen)
    )
    amnesiac.drain()
    assert not any(type(m) is Promise for _, m in amnesiac.flush())


def test_learners_acknowledge_only_what_is_chosen_and_do_not_confirm_reads() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    learner = Node(Member(3, 999), cluster.configuration, cluster.options)
    ballot = leader.replica.ballot
    learner.drain()
    learner.flush()
    entry = leader.applied[0]
    learner.replica.step(leader.member, Accept(ballot, 1, (entry, entry), 1, 4))
    answers = [m for _, m in learner.drain() + learner.flush() if type(m) is Accepted]
    assert answers
    assert all(a.upto <= 1 and a.probe == 0 for a in answers)
    assert answers[-1].upto == 1


def test_learner_durable_prefix_moves_with_the_chosen_one() -> None:
    """Seed 1154 of the simulator: entries were durable before they were known as chosen, the
    knowledge came with a heartbeat and was never flushed, so the joiner never caught up."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    learner = Node(Member(3, 999), cluster.configuration, cluster.options)
    ballot, entry = leader.replica.ballot, leader.applied[0]
    learner.replica.step(leader.member, Accept(ballot, 1, (entry, entry), 0, 0))
    learner.drain()
    learner.flush()
    learner.replica.step(leader.member, Accept(ballot, 3, (), 2, 0))
    answer = [m for _, m in learner.drain() if type(m) is Accepted][-1]
    assert answer.upto == 2


def test_peer_that_lost_durable_state_is_not_counted_and_is_reported() -> None:
    """A volume restored from a snapshot: another start of the same incarnation, with fewer
    flushes than were told before. It may have flushed as many again before anybody hears it."""
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    for i in range(5):
        leader.replica.propose([b"%d" % i])
        cluster.settle()
    restored = cluster.followers()[0]
    assert leader.replica.records.greets(restored.member, 1, restored.replica.flushes) == 0
    told = leader.replica.records.records[restored.member].durable
    assert told > 3
    assert leader.replica.records.greets(restored.member, 2, 3) == told
    ballot, chosen = leader.replica.ballot, leader.replica.chosen
    leader.replica.step(restored.member, Accepted(ballot, chosen + 1, chosen, 0, told + 9))
    cluster.tick(100)
    status = leader.replica.status()
    assert status.suspicions == (restored.member,)
    peer = next(p for p in status.peers if p.member == restored.member)
    assert peer.match < leader.replica.chosen + 1
    # For good: neither another start of its, nor one of our own, makes it whole again.
    assert leader.replica.records.greets(restored.member, 3, told + 20) == told
    leader.crash(random.Random(1))
    assert leader.replica.status().suspicions == (restored.member,)


def test_who_lost_durable_state_gets_no_promise_and_no_vote() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    voter, restored = cluster.followers()
    cluster.cut = [0, 1, 2]
    voter.replica.records.greets(restored.member, 1, 0)
    voter.replica.records.heard(restored.member, 50)
    voter.replica.records.greets(restored.member, 2, 49)
    round_ = voter.replica.ballot.round + 5
    voter.replica.step(restored.member, Prepare(Ballot(round_, *restored.member), 0))
    answers = [m for _, m in voter.drain() + voter.flush()]
    assert [type(m) for m in answers] == [Refuse]
    cluster.tick(300)  # nobody hears a leader any more
    for candidate, granted in ((restored.member, False), (leader.member, True)):
        voter.replica.step(candidate, PreVote(Ballot(round_ + 9, *candidate), 99))
        (answer,) = (m for _, m in voter.drain() if type(m) is PreVoteReply)
        assert answer.granted == granted


def test_a_sound_restart_is_no_regression() -> None:
    """What it started with is at least what it told, whatever it told since."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    records = leader.replica.records
    for start in range(1, 6):
        assert records.greets(follower.member, start, follower.replica.flushes) == 0
        for _ in range(3):
            leader.replica.propose([b"something"])
            cluster.settle()
        # The same process again, over another connection.
        assert records.greets(follower.member, start, follower.replica.flushes) == 0
        follower.crash(random.Random(start))
        leader.replica.peer_up(follower.member)
        cluster.tick(20)  # what it flushes before its greeting is here is no measure for it
    assert leader.replica.status().suspicions == ()


def test_a_count_told_before_its_process_greeted_is_no_measure_for_its_start() -> None:
    """As after this node took its seat while connections were there already."""
    leader = Cluster(2, 1).elect()
    records = leader.replica.records
    peer = Member(7, 107)
    assert records.counts(peer, 50)
    assert records.greets(peer, 1, 3) == 0
    assert records.greets(peer, 2, 3) == 50


def test_another_directory_at_the_seat_does_not_make_the_first_forgotten() -> None:
    """Whose disk was lost may be restored from a snapshot while its successor is waiting."""
    leader = Cluster(2, 1).elect()
    records = leader.replica.records
    old = Member(7, 107)
    records.greets(old, 1, 0)
    records.heard(old, 60)
    for incarnation in range(1, 8):
        records.greets(Member(7, incarnation), 1, 0)
    assert records.greets(old, 2, 59) == 60
    for incarnation in range(8, 30):
        records.greets(Member(7, incarnation), 1, 0)
    assert len([m for m in records.records if m.ordinal == 7]) <= 8


def test_who_has_not_answered_in_this_tenure_is_silent() -> None:
    """A tenure that has just begun: a voter may be dead, and its connection count as up."""
    cluster = Cluster(3, 2)
    old = cluster.elect()
    dead = cluster.followers()[0]
    cluster.cut = [old.member.ordinal, dead.member.ordinal]
    for _ in range(500):
        cluster.tick()
        if cluster.leaders():
            break
    (leader,) = cluster.leaders()
    silent = {peer.member: peer.silent for peer in leader.replica.status().peers}
    moment = 2 * cluster.options.heartbeat
    assert silent[dead.member] > moment < silent[old.member]
    assert sum(ms <= moment for ms in silent.values()) == 2
    # And so is one whose connection is new, until it answers over that.
    peer = next(n for n in cluster.followers() if n is not dead and n is not old)
    leader.replica.peer_up(peer.member)
    assert {p.member: p.silent for p in leader.replica.status().peers}[peer.member] > moment


def test_strangers_at_a_seat_do_not_make_its_voter_forgotten() -> None:
    """A pod whose volume cannot be mounted may come up with ever new directories."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    restored = cluster.followers()[0].member
    records = leader.replica.records
    records.greets(restored, 1, 0)
    records.heard(restored, 60)
    assert records.greets(restored, 2, 50) >= 60
    for incarnation in range(1, 30):
        records.greets(Member(restored.ordinal, incarnation), 1, 0)
    assert not records.trusted(restored)
    assert len([m for m in records.records if m.ordinal == restored.ordinal]) <= 9


def test_messages_that_come_late_do_not_make_their_sender_suspect() -> None:
    """Core world 1065250: two acknowledgements came half a second late, with nothing after them
    because the network was cut; their sender was never counted again."""
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    for i in range(5):
        leader.replica.propose([b"%d" % i])
        cluster.settle()
    slow = cluster.followers()[0]
    cluster.cut = [slow.member.ordinal]
    for _ in range(70):
        leader.replica.step(slow.member, Accepted(leader.replica.ballot, 1, 1, 0, 1))
        cluster.tick()
    assert leader.replica.status().suspicions == ()
    cluster.cut = []
    leader.replica.propose([b"later"])
    cluster.tick(70)
    peer = next(p for p in leader.replica.status().peers if p.member == slow.member)
    assert peer.match == leader.replica.chosen


def test_a_learner_that_promised_more_is_fed_under_a_higher_ballot() -> None:
    """Core world 1045118: voters of an older layout had promised another candidate. The leader
    of the newest went on below that, and they could never join again."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    other = cluster.followers()[0]
    learner = Node(Member(3, 999), cluster.configuration, cluster.options)
    learner.replica.step(other.member, Accept(Ballot(9, *other.member), 0, (), 0, 0))
    learner.drain()
    learner.flush()
    cluster.nodes.append(learner)
    for node in cluster.nodes:
        node.replica.add_learner(learner.member)
    cluster.tick(100)
    leader = cluster.elect()
    assert leader.replica.ballot.round > 9
    peer = next(p for p in leader.replica.status().peers if p.member == learner.member)
    assert peer.match == leader.replica.chosen


def test_the_refusal_of_a_stranger_changes_nothing() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    ballot = leader.replica.ballot
    leader.replica.step(Member(3, 999), Refuse(Ballot(9, 1, 101)))
    cluster.tick(100)
    assert leader.replica.is_leader
    assert leader.replica.ballot == ballot


def test_transfer_hands_over_without_waiting_for_a_timeout() -> None:
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    target = cluster.followers()[0]
    cluster.tick(10)
    leader.replica.propose([b"in flight"])
    assert leader.replica.transfer(target.member.ordinal)
    assert not leader.replica.propose([b"refused meanwhile"])
    cluster.settle()
    assert target.replica.is_leader
    assert commands(target) == [b"in flight"]


def test_transfer_to_a_dead_peer_is_given_up() -> None:
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    target = cluster.followers()[0]
    cluster.cut = [target.member.ordinal]
    assert leader.replica.transfer(target.member.ordinal)
    cluster.tick(70)
    assert leader.replica.is_leader
    assert leader.replica.propose([b"on we go"])


def test_transfer_of_a_stale_leader_is_ignored() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    follower.replica.step(leader.member, Transfer(Ballot(0, *leader.member)))
    assert follower.replica.role == "follower"


def test_learned_entries_and_the_hint_that_they_are_chosen_survive_together() -> None:
    cluster = Cluster(2, 1, apply_slots=1)
    leader = cluster.elect()
    for i in range(3):
        leader.replica.propose([b"%d" % i])
        cluster.settle()
    behind = Node(leader.member, cluster.configuration, cluster.options)
    behind.drain()
    found = tuple(leader.applied)
    behind.replica.step(cluster.nodes[0].member, Learn(1, found, 1, len(found)))
    ready = behind.replica.ready()
    assert ready is not None
    assert ready.must_flush
    behind.engine.write(ready.writes + behind.machine.drain_writes())
    behind.engine.flush()
    behind.crash(random.Random(1))
    assert behind.machine.applied < behind.replica.chosen == len(found)
    behind.drain()
    assert behind.applied == leader.applied[1:]


def asked(node: Node, ticks: int) -> list[int]:
    """Ordinals that the node asks for entries within so many ticks, none of which answers."""
    found: list[int] = []
    for tick in range(ticks):
        node.replica.tick(5 * tick)
        found += [ordinal for ordinal, message in node.drain() if type(message) is LearnRequest]
        node.flush()
    return found


def test_a_newcomer_goes_on_asking_who_knows_more_though_no_founder_is_left() -> None:
    """Core world 1003309: it knew the founder alone, whose disk was lost, and asked nobody else
    once its first request to the leader was lost."""
    founders = Configuration(1, 1, 0, (Member(0, 100),))
    newcomer = Node(Member(4, 777), founders, ReplicaOptions(tick=5))
    newcomer.replica.tick(0)
    leader = Member(1, 101)
    newcomer.replica.step(leader, Accept(Ballot(3, *leader), 0, (), 10, 0))
    ordinals = asked(newcomer, 400)
    assert set(ordinals) == {0, 1}
    assert ordinals.count(1) > 2


def test_who_asks_for_entries_that_we_lack_is_asked_for_those_before() -> None:
    """Core world 1004275: the leader sat at the newcomer's own ordinal, and nobody else spoke."""
    founders = Configuration(1, 1, 0, (Member(0, 100),))
    newcomer = Node(Member(0, 777), founders, ReplicaOptions(tick=5))
    newcomer.replica.tick(0)
    newcomer.replica.step(Member(1, 101), LearnRequest(40))
    assert 1 in asked(newcomer, 400)


def test_a_newcomer_at_its_leaders_ordinal_asks_whom_it_met() -> None:
    """Core world 1027757: the member that it was to replace still led, at its own ordinal, and
    was the only founder."""
    founders = Configuration(1, 1, 0, (Member(0, 100),))
    newcomer = Node(Member(0, 777), founders, ReplicaOptions(tick=5))
    newcomer.replica.tick(0)
    newcomer.replica.peer_up(Member(2, 102))
    newcomer.replica.step(Member(0, 100), Accept(Ballot(3, 0, 100), 0, (), 10, 0))
    assert set(asked(newcomer, 400)) == {2}
