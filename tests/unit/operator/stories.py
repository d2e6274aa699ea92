"""A cluster in the world in memory, what may happen to it, and how that has to end."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from unit.operator.world import NAMESPACE, World, fingerprints

from distkv_operator.handlers.execute import Executor
from distkv_operator.handlers.observe import Observer
from distkv_operator.handlers.reconcile import Reconciler
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.events import Events
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.nodes import NodeClient
from distkv_operator.kube.readings import Readings
from distkv_operator.planning.observed import Observed
from distkv_operator.planning.plan import OperatorFacts, Plan
from distkv_operator.planning.secrets import Fresh

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


def operator(world: World, clock: Clock) -> Reconciler:
    """A fresh process."""
    gate = Gate(world)
    ticks = iter(range(10**9))
    observer = Observer(
        gate, NodeClient(gate, False), Readings(gate, lambda: next(ticks) * 100.0), clock
    )
    facts = OperatorFacts("distkv:1", None)
    executor, events = Executor(gate, observer), Events(gate, "test")
    return Reconciler(gate, observer, executor, events, facts, Quiet(), lambda: fresh(world))


def fresh(world: World) -> Fresh:
    """Never the same twice, and the same whenever a history is repeated."""
    number = next(world.numbers)
    return Fresh(f"{number:032x}", f"{number:064x}", f"{number + 1:064x}", f"{number + 2:064x}")


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
        world.put("distkvclusters", cluster())
        await run(world, clock, is_ready)
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


def shrink_turned_back(world: World) -> None:
    """The layout shrinks already, which takes a while, and the specification wants it as it was."""
    nodes = world.nodes
    assert nodes.members is not None
    nodes.leaving = {o: i for o, i in nodes.members.items() if o >= 3}
    nodes.members = {o: i for o, i in nodes.members.items() if o < 3}
    nodes.layout, nodes.epoch, nodes.restriping = (2, 1), 2, 30


def shrink_turned_back_late(world: World) -> None:
    """It has shrunk, and the nodes that left are still there."""
    shrink_turned_back(world)
    world.nodes.removed = set(world.nodes.leaving.values())
    world.nodes.leaving, world.nodes.restriping = {}, 0


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


def given_up_by_a_person(world: World) -> None:
    """The annotation stays, as people leave it."""
    claim = world.objects["persistentvolumeclaims", "data-store-2"]
    old = world.nodes.incarnations[claim["metadata"]["uid"]]
    meta = world.objects["distkvclusters", NAME]["metadata"]
    meta["annotations"] = {"distkv.io/replace": f"2={old}"}


STORIES = {
    "a child deleted": Story(nothing, 0, {}),
    "pod and claim lost": Story(pod_and_claim_lost, 1, {}),
    "claim deleted": Story(claim_deleted, 1, {"pods/store-1": 1}),
    "host lost": Story(host_lost, 1, {"pods/store-1": 1, "persistentvolumeclaims/data-store-1": 1}),
    "given up by a person": Story(
        given_up_by_a_person, 1, {"pods/store-2": 1, "persistentvolumeclaims/data-store-2": 1}
    ),
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
    "shrink turned back": Story(shrink_turned_back, 0, {}),
    "shrink turned back late": Story(
        shrink_turned_back_late,
        0,
        {
            **{f"pods/store-{o}": 1 for o in (3, 4)},
            **{f"persistentvolumeclaims/data-store-{o}": 1 for o in (3, 4)},
        },
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
