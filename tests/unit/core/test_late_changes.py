"""Changes of the quorums that a leader hears of late, or that it cannot apply yet."""

from __future__ import annotations

from unit.core.cluster import Cluster, Node, commands

from distkv.core.configuration import Configuration
from distkv.core.messages import Learn, ReadReply, ReadRequest
from distkv.simulation.core_machine import pack_configuration


def only(cluster: Cluster, *ordinals: int) -> None:
    """Nobody else sends or receives."""
    cluster.drop = lambda sender, to, message: not {sender, to} <= {*ordinals}


def lead(cluster: Cluster, ordinal: int, *others: int) -> Node:
    """Elect a node by the votes of these; whoever leads already does not hear of it."""
    only(cluster, ordinal, *others)
    node = cluster.nodes[ordinal]
    for voter in (ordinal, *others):
        replica = cluster.nodes[voter].replica
        if replica.leader is not None:
            replica.peer_down(replica.leader.ordinal)
    for _ in range(200):
        if not node.replica.is_leader:
            node.replica.tick(cluster.wall)
            cluster.settle()
    assert node.replica.is_leader
    return node


def change(leader: Node, cluster: Cluster, k: int, m: int) -> Configuration:
    """Propose that the first k + m nodes go on, and have it chosen by whoever is reached."""
    new = Configuration(2, k, m, cluster.configuration.members[: k + m])
    assert leader.replica.propose_configuration(pack_configuration(new))
    cluster.settle()
    assert leader.machine.configuration == new
    return new


def tell(knowing: Node, node: Node) -> None:
    """An answer to a question that `node` asked long ago."""
    first = node.replica.chosen + 1
    entries = tuple(knowing.applied[first - 1 :])
    node.replica.step(knowing.member, Learn(first, entries, 1, knowing.replica.chosen))
    node.drain()
    node.flush()


def test_leaders_that_learn_of_a_change_ask_the_new_voters_before_they_propose() -> None:
    """Two deposed leaders hear at the same time which members a third had chosen. None of the
    new ones had promised the second, so it did not know what they chose under the first."""
    cluster = Cluster(4, 3)
    first = lead(cluster, 0, 2, 3, 4)
    second = lead(cluster, 1, 4, 5, 6)
    third = lead(cluster, 3, 4, 5, 6)
    change(third, cluster, 2, 1)
    for node in cluster.nodes[:3]:
        tell(third, node)
    assert first.replica.is_leader
    assert second.replica.role == "leader"
    only(cluster, 0, 2)
    assert first.replica.propose([b"chosen"])
    cluster.settle()
    assert commands(first) == [b"chosen"]
    only(cluster, 1, 2)
    second.replica.propose([b"next"])
    for _ in range(40):
        second.replica.tick(cluster.wall)
        cluster.settle()
    assert commands(second)[:1] == [b"chosen"]
    assert second.applied[: len(first.applied)] == first.applied


def test_reads_wait_until_the_new_voters_promised() -> None:
    """A deposed leader hears which members its successor had chosen, and that alone it is a
    quorum of them: so is the successor, who must first find what the other may have chosen."""
    cluster = Cluster(2, 1)
    deposed = lead(cluster, 1, 0)
    leader = lead(cluster, 0, 2)
    new = change(leader, cluster, 1, 1)
    assert new.phase_two == 1
    only(cluster)
    tell(leader, deposed)
    assert deposed.replica.is_leader
    deposed.replica.propose([b"acknowledged"])
    cluster.settle()
    assert commands(deposed) == [b"acknowledged"]
    leader.replica.read(1)
    cluster.settle()
    assert leader.reads == [], "its index does not reach what was acknowledged"
    only(cluster, 0, 1)
    cluster.tick(20)
    assert leader.reads == [(1, leader.replica.chosen)]
    assert commands(leader) == [b"acknowledged"]


def test_leader_that_cannot_apply_its_change_serves_no_reads() -> None:
    """Damaged rows keep it from applying; the new voters elect another without the old ones,
    and these still confirm what they are asked."""
    cluster = Cluster(3, 3)
    leader = lead(cluster, 0, 1, 2, 3, 4)
    leader.replica.held = True
    only(cluster, 0, 1, 2)
    new = Configuration(2, 2, 1, cluster.configuration.members[:3])
    assert leader.replica.propose_configuration(pack_configuration(new))
    cluster.settle()
    for _ in range(6):
        leader.replica.tick(cluster.wall)
        cluster.settle()
    assert leader.machine.configuration != new
    successor = lead(cluster, 1, 2)
    assert successor.machine.configuration == new
    successor.replica.propose([b"acknowledged"])
    for _ in range(10):  # the other voter is asked once the first is late
        successor.replica.tick(cluster.wall)
        cluster.settle()
    assert commands(successor) == [b"acknowledged"]
    only(cluster, 0, 3, 4)
    leader.replica.read(1)
    leader.replica.step(cluster.nodes[3].member, ReadRequest(7))
    answers: list[ReadReply] = []
    for _ in range(12):
        leader.replica.tick(cluster.wall)
        for node in (leader, *cluster.nodes[3:5]):
            for ordinal, message in node.drain() + node.flush():
                if type(message) is ReadReply:
                    answers.append(message)
                cluster.deliver(node, ordinal, message)
    assert leader.replica.is_leader
    assert leader.reads == []
    assert answers == []
