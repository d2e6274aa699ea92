"""Whole reconciles against a world in memory: stories that end well, and those that must wait."""

from __future__ import annotations

import asyncio
import datetime

import pytest
from unit.operator.small_nodes import Nodes
from unit.operator.stories import (
    NAME,
    STORIES,
    Clock,
    Crash,
    changed,
    check,
    cluster,
    conditions,
    founded,
    is_ready,
    operator,
    run,
)
from unit.operator.world import BAD_IMAGE, NAMESPACE, USELESS_IMAGE, World

from distkv_operator.handlers.reconcile import Reconciler
from distkv_operator.kube.transport import Request


async def rounds(acting: Reconciler, world: World, number: int) -> None:
    for _ in range(number):
        world.settle()
        await acting.reconcile(NAMESPACE, NAME)


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


def test_a_member_lost_the_moment_after_its_admission_comes_back_by_itself() -> None:
    async def go() -> None:
        world, clock = await founded()
        STORIES["pod and claim lost"].change(world)

        def after(number: int, request: Request) -> None:
            if request.url.endswith("/v1/admin/replace"):
                raise Crash

        world.after = after
        with pytest.raises(Crash):
            await rounds(operator(world, clock), world, 20)
        world.after = lambda *_: None
        assert world.nodes.members is not None
        admitted = world.nodes.incarnation(2)
        assert world.nodes.members[2] == admitted
        STORIES["pod and claim lost"].change(world)
        await run(world, clock, is_ready)
        assert world.nodes.members[2] == world.nodes.incarnation(2) != admitted

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


def test_what_is_taken_out_of_the_specification_goes_from_the_children_too() -> None:
    async def go() -> None:
        world, clock = World(), Clock()
        wanted = {"annotations": {"example/a": "1"}}
        world.put("distkvclusters", cluster(service=wanted, networkPolicy={"enabled": True}))
        await run(world, clock, is_ready)
        assert "example/a" in world.objects["services", NAME]["metadata"]["annotations"]
        world.objects["distkvclusters", NAME]["spec"]["service"] = {}
        await run(world, clock, is_ready)
        assert "example/a" not in world.objects["services", NAME]["metadata"]["annotations"]

    asyncio.run(go())


def test_a_node_that_has_yet_to_count_is_not_whole() -> None:
    async def go() -> None:
        world, clock = await founded()
        world.objects["distkvclusters", NAME]["spec"]["image"] = "distkv:2"
        acting = operator(world, clock)
        while not world.log:
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        for _ in range(2):
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert world.nodes.status(4)["serving"]
        assert world.nodes.status(4)["shards_missing"] is None
        assert "yet to count" in conditions(world)["Progressing"]
        assert world.log == ["delete pods/store-4"]
        assert world.objects["poddisruptionbudgets", NAME]["spec"]["maxUnavailable"] == 0

    asyncio.run(go())


def test_an_image_that_starts_and_never_serves_is_rolled_back_by_the_specification() -> None:
    async def go() -> None:
        world, clock = await founded()
        world.objects["distkvclusters", NAME]["spec"]["image"] = USELESS_IMAGE
        acting = operator(world, clock)
        for _ in range(20):
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert world.log == ["delete pods/store-4"]
        world.objects["distkvclusters", NAME]["spec"]["image"] = "distkv:1"
        await run(world, clock, is_ready)
        assert world.log == ["delete pods/store-4"] * 2

    asyncio.run(go())


def test_claims_made_anew_in_place_of_all_that_are_gone_hold_no_cluster() -> None:
    async def go() -> None:
        world, clock = await founded()
        for ordinal in range(5):
            world.objects.pop(("persistentvolumeclaims", f"data-store-{ordinal}"))
            world.remove("pods", f"store-{ordinal}")
        acting = operator(world, clock)
        world.nodes.members = None  # nobody has a list any more
        for _ in range(5):
            world.settle()
            await acting.reconcile(NAMESPACE, NAME)
        assert "were made since" in conditions(world)["Progressing"]
        assert len(world.nodes.founded_with) == 1
        assert world.log == []

    asyncio.run(go())


@pytest.mark.parametrize("keeps_record", [True, False])
def test_starting_anew_takes_the_annotation_that_the_message_names(keeps_record: bool) -> None:
    async def go() -> None:
        world, clock = await founded()
        old = world.objects["distkvclusters", NAME]["status"]["clusterId"]
        for plural, name in list(world.objects):
            if plural in ("pods", "persistentvolumeclaims", "statefulsets", "configmaps"):
                world.remove(plural, name)
        if not keeps_record:
            world.remove("secrets", "store-identity")
        acting = operator(world, clock)
        for _ in range(3):
            await acting.reconcile(NAMESPACE, NAME)
        assert f"distkv.io/start-anew={old}" in conditions(world)["Progressing"]
        assert ("statefulsets", NAME) not in world.objects
        world.objects["distkvclusters", NAME]["metadata"]["annotations"] = {
            "distkv.io/start-anew": old
        }
        world.nodes = Nodes(world)
        await run(world, clock, is_ready)
        assert world.objects["distkvclusters", NAME]["status"]["clusterId"] != old

    asyncio.run(go())


def test_another_node_at_a_pods_address_is_not_taken_for_it() -> None:
    async def go() -> None:
        world, clock = await founded()
        world.settle()
        world.objects["pods", "store-2"]["status"]["podIP"] = "10.0.0.4"
        await operator(world, clock).reconcile(NAMESPACE, NAME)
        assert "node 3 answers at its address" in conditions(world)["Progressing"]
        assert {method for method, url in world.calls if "10.0.0." in url} == {"GET"}

    asyncio.run(go())


def test_an_exception_is_said_in_a_condition() -> None:
    async def go() -> None:
        world, clock = await founded()
        claim = world.objects["persistentvolumeclaims", "data-store-2"]
        claim["spec"]["resources"]["requests"]["storage"] = "some"
        with pytest.raises(ValueError, match="give a size"):
            await operator(world, clock).reconcile(NAMESPACE, NAME)
        assert conditions(world)["ReconcileSucceeded"].startswith("False Defect: a defect")
        assert conditions(world)["Ready"].startswith("True")
        claim["spec"]["resources"]["requests"]["storage"] = "10Gi"
        await operator(world, clock).reconcile(NAMESPACE, NAME)
        assert conditions(world)["ReconcileSucceeded"].startswith("True")

    asyncio.run(go())
