"""What no sound replica does is seen, each kind by the message itself."""

from __future__ import annotations

import pytest
from unit.core.cluster import Cluster, Node

from distkv.core import entries
from distkv.core.messages import Accept, Accepted, Learn, Message, Prepare
from distkv.ids import Ballot, Member


class Scene:
    """A leader with a few chosen slots, and a follower that is told things."""

    def __init__(self) -> None:
        self.cluster = Cluster(2, 1)
        self.leader = self.cluster.elect()
        for number in range(3):
            self.leader.replica.propose([b"%d" % number])
            self.cluster.settle()
        self.follower = self.cluster.followers()[0]
        self.ballot = self.leader.replica.ballot
        self.chosen = self.leader.replica.chosen

    def kinds(self, node: Node) -> list[tuple[Member, str]]:
        return [(peer, kind) for peer, kind, _ in node.replica.witness.found]

    def tell(self, message: Message) -> list[tuple[Member, str]]:
        """From the leader to the follower; what the follower noticed."""
        self.follower.replica.step(self.leader.member, message)
        self.cluster.settle()
        return self.kinds(self.follower)


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    assert not any(made.kinds(node) for node in made.cluster.nodes)
    return made


def test_two_entries_for_one_slot_and_ballot(scene: Scene) -> None:
    slot = scene.chosen + 1
    one, other = entries.batch(1, [b"one"]), entries.batch(1, [b"other"])
    assert scene.tell(Accept(scene.ballot, slot, (one,), scene.chosen, 0)) == []
    assert scene.tell(Accept(scene.ballot, slot, (one,), scene.chosen, 0)) == []
    found = scene.tell(Accept(scene.ballot, slot, (other,), scene.chosen, 0))
    assert found == [(scene.leader.member, "equivocation")]


def test_another_entry_than_the_chosen_one(scene: Scene) -> None:
    right = tuple(scene.leader.applied[:2])
    assert scene.tell(Learn(1, right, 1, scene.chosen)) == []
    wrong = (right[0], entries.batch(1, [b"never chosen"]))
    found = scene.tell(Learn(1, wrong, 1, scene.chosen))
    assert found == [(scene.leader.member, "equivocation")]


@pytest.mark.parametrize("kind", [Prepare, Accept])
def test_a_lower_ballot_than_before(scene: Scene, kind: type) -> None:
    """It led under the present ballot, so it can never use a lower one again."""
    lower = scene.ballot._replace(round=scene.ballot.round - 1)
    entry = entries.batch(1, [b"one"])
    message = Prepare(lower, 0) if kind is Prepare else Accept(lower, 1, (entry,), 0, 0)
    assert scene.tell(message) == [(scene.leader.member, "ballot_regression")]


def test_a_late_beat_of_a_former_ballot_is_no_crime(scene: Scene) -> None:
    """Beats come in no order (seed 6000320 of the full worlds)."""
    lower = scene.ballot._replace(round=scene.ballot.round - 1)
    assert scene.tell(Accept(lower, scene.chosen + 1, (), scene.chosen, 0)) == []


def test_anothers_ballot(scene: Scene) -> None:
    other = next(n for n in scene.cluster.nodes if n not in (scene.leader, scene.follower))
    foreign = Ballot(scene.ballot.round + 1, *other.member)
    assert scene.tell(Prepare(foreign, 0)) == [(scene.leader.member, "foreign_ballot")]


@pytest.mark.parametrize("claim", ["slot", "probe"])
def test_acknowledging_what_was_never_sent(scene: Scene, claim: str) -> None:
    upto = scene.chosen + (100 if claim == "slot" else 0)
    probe = 1 << 40 if claim == "probe" else 0
    scene.leader.replica.step(
        scene.follower.member, Accepted(scene.ballot, upto, scene.chosen, probe, 1 << 40)
    )
    assert scene.kinds(scene.leader) == [(scene.follower.member, "impossible_ack")]
    assert scene.leader.replica.chosen == scene.chosen


def test_more_known_as_chosen_than_we_know_is_no_crime(scene: Scene) -> None:
    """A leader that was deposed unawares may hear of what its successor had chosen."""
    ahead = scene.chosen + 5
    scene.leader.replica.step(
        scene.follower.member, Accepted(scene.ballot, ahead, ahead, 0, 1 << 40)
    )
    assert scene.kinds(scene.leader) == []


def test_fewer_flushes_than_before(scene: Scene) -> None:
    records, follower = scene.leader.replica.records, scene.follower
    records.greets(follower.member, 1, follower.replica.flushes)
    records.heard(follower.member, 40)
    records.greets(follower.member, 2, 39)
    assert (follower.member, "durable_regression") in scene.kinds(scene.leader)


def test_elections_and_lost_messages_are_no_crime() -> None:
    cluster = Cluster(3, 2)
    for turn in range(6):
        leader = cluster.elect()
        leader.replica.propose([b"%d" % turn])
        cluster.settle()
        cluster.cut = [leader.member.ordinal]
        cluster.tick(200)
        cluster.cut = []
        cluster.tick(50)
    assert not any(node.replica.witness.found for node in cluster.nodes)
