"""A node that applies nothing, because its state is being replaced, leaves leading to others."""

from __future__ import annotations

from unit.core.cluster import Cluster

from distkv.core.messages import Transfer


def test_held_voters_do_not_stand() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    first, second = cluster.followers()
    first.replica.held = second.replica.held = True
    cluster.cut = [leader.member.ordinal]
    cluster.tick(300)
    for node in (first, second):
        assert node.replica.leader is None, "it hears nobody"
        assert node.replica.role == "follower"
        assert node.replica.elections == 0
    second.replica.held = False
    assert cluster.elect() is second, "the other one's vote counts"


def test_held_voter_does_not_take_over() -> None:
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    held = cluster.followers()[0]
    held.replica.held = True
    held.replica.step(leader.member, Transfer(leader.replica.ballot))
    cluster.settle()
    assert leader.replica.is_leader
    held.replica.held = False
    held.replica.step(leader.member, Transfer(leader.replica.ballot))
    cluster.settle()
    assert held.replica.is_leader


def test_leader_that_is_held_before_its_barrier_is_applied_resigns() -> None:
    """It would choose what clients write, and serve no reads, until the state is there."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    elected = cluster.followers()[0]
    elected.replica.step(leader.member, Transfer(leader.replica.ballot))
    cluster.drop = lambda sender, to, message: elected.replica.held
    while elected.replica.role != "leader":
        for ordinal, message in elected.drain() + elected.flush():
            cluster.deliver(elected, ordinal, message)
        for node in cluster.nodes:
            if node is not elected:
                for ordinal, message in node.drain() + node.flush():
                    cluster.deliver(node, ordinal, message)
    elected.replica.held = True
    cluster.drop = lambda sender, to, message: False
    assert cluster.elect() is not elected


def test_leader_that_is_held_later_serves_on() -> None:
    """Others apply, and read; so they lose nothing by it."""
    cluster = Cluster(2, 1)
    leader = cluster.elect()
    leader.replica.held = True
    leader.replica.propose([b"x"])
    cluster.tick(200)
    assert leader.replica.is_leader
    follower = cluster.followers()[0]
    follower.replica.read(1)
    cluster.tick(40)
    assert follower.reads == [(1, leader.replica.chosen)]
    assert follower.machine.applied == leader.replica.chosen > leader.machine.applied
