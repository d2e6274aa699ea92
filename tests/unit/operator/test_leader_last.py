"""Leadership moves while a roll is under way: whoever leads by then goes last."""

from __future__ import annotations

import asyncio
import datetime
import random
from typing import Any

import pytest
from unit.operator.rolls import Decision, check_leader_last, decisions
from unit.operator.stories import NAME, STORIES, changed, check, founded, is_ready, operator
from unit.operator.world import NAMESPACE, World

from distkv_operator.kube.transport import Request, Unreachable
from distkv_operator.names import FINGERPRINT_ANNOTATION

STORY = STORIES["image changed"]


def refuse_the_leader(world: World, chance: random.Random) -> None:
    """The world knows better than any status who leads: it fails the test when that one goes
    early. Every now and then a node's answer is lost, the leader's too."""

    def before(number: int, request: Request) -> None:
        if request.url.endswith("/v1/admin/status") and chance.random() < 0.1:
            raise Unreachable("too slow")
        if request.method != "DELETE" or "/pods/" not in request.url:
            return
        wanted = world.objects["statefulsets", NAME]["spec"]["template"]["metadata"]
        mark = wanted["annotations"][FINGERPRINT_ANNOTATION]
        left = [
            name
            for (plural, name), pod in world.objects.items()
            if plural == "pods" and pod["metadata"]["annotations"][FINGERPRINT_ANNOTATION] != mark
        ]
        pod = request.url.rpartition("/")[2]
        assert len(left) == 1 or pod != f"{NAME}-{world.nodes.leader()}", "the leader went early"

    world.before = before


def images(world: World) -> set[str]:
    """Of the nodes' pods."""
    pods = [pod for (plural, _), pod in world.objects.items() if plural == "pods"]
    return {pod["spec"]["containers"][0]["image"] for pod in pods}


@pytest.mark.parametrize("seed", range(12))
def test_whoever_leads_goes_last_wherever_leadership_moves(seed: int) -> None:
    async def go() -> None:
        world, clock = await founded()
        chance = random.Random(seed)
        STORY.change(world)
        refuse_the_leader(world, chance)
        acting = operator(world, clock)
        statuses: list[dict[str, Any]] = []
        while not (images(world) == {"distkv:2"} and is_ready(world)):
            assert len(statuses) < 120, "it does not end"
            world.nodes.preferred = chance.randrange(5)
            world.settle()
            clock.now += datetime.timedelta(seconds=1)
            await acting.reconcile(NAMESPACE, NAME)
            statuses.append(world.objects["distkvclusters", NAME]["status"])
        check(world, STORY)
        assert changed(STORY)(world)
        decided = decisions(statuses)
        check_leader_last(decided)
        assert sorted(d.ordinal for d in decided) == [0, 1, 2, 3, 4]
        assert [d.left for d in decided] == [5, 4, 3, 2, 1]

    asyncio.run(go())


def status(message: str, leader: int | None, *leading: int) -> dict[str, Any]:
    return {
        "conditions": [{"type": "Progressing", "message": message}],
        "leader": leader,
        "members": [
            {"ordinal": o, "role": "leader" if o in leading else "follower"} for o in range(5)
        ],
    }


def replacing(ordinal: int, left: int) -> str:
    return f"replacing node {ordinal}; {left} of 5 pods still to be replaced"


def test_the_judge_reads_one_decision_of_each_pod() -> None:
    seen = [
        status("everything is as the specification wants it", 1, 1),
        status(replacing(4, 5), 1, 1),
        status(replacing(4, 5), 1, 1),
        status("node 4 is being replaced", 1, 1),
        status(replacing(1, 4), 2, 2),
    ]
    assert decisions(seen) == [Decision(4, 5, 1, (1,)), Decision(1, 4, 2, (2,))]
    check_leader_last(decisions(seen))
    check_leader_last(decisions([status(replacing(1, 1), 1, 1)]))


@pytest.mark.parametrize(
    "seen",
    [
        status(replacing(1, 2), 1, 1),
        status(replacing(1, 2), 2, 1),
        status(replacing(1, 2), None),
        status(replacing(1, 2), 2),
    ],
    ids=["it led", "it led and another was taken for it", "nobody", "by nobody's own word"],
)
def test_the_judge_refuses_a_leader_that_went_early(seen: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        check_leader_last(decisions([seen]))
