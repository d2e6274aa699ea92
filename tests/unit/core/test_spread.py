"""Who is sent entries at once: as many as a quorum needs, all others when that is late."""

from __future__ import annotations

from unit.core.cluster import Cluster, Node, commands

from distkv.core.messages import Accept, Accepted

OPTIONS = {"tick": 5, "hedge_min": 10, "lazy": 25}


def receivers(leader: Node) -> list[int]:
    """Ordinals that are sent entries, or a probe, now."""
    return sorted(o for o, m in leader.drain() if type(m) is Accept and (m.entries or m.probe))


def propose(cluster: Cluster, leader: Node, command: bytes) -> list[int]:
    """Propose, flush and deliver everything; who was sent the entry before any answer."""
    assert leader.replica.propose([command])
    sent = leader.drain()
    first = sorted(o for o, m in sent if type(m) is Accept and m.entries)
    for ordinal, message in sent:
        cluster.deliver(leader, ordinal, message)
    cluster.settle()
    return first


def test_as_many_as_a_quorum_needs_and_the_others_a_little_later() -> None:
    cluster = Cluster(3, 2, **OPTIONS)
    leader = cluster.elect()
    before = leader.replica.chosen
    first = propose(cluster, leader, b"one")
    assert len(first) == 2
    assert leader.replica.chosen == before + 1
    assert propose(cluster, leader, b"two") == first
    others = [n for n in cluster.followers() if n.member.ordinal not in first]
    assert all(commands(node) == [] for node in others)
    messages = 0

    def count(sender: int, to: int, message: object) -> bool:
        nonlocal messages
        messages += type(message) is Accept and len(message.entries) == 2
        return False

    cluster.drop = count
    cluster.tick(OPTIONS["lazy"] // OPTIONS["tick"] + 1)
    assert messages == len(others) == 2
    cluster.tick(20)
    assert all(commands(node) == [b"one", b"two"] for node in cluster.nodes)


def test_a_frozen_member_costs_one_hedge_once() -> None:
    cluster = Cluster(3, 2, **OPTIONS)
    leader = cluster.elect()
    frozen = propose(cluster, leader, b"warm")[0]
    cluster.cut = [frozen]
    before = leader.replica.chosen
    assert frozen in propose(cluster, leader, b"late")
    assert leader.replica.chosen == before
    cluster.tick(OPTIONS["hedge_min"] // OPTIONS["tick"] + 1)
    assert leader.replica.chosen == before + 1
    for i in range(3):
        assert frozen not in propose(cluster, leader, b"%d" % i)
        assert leader.replica.chosen == before + 2 + i


def test_a_late_disk_of_the_leader_is_made_up_for_by_others() -> None:
    cluster = Cluster(3, 2, **OPTIONS)
    leader = cluster.elect()
    before = leader.replica.chosen
    leader.replica.propose([b"x"])
    for _ in range(4):  # the leader's flush does not end
        for node in cluster.nodes:
            node.replica.tick(cluster.wall)
        for node in cluster.nodes:
            sent = node.drain() + (node.flush() if node is not leader else [])
            for ordinal, message in sent:
                cluster.deliver(node, ordinal, message)
    assert leader.replica.chosen == before + 1
    assert leader.unflushed


def test_who_waits_for_the_outcome_is_sent_the_entry_and_the_news_at_once() -> None:
    cluster = Cluster(3, 2, **OPTIONS)
    leader = cluster.elect()
    first = propose(cluster, leader, b"one")
    waiting = next(n for n in cluster.followers() if n.member.ordinal not in first)
    leader.replica.propose([b"two"])
    leader.replica.hurry(waiting.member.ordinal)
    cluster.settle()
    assert commands(waiting) == [b"one", b"two"]
    # From the next choice on it is one of those counted on.
    cluster.tick(60)
    assert waiting.member.ordinal in propose(cluster, leader, b"three")


def test_reads_ask_a_quorum_and_everybody_when_it_is_late() -> None:
    cluster = Cluster(3, 2, **OPTIONS)
    leader = cluster.elect()
    leader.replica.read(1)
    asked = receivers(leader)
    assert len(asked) == 2
    cluster.tick(OPTIONS["hedge_min"] // OPTIONS["tick"])
    cluster.settle()
    assert leader.reads == [(1, leader.replica.chosen)]


def test_a_reader_elsewhere_is_given_what_it_must_apply() -> None:
    cluster = Cluster(3, 2, **OPTIONS)
    leader = cluster.elect()
    first = propose(cluster, leader, b"one")
    reader = next(n for n in cluster.followers() if n.member.ordinal not in first)
    reader.replica.read(7)
    cluster.settle()
    assert reader.reads == [(7, leader.replica.chosen)]
    assert commands(reader) == [b"one"]


def test_a_lost_connection_of_a_member_makes_others_step_in_at_once() -> None:
    cluster = Cluster(3, 2, **OPTIONS)
    leader = cluster.elect()
    gone = propose(cluster, leader, b"warm")[0]
    cluster.cut = [gone]
    before = leader.replica.chosen
    propose(cluster, leader, b"late")
    assert leader.replica.chosen == before
    leader.replica.peer_down(gone)
    cluster.settle()
    assert leader.replica.chosen == before + 1


def test_news_of_what_is_chosen_are_not_answered_one_by_one() -> None:
    cluster = Cluster(2, 1, **OPTIONS)
    leader = cluster.elect()
    follower = cluster.followers()[0]
    answers = 0

    def count(sender: int, to: int, message: object) -> bool:
        nonlocal answers
        answers += sender == follower.member.ordinal and type(message) is Accepted
        return False

    cluster.drop = count
    for i in range(5):
        leader.replica.propose([b"%d" % i])
        leader.replica.hurry(follower.member.ordinal)
        cluster.settle()
    assert commands(follower) == [b"%d" % i for i in range(5)]
    assert answers == 5  # each entry, and none of the news
