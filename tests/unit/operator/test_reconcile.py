"""Whole reconciles against a world in memory: each story ends the same, wherever it is broken off.

A call fails (nobody answers, more often than the gate retries) or the operator dies right after
it; then a new operator goes on with what the world has.
"""

from __future__ import annotations

import asyncio
import copy
import datetime
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from unit.operator.world import BAD_IMAGE, NAMESPACE, World, fingerprints

from distkv_operator.handlers.execute import Executor
from distkv_operator.handlers.observe import Observer
from distkv_operator.handlers.reconcile import Reconciler
from distkv_operator.kube import gate as gate_module
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.events import Events
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.nodes import NodeClient
from distkv_operator.kube.readings import Readings
from distkv_operator.kube.transport import Request, Unreachable
from distkv_operator.planning.observed import Observed
from distkv_operator.planning.plan import OperatorFacts, Plan

NAME = "store"
ROUNDS_MAX = 120


class Crash(BaseException):
    """The operator dies."""


class Quiet:
    """Nobody listens to the metrics."""

    def planned(self, observed: Observed, plan: Plan) -> None: ...

    def forget(self, namespace: str, name: str) -> None: ...


class Clock:
    """Ten seconds pass with each reconcile."""

    def __init__(self) -> None:
        self.now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def __call__(self) -> datetime.datetime:
        return self.now


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "PAUSE_SECONDS", 0.0)


def operator(world: World, clock: Clock) -> Reconciler:
    """A fresh process."""
    gate = Gate(world)
    ticks = iter(range(10**9))
    observer = Observer(
        gate, NodeClient(gate, False), Readings(gate, lambda: next(ticks) * 100.0), clock
    )
    facts = OperatorFacts("distkv:1", None)
    return Reconciler(
        gate, observer, Executor(gate, observer), Events(gate, "test"), facts, Quiet()
    )


def cluster(**spec: Any) -> dict[str, Any]:
    wanted = {"dataShards": 3, "parityShards": 2, "volumeLossPolicy": {"delay": "30s"}}
    return {
        "apiVersion": "distkv.io/v1alpha1",
        "kind": "DistKVCluster",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "uid": "resource", "generation": 1},
        "spec": wanted | spec,
    }


async def run(world: World, clock: Clock, until: Callable[[World], bool]) -> None:
    """Reconcile until the world is so and nothing is left to do; crashes are survived."""
    acting = operator(world, clock)
    for _ in range(ROUNDS_MAX):
        world.settle()
        clock.now += datetime.timedelta(seconds=10)
        try:
            following = await acting.reconcile(NAMESPACE, NAME)
        except Crash:
            acting = operator(world, clock)
            continue
        except ApiError:
            continue
        if following.seconds >= 15 and until(world):
            return
    pytest.fail(f"not there after {ROUNDS_MAX} rounds: {conditions(world)}")


def conditions(world: World) -> dict[str, str]:
    status = world.objects["distkvclusters", NAME].get("status", {})
    return {c["type"]: f"{c['status']} {c['reason']}: {c['message']}" for c in status["conditions"]}


def is_ready(world: World) -> bool:
    return conditions(world)["Ready"].startswith("True")


_founded: list[tuple[World, Clock]] = []


async def founded() -> tuple[World, Clock]:
    """A settled cluster of one's own."""
    if not _founded:
        world, clock = World(), Clock()
        await _creation(world, clock)
        world.nodes.worst = 0
        world.calls.clear()
        world.log.clear()
        _founded.append((world, clock))
    return copy.deepcopy(_founded[0])


class Story(NamedTuple):
    """`change` happens to a settled cluster; `worst`: most members that may be away meanwhile;
    `deleted`: what the operator may delete, and no more."""

    change: Callable[[World], None]
    worst: int
    deleted: dict[str, int]
    nodes: int = 5


def nothing(world: World) -> None:
    world.objects.pop(("services", NAME), None)


def pod_and_claim_lost(world: World) -> None:
    world.remove("pods", "store-2")
    world.objects.pop(("persistentvolumeclaims", "data-store-2"))


def claim_deleted(world: World) -> None:
    claim = world.objects["persistentvolumeclaims", "data-store-1"]
    claim["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"


def host_lost(world: World) -> None:
    world.hosts[world.objects["pods", "store-1"]["spec"]["nodeName"]] = False


def two_hosts_lost(world: World) -> None:
    host_lost(world)
    world.hosts[world.objects["pods", "store-3"]["spec"]["nodeName"]] = False


def image_changed(world: World) -> None:
    resource = world.objects["distkvclusters", NAME]
    resource["spec"]["image"] = "distkv:2"
    resource["metadata"]["generation"] += 1


def volumes_grow(world: World) -> None:
    resource = world.objects["distkvclusters", NAME]
    resource["spec"]["storage"] = {"size": "20Gi"}


def layout(k: int, m: int) -> Callable[[World], None]:
    def change(world: World) -> None:
        resource = world.objects["distkvclusters", NAME]
        resource["spec"] |= {"dataShards": k, "parityShards": m}
        resource["metadata"]["generation"] += 1

    return change


def status_lost(world: World) -> None:
    del world.objects["distkvclusters", NAME]["status"]


def record_lost(world: World) -> None:
    world.remove("secrets", "store-identity")
    status_lost(world)


def applied_again(world: World) -> None:
    """The resource was deleted with its children, the claims and Secrets stayed."""
    kept = ("persistentvolumeclaims", "secrets", "nodes")
    for plural, name in list(world.objects):
        if plural not in kept:
            world.objects.pop((plural, name))
    fresh = cluster()
    fresh["metadata"]["uid"] = "another"
    world.put("distkvclusters", fresh)


STORIES = {
    "a child deleted": Story(nothing, 0, {}),
    "pod and claim lost": Story(pod_and_claim_lost, 1, {}),
    "claim deleted": Story(claim_deleted, 1, {"pods/store-1": 1}),
    "host lost": Story(host_lost, 1, {"pods/store-1": 1, "persistentvolumeclaims/data-store-1": 1}),
    "two hosts lost": Story(
        two_hosts_lost,
        2,
        {
            **{f"pods/store-{o}": 1 for o in (1, 3)},
            **{f"persistentvolumeclaims/data-store-{o}": 1 for o in (1, 3)},
        },
    ),
    "image changed": Story(image_changed, 1, {f"pods/store-{o}": 1 for o in range(5)}),
    "volumes grow": Story(volumes_grow, 0, {"statefulsets/store": 1}),
    "layout grows": Story(layout(4, 3), 0, {}, 7),
    "layout shrinks": Story(
        layout(2, 1),
        0,
        {f"persistentvolumeclaims/data-store-{o}": 1 for o in (3, 4)},
        3,
    ),
    "status lost": Story(status_lost, 0, {}),
    "record lost": Story(record_lost, 0, {}),
    "applied again": Story(applied_again, 5, {}),
}


def check(world: World, story: Story) -> None:
    nodes = world.nodes
    assert nodes.formed
    assert nodes.members == {o: nodes.incarnation(o) for o in range(story.nodes)}
    assert not nodes.missing
    assert len({tuple(sorted(m.items())) for m in nodes.founded_with}) == 1, "founded twice"
    assert nodes.worst <= story.worst, "more was taken away than may be"
    deletions = [entry.removeprefix("delete ") for entry in world.log]
    for what in set(deletions):
        # A retry of a deletion that nobody confirmed meets another UID, so it deletes nothing.
        assert deletions.count(what) <= story.deleted.get(what, 0) + _again(what), deletions
    for ordinal in range(story.nodes):
        claim = world.objects["persistentvolumeclaims", f"data-store-{ordinal}"]["metadata"]
        assert claim["annotations"]["distkv.io/incarnation"] == str(nodes.incarnation(ordinal))
        assert claim["annotations"]["distkv.io/formed"] == "true"
    assert len(fingerprints(world)) == 1
    assert conditions(world)["ReconcileSucceeded"].startswith("True")
    status = world.objects["distkvclusters", NAME]["status"]
    assert status["formed"]
    assert status["nodesSummary"] == f"{story.nodes}/{story.nodes}"
    pods = [name for kind, name in world.objects if kind == "pods"]
    claims = [name for kind, name in world.objects if kind == "persistentvolumeclaims"]
    assert len(pods) == len(claims) == story.nodes


def _again(what: str) -> int:
    """A claim that waits for its pod can be deleted twice, to no effect."""
    return 3 if what.startswith("persistentvolumeclaims/") else 0


def changed(story: Story) -> Callable[[World], bool]:
    def there(world: World) -> bool:
        pods = [name for kind, name in world.objects if kind == "pods"]
        return is_ready(world) and len(pods) == story.nodes

    return there


@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_well(name: str) -> None:
    async def go() -> None:
        world, clock = await founded()
        STORIES[name].change(world)
        await run(world, clock, changed(STORIES[name]))
        check(world, STORIES[name])

    asyncio.run(go())


def test_nothing_is_written_once_all_is_settled() -> None:
    async def go() -> None:
        world, clock = await founded()
        acting = operator(world, clock)
        for _ in range(3):
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert {method for method, _ in world.calls} == {"GET"}

    asyncio.run(go())


class Interruption:
    """At call `at`: fail it (and the gate's retries of it), or die after it."""

    def __init__(self, world: World, at: int, mode: str) -> None:
        self.at, self.mode = at, mode
        self.left = gate_module.ATTEMPTS if mode == "fail" else 1
        self.happened = False
        world.before = self.before
        world.after = self.after

    def before(self, number: int, request: Request) -> None:
        if self.mode == "fail" and number >= self.at and self.left:
            self.left -= 1
            self.happened = True
            raise Unreachable("cut off")

    def after(self, number: int, request: Request) -> None:
        if self.mode == "crash" and number >= self.at and self.left:
            self.left -= 1
            self.happened = True
            raise Crash
        if self.mode == "lost answer" and number >= self.at and self.left:
            self.left -= 1
            self.happened = True
            raise Unreachable("the answer was lost")


async def _creation(world: World, clock: Clock) -> None:
    world.put("distkvclusters", cluster())
    await run(world, clock, is_ready)


def _points(calls: list[tuple[str, str]]) -> Iterator[int]:
    """Every write and every command to a node; of the mere readings, each forty-first."""
    for number, (method, _) in enumerate(calls):
        if method != "GET" or number % 41 == 0:
            yield number


@pytest.mark.parametrize("mode", ["fail", "crash", "lost answer"])
def test_founding_ends_the_same_wherever_it_is_interrupted(mode: str) -> None:
    async def go() -> None:
        whole = World()
        await _creation(whole, Clock())
        for at in _points(list(whole.calls)):
            world, clock = World(), Clock()
            interruption = Interruption(world, at, mode)
            await _creation(world, clock)
            assert interruption.happened
            world.nodes.worst = 0
            check(world, STORIES["status lost"])

    asyncio.run(go())


@pytest.mark.parametrize(
    "mode", ["fail", "crash", pytest.param("lost answer", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", STORIES)
def test_a_story_ends_the_same_wherever_it_is_interrupted(name: str, mode: str) -> None:
    story = STORIES[name]

    async def go() -> None:
        whole, clock = await founded()
        story.change(whole)
        await run(whole, clock, changed(story))
        for at in _points(list(whole.calls)):
            world, clock = await founded()
            story.change(world)
            Interruption(world, at, mode)
            await run(world, clock, changed(story))
            check(world, story)

    asyncio.run(go())


def test_a_bad_image_stops_after_one_pod_and_is_rolled_back_by_the_specification() -> None:
    async def go() -> None:
        world, clock = await founded()
        resource = world.objects["distkvclusters", NAME]
        resource["spec"]["image"] = BAD_IMAGE
        acting = operator(world, clock)
        for _ in range(20):
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert [entry for entry in world.log if "pods" in entry] == ["delete pods/store-4"]
        assert "cannot start with the new template" in conditions(world)["Progressing"]
        assert conditions(world)["Available"].startswith("True")
        world.objects["distkvclusters", NAME]["spec"]["image"] = "distkv:1"
        await run(world, clock, is_ready)
        assert [entry for entry in world.log if "pods" in entry] == ["delete pods/store-4"] * 2
        assert world.nodes.worst == 1

    asyncio.run(go())


def test_all_volumes_gone_holds_and_says_so() -> None:
    async def go() -> None:
        world, clock = await founded()
        for ordinal in range(5):
            world.objects.pop(("persistentvolumeclaims", f"data-store-{ordinal}"))
            world.remove("pods", f"store-{ordinal}")
        before = dict(world.objects["secrets", "store-identity"]["data"])
        await operator(world, clock).reconcile(NAMESPACE, NAME)
        assert "volumes is gone" in conditions(world)["Progressing"]
        assert world.log == []
        assert world.objects["secrets", "store-identity"]["data"] == before

    asyncio.run(go())


def test_a_formed_clusters_missing_key_is_not_made_anew() -> None:
    async def go() -> None:
        world, clock = await founded()
        world.remove("secrets", "store-cluster-key")
        acting = operator(world, clock)
        for _ in range(3):
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert ("secrets", "store-cluster-key") not in world.objects
        assert "store-cluster-key" in conditions(world)["KeyMissing"]
        assert conditions(world)["KeyMissing"].startswith("True")

    asyncio.run(go())


def test_the_same_claim_with_an_empty_directory_waits_for_a_person() -> None:
    async def go() -> None:
        world, clock = await founded()
        uid = world.objects["persistentvolumeclaims", "data-store-2"]["metadata"]["uid"]
        old = world.nodes.incarnations[uid]
        world.nodes.incarnations[uid] = 5555
        acting = operator(world, clock)
        for _ in range(5):
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert world.nodes.members is not None
        assert world.nodes.members[2] == old
        assert f"distkv.io/replace=2={old}" in conditions(world)["Progressing"]
        meta = world.objects["distkvclusters", NAME]["metadata"]
        meta["annotations"] = {"distkv.io/replace": f"2={old}"}
        await run(world, clock, is_ready)
        assert world.nodes.members[2] == 5555

    asyncio.run(go())


def test_three_lost_hosts_are_more_than_may_be_given_up() -> None:
    async def go() -> None:
        world, clock = await founded()
        for ordinal in (1, 2, 3):
            world.hosts[world.objects["pods", f"store-{ordinal}"]["spec"]["nodeName"]] = False
        acting = operator(world, clock)
        for _ in range(30):
            clock.now += datetime.timedelta(seconds=10)
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert not any("persistentvolumeclaims" in entry for entry in world.log)
        assert "not given up yet" in conditions(world)["Progressing"]
        assert conditions(world)["QuorumHealthy"].startswith("False NoQuorum")

    asyncio.run(go())


def test_paused_changes_nothing_and_says_so() -> None:
    async def go() -> None:
        world, clock = await founded()
        world.objects["distkvclusters", NAME]["spec"]["paused"] = True
        world.objects.pop(("services", NAME))
        world.settle()
        await operator(world, clock).reconcile(NAMESPACE, NAME)
        assert ("services", NAME) not in world.objects
        assert conditions(world)["Progressing"].startswith("False Paused")

    asyncio.run(go())


def test_after_a_deletion_with_its_volumes_the_secrets_go_too() -> None:
    async def go() -> None:
        world, clock = World(), Clock()
        world.put("distkvclusters", cluster(deletionPolicy="Delete"))
        await run(world, clock, is_ready)
        world.objects.pop(("distkvclusters", NAME))
        acting = operator(world, clock)
        assert not (await acting.reconcile(NAMESPACE, NAME)).gone, "the claims are still there"
        for plural, name in list(world.objects):
            if plural not in ("secrets", "nodes"):
                world.objects.pop((plural, name))
        assert (await acting.reconcile(NAMESPACE, NAME)).gone
        assert not any(plural == "secrets" for plural, _ in world.objects)

    asyncio.run(go())
