"""Read index: what must be confirmed, and that nobody waits for ever."""

from __future__ import annotations

from unit.core.cluster import Cluster

from distkv.core import entries
from distkv.core.configuration import Configuration
from distkv.core.messages import (
    Accept,
    Accepted,
    Message,
    ReadReply,
    ReadRequest,
)
from distkv.simulation.core_machine import pack_configuration


def test_reads_on_leader_and_follower() -> None:
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    leader.replica.propose([b"x"])
    cluster.settle()
    leader.replica.read(1)
    follower.replica.read(2)
    cluster.settle()
    assert leader.reads == [(1, leader.replica.chosen)]
    assert follower.reads == [(2, leader.replica.chosen)]


def test_read_needs_q2_confirmations_that_came_after_it() -> None:
    cluster = Cluster(3, 2)
    leader = cluster.elect()
    first, second = cluster.followers()[:2]
    leader.replica.read(1)
    probe = next(m for _, m in leader.drain() if type(m) is Accept).probe
    answer = Accepted(leader.replica.ballot, 0, 0, probe, 100)
    leader.replica.step(first.member, answer)
    leader.replica.step(second.member, answer._replace(probe=probe - 1))
    leader.drain()
    assert leader.reads == []
    leader.replica.step(second.member, answer)
    leader.drain()
    assert leader.reads == [(1, leader.replica.chosen)]


def test_probe_is_answered_before_the_flush() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    slot = follower.replica.chosen + 1
    accept = Accept(leader.replica.ballot, slot, (entries.batch(1, [b"x"]),), slot - 1, 7)
    follower.replica.step(leader.member, accept)
    answer = next(m for _, m in follower.drain() if type(m) is Accepted)
    assert (answer.probe, answer.upto) == (7, slot - 1)


def test_reads_are_never_left_unanswered() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    cluster.drop = lambda sender, to, message: type(message) in (ReadRequest, ReadReply)
    follower.replica.read(1)
    cluster.tick(60)
    assert follower.reads == [(1, -1)]
    cluster.drop = lambda sender, to, message: False
    cluster.cut = [n.member.ordinal for n in cluster.followers()]
    leader.replica.read(2)
    cluster.tick(60)
    assert leader.reads == [(2, -1)]
    leader.replica.read(3)
    leader.drain()
    assert leader.reads[-1] == (3, -1)


def test_waiting_reads_are_bounded() -> None:
    cluster = Cluster(2, 1, reads_waiting=2, read_rounds=1)
    leader = cluster.elect()
    leader.replica.read(0)
    leader.drain()
    for token in (1, 2, 3):
        leader.replica.read(token)
    leader.drain()
    assert leader.reads == [(3, -1)]


def test_read_that_new_quorums_confirm_is_not_older_than_the_change_itself() -> None:
    """Core world 3320791: a leader that had not heard of its successor learned late that its
    change of members was chosen. Alone it is a quorum of the new ones; a read from before had
    the index below the change, which the successor had told others of."""
    cluster = Cluster(1, 2)
    cluster.cut = [2]
    leader = cluster.elect()
    cluster.cut = []
    cluster.tick(20)
    stays, leaves = cluster.followers()
    late: list[Accepted] = []

    def drop(sender: int, to: int, message: Message) -> bool:
        if to == leader.member.ordinal and type(message) is Accepted:
            late.append(message)
        return leader.member.ordinal in (sender, to) and sent

    sent = False
    cluster.drop = drop
    two = cluster.configuration.members[:2]
    assert leaves.member not in two
    new = Configuration(2, 2, 0, two)
    assert leader.replica.propose_configuration(pack_configuration(new))
    for ordinal, message in leader.drain():
        cluster.deliver(leader, ordinal, message)
    leader.flush()
    sent = True
    late.clear()
    cluster.settle()
    change = leader.replica.chosen + 1
    answers = [message for message in late if message.upto == change]
    for node in (stays, leaves):
        node.replica.peer_down(leader.member.ordinal)
    for _ in range(200):
        for node in (stays, leaves):
            node.replica.tick(cluster.wall)
        cluster.settle()
    assert leaves.replica.chosen == change
    assert leader.replica.is_leader
    leader.replica.read(1)
    leader.drain()
    assert leader.reads == []
    leader.replica.step(stays.member, answers[0])
    leader.drain()
    assert leader.machine.configuration == new
    leader.replica.read(2)
    leader.drain()
    assert leader.reads == [(1, change), (2, change)]
