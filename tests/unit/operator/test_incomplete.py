"""What cannot be listed is unknown: the rest is put right, and nothing is taken away."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from unit.operator.stories import (
    NAME,
    STORIES,
    Clock,
    changed,
    check,
    conditions,
    founded,
    is_ready,
    operator,
    run,
)
from unit.operator.world import NAMESPACE, World

from distkv_operator.kube.kinds import CHILDREN, CLAIM, POD, SECRET, Kind
from distkv_operator.kube.transport import Request, Unreachable

LISTED = (*CHILDREN, POD, CLAIM)
PLAIN = {
    "ConfigMap": ("configmaps", f"{NAME}-config"),
    "Service": ("services", NAME),
    "Deployment": ("deployments", f"{NAME}-gateway"),
    "PodDisruptionBudget": ("poddisruptionbudgets", NAME),
    "NetworkPolicy": ("networkpolicies", NAME),
}
"""A child of each kind that can be made again at any time."""


def unlistable(world: World, *kinds: Kind) -> None:
    """From now on nobody answers when these are listed."""
    plurals = {kind.plural for kind in kinds}

    def before(number: int, request: Request) -> None:
        path = urlsplit(request.url).path
        if request.method == "GET" and path.rpartition("/")[2] in plurals:
            raise Unreachable("cut off")

    world.before = before


async def rounds(world: World, clock: Clock, number: int) -> None:
    acting = operator(world, clock)
    for _ in range(number):
        world.settle()
        clock.now += datetime.timedelta(seconds=10)
        following = await acting.reconcile(NAMESPACE, NAME)
        assert following.failed, "it looks again soon, and slower and slower"


@pytest.mark.parametrize("kind", LISTED, ids=lambda kind: kind.name)
def test_children_of_the_kinds_that_are_known_come_back(kind: Kind) -> None:
    async def go() -> None:
        world, clock = await founded()
        for plural, name in PLAIN.values():
            world.remove(plural, name)
        unlistable(world, kind)
        await rounds(world, clock, 1)
        known = {name: key for name, key in PLAIN.items() if name != kind.name}
        if kind is SECRET:
            known = {}  # the cluster's id is in one
        assert {key for key in PLAIN.values() if key in world.objects} == set(known.values())
        assert world.log == []
        said = conditions(world)["ReconcileSucceeded"]
        assert said.startswith("False ObservationIncomplete")
        assert f"{kind.name} could not be read: the API server: cut off" in said
        world.before = lambda *_: None
        await run(world, clock, is_ready)
        assert set(PLAIN.values()) <= set(world.objects)
        assert conditions(world)["ReconcileSucceeded"].startswith("True")

    asyncio.run(go())


@pytest.mark.parametrize("kind", LISTED, ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "name", ["host lost", "claim deleted", "image changed", "layout shrinks", "volumes grow"]
)
def test_nothing_is_taken_away_until_all_can_be_listed(name: str, kind: Kind) -> None:
    async def go() -> None:
        world, clock = await founded()
        STORIES[name].change(world)
        unlistable(world, kind)
        await rounds(world, clock, 12)
        assert world.log == []
        assert world.nodes.layout == (3, 2)
        assert world.objects["statefulsets", NAME]["spec"]["replicas"] == 5
        assert "could not be read" in conditions(world)["ReconcileSucceeded"]
        world.before = lambda *_: None
        world.nodes.worst = 0
        await run(world, clock, changed(STORIES[name]))
        check(world, STORIES[name])

    asyncio.run(go())


def test_no_child_is_removed_until_all_can_be_listed() -> None:
    async def go() -> None:
        world, clock = await founded()
        world.objects["distkvclusters", NAME]["spec"]["gateway"] = {"replicas": 0}
        unlistable(world, next(kind for kind in CHILDREN if kind.name == "Service"))
        await rounds(world, clock, 2)
        assert ("deployments", f"{NAME}-gateway") in world.objects
        world.before = lambda *_: None
        await run(world, clock, is_ready)
        assert ("deployments", f"{NAME}-gateway") not in world.objects

    asyncio.run(go())


def test_a_drain_takes_nothing_while_something_cannot_be_listed() -> None:
    async def go() -> None:
        world, clock = await founded()
        unlistable(world, SECRET._replace(plural="networkpolicies"))
        await rounds(world, clock, 1)
        assert world.objects["poddisruptionbudgets", NAME]["spec"]["maxUnavailable"] == 0

    asyncio.run(go())


@pytest.mark.parametrize("kind", PLAIN)
def test_a_member_is_brought_back_although_something_cannot_be_listed(kind: str) -> None:
    async def go() -> None:
        world, clock = await founded()
        STORIES["pod and claim lost"].change(world)
        unlistable(world, next(found for found in CHILDREN if found.name == kind))
        await rounds(world, clock, 12)
        nodes = world.nodes
        assert nodes.members == {o: nodes.incarnation(o) for o in range(5)}
        assert not nodes.missing

    asyncio.run(go())


def lost(plural: str) -> Callable[[World], None]:
    def change(world: World) -> None:
        for key in [key for key in world.objects if key[0] == plural]:
            world.remove(*key)

    return change


@pytest.mark.parametrize("plural", ["pods", "persistentvolumeclaims"])
def test_a_missing_statefulset_waits_for_pods_and_claims(plural: str) -> None:
    """Made with too few replicas it would take pods away, and beside lost volumes make others."""

    async def go() -> None:
        world, clock = await founded()
        lost("statefulsets")(world)
        unlistable(world, next(kind for kind in LISTED if kind.plural == plural))
        await rounds(world, clock, 3)
        assert ("statefulsets", NAME) not in world.objects
        world.before = lambda *_: None
        await run(world, clock, is_ready)
        assert ("statefulsets", NAME) in world.objects

    asyncio.run(go())


@pytest.mark.parametrize("kind", [POD, CLAIM, SECRET], ids=lambda kind: kind.name)
def test_the_status_keeps_what_was_seen_last(kind: Kind) -> None:
    async def go() -> None:
        world, clock = await founded()
        before = conditions(world)
        unlistable(world, kind)
        await rounds(world, clock, 2)
        after = conditions(world)
        assert {name for name in after if after[name] != before[name]} == {"ReconcileSucceeded"}
        assert world.objects["distkvclusters", NAME]["status"]["nodesSummary"] == "5/5"

    asyncio.run(go())


def test_of_an_unread_deployment_nothing_is_said() -> None:
    async def go() -> None:
        world, clock = await founded()
        before = world.objects["distkvclusters", NAME]["status"]["gateway"]
        unlistable(world, next(kind for kind in CHILDREN if kind.name == "Deployment"))
        await rounds(world, clock, 1)
        assert conditions(world)["Available"].startswith("Unknown NotObserved")
        assert conditions(world)["Ready"].startswith("Unknown NotObserved")
        assert world.objects["distkvclusters", NAME]["status"]["gateway"] == before
        assert not any("events" in url for method, url in world.calls if method != "GET")

    asyncio.run(go())


def test_a_host_that_cannot_be_read_is_not_taken_for_gone() -> None:
    async def go() -> None:
        world, clock = await founded()
        world.remove("pods", "store-1")

        def before(number: int, request: Request) -> None:
            if "/api/v1/nodes/" in request.url:
                raise Unreachable("cut off")

        world.before = before
        await rounds(world, clock, 12)
        assert world.log == []
        assert "Node could not be read" in conditions(world)["ReconcileSucceeded"]

    asyncio.run(go())


def test_the_image_that_runs_is_kept_though_nothing_else_says_which() -> None:
    """Neither specification, nor status, nor StatefulSet: the pods do."""

    async def go() -> None:
        world, clock = await founded()
        del world.objects["distkvclusters", NAME]["status"]
        for (plural, _), pod in world.objects.items():
            if plural == "pods":
                pod["spec"]["containers"][0]["image"] = "distkv:0"
        unlistable(world, next(kind for kind in CHILDREN if kind.name == "StatefulSet"))
        await rounds(world, clock, 1)
        assert world.objects["distkvclusters", NAME]["status"]["image"] == "distkv:0"

    asyncio.run(go())
