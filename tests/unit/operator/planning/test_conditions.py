"""What is said of an observation, and what a drain may take away."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distkv_operator.planning.budget import failures
from distkv_operator.planning.conditions import TYPES, Said, merged
from distkv_operator.planning.observed import Observed, Seat, format_time
from distkv_operator.planning.plan import OperatorFacts, plan
from distkv_operator.planning.status import status
from distkv_operator.planning.steps import Apply, CreateOnce, Remove

from .support import (
    FRESH,
    NOW,
    SILENT,
    condition,
    fresh_directory,
    host,
    planned,
    pod,
    progress,
    record,
    said,
    seat,
    settled,
)

AWAY = {"serving": False, "state": "starting"}


def statuses(observed: Observed) -> dict[str, bool | None]:
    return {entry.type: entry.status for entry in planned(observed).said}


def test_all_is_well() -> None:
    assert statuses(settled()) == {
        "Ready": True,
        "Available": True,
        "QuorumHealthy": True,
        "ShardsHealthy": True,
        "Progressing": False,
        "StorageReady": True,
        "ZoneFailureSurvivable": True,
        "KeyMissing": False,
    }
    assert planned(settled()).steps == ()


@pytest.mark.parametrize(
    ("away", "expected"),
    [
        (1, {"Ready": False, "Available": True, "QuorumHealthy": True, "ShardsHealthy": False}),
        (2, {"Ready": False, "Available": True, "QuorumHealthy": True, "ShardsHealthy": False}),
        (3, {"Ready": False, "Available": False, "QuorumHealthy": False, "ShardsHealthy": False}),
    ],
)
def test_nodes_that_are_away(away: int, expected: dict[str, bool]) -> None:
    found = statuses(settled(*(seat(4 - o, SILENT) for o in range(away))))
    assert {kind: found[kind] for kind in expected} == expected


@pytest.mark.parametrize(
    ("report", "reason", "message"),
    [
        (said(2, shards_missing=4), "ShardsMissing", "4 on node 2"),
        (said(2, shards_missing=None), "NodesAway", "node 2 cannot be counted on"),
        (fresh_directory(2, 5), "NodesAway", "of 2 failures that are tolerated, 1 more"),
    ],
    ids=["missing", "uncounted", "empty"],
)
def test_shards(report: Any, reason: str, message: str) -> None:
    found = condition(planned(settled(seat(2, report))), "ShardsHealthy")
    assert (found.status, found.reason) == (False, reason)
    assert message in found.message


def test_no_leader_is_no_quorum_yet() -> None:
    found = condition(planned(settled(seat(0, said(0)))), "QuorumHealthy")
    assert (found.status, found.reason) == (False, "NoLeader")


def allowed(observed: Observed) -> int | None:
    """Of the PodDisruptionBudget that is applied; None: it stays as it is, at 1."""
    for step in planned(observed).steps:
        if isinstance(step, Apply) and step.manifest["kind"] == "PodDisruptionBudget":
            return int(step.manifest["spec"]["maxUnavailable"])
    return None


@pytest.mark.parametrize(
    "ailing",
    [
        seat(2, said(2, shards_missing=1)),
        seat(2, said(2, shards_missing=None)),
        seat(2, said(2, **AWAY)),
        seat(2, SILENT),
        seat(2, fresh_directory(2, 5)),
        seat(0, said(0, leads=True, survives=None)),
        seat(0, said(0)),
    ],
    ids=["missing", "uncounted", "away", "silent", "empty", "unsure", "no leader"],
)
def test_a_drain_takes_nothing_while_the_budget_is_touched(ailing: Seat) -> None:
    assert allowed(settled()) is None
    assert allowed(settled(ailing)) == 0


def small(k: int, m: int) -> Observed:
    """A settled cluster of another layout."""
    n = k + m
    seats = [seat(o, said(o, n, k, leads=o == 0)) for o in range(n)]
    spec = {"dataShards": k, "parityShards": m}
    observed = settled(*seats, spec=spec, layout_progress=progress(n, k), record=record(n))
    return replace(observed, seats=observed.seats[:n])


@pytest.mark.parametrize(("k", "m"), [(3, 0), (1, 1)])
def test_a_drain_takes_nothing_where_the_store_would_refuse_without_it(k: int, m: int) -> None:
    """All is well, and f is 0."""
    assert allowed(small(2, 1)) is None
    assert allowed(small(k, m)) == 0


def test_a_single_node_has_no_budget() -> None:
    found = planned(small(1, 0))
    assert Remove("PodDisruptionBudget", "store", "uid-PodDisruptionBudget") in found.steps
    assert allowed(small(1, 0)) is None


def test_f() -> None:
    table = {(1, 0): 0, (1, 1): 0, (2, 1): 1, (3, 2): 2, (2, 3): 2, (4, 3): 3, (3, 0): 0, (1, 2): 1}
    assert {km: failures(*km) for km in table} == table


# -- zones


def in_zones(*zones: str) -> Observed:
    return settled(*(seat(o, host=host(o, zone=zone)) for o, zone in enumerate(zones))
                   if zones else ())  # fmt: skip


@pytest.mark.parametrize(
    ("zones", "survivable", "words"),
    [
        (("a", "b", "c", "a", "b"), True, "(a: 2, b: 2, c: 1)"),
        (("a", "a", "a", "b", "c"), False, "losing a loses 3 nodes, and 2 are tolerated"),
        (("a", "b", "c", "a", ""), None, "topology.kubernetes.io/zone"),
    ],
)
def test_whether_losing_a_zone_is_survivable(
    zones: tuple[str, ...], survivable: bool | None, words: str
) -> None:
    found = condition(planned(in_zones(*zones)), "ZoneFailureSurvivable")
    assert found.status is survivable
    assert words in found.message


# -- secrets


@pytest.mark.parametrize("name", ["store-cluster-key", "store-admin-token", "store-link-token"])
def test_a_missing_secret_of_a_formed_cluster_is_never_made_anew(name: str) -> None:
    observed = settled()
    kept = {key: child for key, child in observed.children.items() if key != ("Secret", name)}
    found = planned(replace(observed, children=kept))
    assert not any(isinstance(step, CreateOnce) for step in found.steps)
    assert condition(found, "KeyMissing").status is True
    assert name in condition(found, "KeyMissing").message
    begun = replace(
        observed, children=kept, record=record(formed=False, founders=False, members={})
    )
    made = [step for step in planned(begun).steps if isinstance(step, CreateOnce)]
    assert [step.manifest["metadata"]["name"] for step in made] == [name]


# -- children


def test_an_absent_child_is_applied_and_an_unwanted_one_removed() -> None:
    observed = settled()
    key = ("Service", "store")
    kept = {name: child for name, child in observed.children.items() if name != key}
    (step,) = planned(replace(observed, children=kept)).steps
    assert isinstance(step, Apply)
    assert step.manifest["metadata"]["name"] == "store"
    without = settled(spec={"networkPolicy": {"enabled": False}}, children=observed.children)
    removed = [step for step in planned(without).steps if isinstance(step, Remove)]
    assert [(step.kind, step.name) for step in removed] == [
        ("NetworkPolicy", "store"),
        ("NetworkPolicy", "store-gateway"),
    ]


def test_a_child_of_somebody_else_is_not_removed() -> None:
    observed = settled(spec={"networkPolicy": {"enabled": False}}, children=settled().children)
    for child in observed.children.values():
        child["metadata"]["ownerReferences"] = [{"uid": "somebody else"}]
    assert not any(isinstance(step, Remove) for step in planned(observed).steps)


def test_what_is_no_longer_wanted_is_applied_away() -> None:
    annotated = settled(spec={"service": {"annotations": {"example/a": "1"}}})
    (step,) = planned(settled(children=annotated.children)).steps
    assert isinstance(step, Apply)
    assert "example/a" not in step.manifest["metadata"]["annotations"]


# -- paused, status


@pytest.mark.parametrize(
    "how", [{"spec": {"paused": True}}, {"annotations": {"distkv.io/paused": "true"}}], ids=str
)
def test_paused_plans_nothing_and_says_so(how: dict[str, Any]) -> None:
    found = planned(settled(seat(1, fresh_directory(1, 5)), children={}, **how))
    assert found.steps == ()
    assert condition(found, "Progressing").reason == "Paused"


def test_the_time_of_a_condition_moves_only_with_its_status() -> None:
    old = "2025-01-01T00:00:00Z"
    before = [{"type": kind, "status": "True", "lastTransitionTime": old} for kind in TYPES[:2]]
    observed = settled(status={"conditions": before})
    found = merged(observed, [Said("Ready", True, "A"), Said("Available", False, "B", "x" * 2000)])
    assert [entry.type for entry in found] == list(TYPES)
    assert found[0].last_transition_time == old
    assert found[1].last_transition_time == format_time(NOW)
    assert len(found[1].message) == 1024
    assert (found[2].status, found[2].reason) == ("Unknown", "NotObserved")


def said_of(observed: Observed) -> dict[str, Any]:
    found = planned(observed)
    plan_record = found.formation.record
    return status(
        observed, observed.record if plan_record is None else plan_record, found.states,
        found.budget, found.leader, found.healing.notes, found.image, merged(observed, found.said),
    )  # fmt: skip


def test_the_status_is_what_was_observed() -> None:
    found = said_of(settled(seat(2, said(2, shards_missing=3)), seat(3, SILENT, pod=None)))
    assert found["formed"] is True
    assert (found["nodesSummary"], found["layoutSummary"]) == ("4/5", "3+2")
    assert found["shards"]["missing"] == 3
    assert found["failures"] == {"tolerated": 2, "survivable": 0}
    assert [member["zone"] for member in found["members"]][:3] == ["zone-0", "zone-1", "zone-2"]
    assert found["members"][3]["lastSeen"] == format_time(NOW)
    assert found["layout"]["epoch"] == 1


def test_what_is_not_counted_is_not_called_nothing() -> None:
    waits = seat(3, fresh_directory(3, 9))
    found = said_of(settled(waits))
    assert found["shards"]["missing"] == 0, "who is no member is due nothing"
    found = said_of(settled(seat(2, said(2, shards_missing=None)), waits))
    assert "missing" not in found["shards"]
    assert "shardsMissing" not in found["members"][2]


def test_a_status_keeps_its_word_when_the_record_is_gone() -> None:
    nobody: dict[str, Any] = {"pod": None, "claim": None, "host": None, "report": SILENT}
    found = said_of(settled(*(seat(o, **nobody) for o in range(5)), record=None))
    assert found["formed"] is True
    assert found["clusterId"]


# -- the image


@pytest.mark.parametrize(
    ("spec", "decided", "wanted"),
    [
        ({"image": "mine:3"}, "distkv:1", "mine:3"),
        ({}, "distkv:0", "distkv:0"),
        ({}, "", "distkv:1"),
    ],
)
def test_an_unset_image_is_resolved_once(spec: dict[str, Any], decided: str, wanted: str) -> None:
    observed = settled(spec=spec, status={"formed": True, "image": decided})
    assert planned(observed).image == wanted


def test_a_newer_operator_alone_restarts_nothing() -> None:

    found = plan(settled(), OperatorFacts("distkv:2", None), FRESH)
    assert (found.steps, found.rolling.outdated) == ((), ())


def test_a_pod_that_cannot_be_placed_says_why() -> None:
    placeless = pod(1)
    placeless["spec"].pop("nodeName")
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    placeless["status"] = {"phase": "Pending", "conditions": [unschedulable | {"message": "full"}]}
    found = condition(planned(settled(seat(1, SILENT, pod=placeless, host=None))), "Ready")
    assert "Unschedulable: full" in found.message
