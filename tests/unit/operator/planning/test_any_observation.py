"""Whatever is observed: what a plan never does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from hypothesis import event, given, settings
from hypothesis import strategies as st

from distkv_operator.planning.conditions import TYPES, merged
from distkv_operator.planning.observed import Observed, format_time
from distkv_operator.planning.plan import Plan
from distkv_operator.planning.record import Holder
from distkv_operator.planning.status import status
from distkv_operator.planning.steps import (
    Apply,
    Command,
    CreateOnce,
    DeleteClaim,
    DeletePod,
    OrphanStatefulSet,
    Remove,
    Step,
    WriteRecord,
)

from .support import (
    OLD,
    SILENT,
    before,
    claim,
    fresh_directory,
    going,
    host,
    incarnation,
    planned,
    pod,
    progress,
    record,
    said,
    seat,
    settled,
    unfounded,
    waiting,
)


def kinds(ordinal: int) -> list[dict[str, Any]]:
    """What may be the matter with a seat; fields of Seat."""
    o = ordinal
    placeless = pod(o)
    placeless["spec"].pop("nodeName")
    away = host(o, ready=False, since=before(9_000))
    fresh = fresh_directory(o, 700 + o)
    return [
        {"report": said(o, shards_missing=2)},
        {"report": said(o, shards_missing=None)},
        {"report": said(o, state="catching up", serving=False)},
        {"report": said(o, state="no quorum", serving=False)},
        {"report": said(o, state="starting", serving=False)},
        {"report": fresh},
        {"report": fresh, "claim": claim(o, f"new-{o}")},
        {"report": unfounded(o)},
        {"report": SILENT},
        {"report": SILENT, "pod": None},
        {"report": SILENT, "pod": None, "claim": None},
        {"report": SILENT, "host": away},
        {"report": SILENT, "host": host(o, ready=False, since=before(5))},
        {"report": SILENT, "host": None},
        {"report": SILENT, "pod": placeless, "host": None},
        {"report": SILENT, "pod": placeless, "volume_host": f"host-{o}", "host": away},
        {
            "report": SILENT,
            "pod": placeless,
            "volume_host": f"host-{o}",
            "host": host(o, unschedulable=True),
        },
        {"report": SILENT, "pod": placeless, "volume_host": "host-9", "host": None},
        {"report": SILENT, "pod": pod(o, status=waiting("CrashLoopBackOff"))},
        {"report": SILENT, "pod": pod(o, OLD, status=waiting("ErrImagePull"))},
        {"report": SILENT, "claim": claim(o, status={"phase": "Lost"})},
        {"claim": going(claim(o))},
        {"report": SILENT, "claim": going(claim(o))},
        {"pod": going(pod(o))},
        {"pod": pod(o, OLD)},
        {"pod": pod(o, OLD), "report": said(o, shards_missing=1)},
    ]


SPECS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "volumeLossPolicy": st.sampled_from([{"delay": "30s"}, {"mode": "Manual"}]),
        "updateStrategy": st.just({"type": "Manual"}),
        "image": st.just("distkv:2"),
        "storage": st.just({"size": "20Gi"}),
        "deletionPolicy": st.just("Delete"),
        "gateway": st.just({"replicas": 0}),
    },
)
LAYOUTS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {}, {"dataShards": 4, "parityShards": 3}, {"dataShards": 2, "parityShards": 1}]
)


class Case(NamedTuple):
    """What is drawn: small enough to be read. `ills`: index into `kinds` by ordinal; of the rest
    all is well. `leader`: which of those that serve; None: nobody."""

    ills: Mapping[int, int]
    leader: int | None
    survives: int | None
    asked: tuple[int, ...]
    seen_seconds: float
    spec: Mapping[str, Any]
    word: int
    record: int
    expandable: bool | None
    unread: str = ""


CASES = st.builds(
    Case,
    ills=st.dictionaries(st.integers(0, 4), st.integers(0, len(kinds(0)) - 1), max_size=4),
    leader=st.sampled_from([0, 0, 0, 1, 2, 3, 4, None]),
    survives=st.sampled_from([2, 2, 2, 1, 0, None]),
    asked=st.sampled_from([(), (), (), (1,), (2, 3)]),
    seen_seconds=st.sampled_from([9_000, 9_000, 5]),
    spec=st.builds(lambda spec, layout: spec | layout, SPECS, LAYOUTS),
    word=st.sampled_from([0, 0, 0, 0, 1, 2]),
    record=st.sampled_from([0, 0, 0, 0, 0, 1, 2, 3]),
    expandable=st.sampled_from([True, False, None]),
    unread=st.sampled_from(["", "", "", "Service", "StatefulSet", "Node"]),
)
WORDS = (progress(), None, progress(changing=True, records_left=4))
ASKING = {o: (Holder(700 + o, f"new-{o}"), Holder(700 + o, f"claim-{o}")) for o in range(5)}
RECORDS = (record(joining=ASKING), record(formed=False), None, record())


def observed_in(case: Case) -> Observed:
    """The observation that a case describes."""
    seats = {o: seat(o, said(o)) for o in range(5)}
    for ordinal, kind in case.ills.items():
        seats[ordinal] = seat(ordinal, **{"report": said(ordinal)} | kinds(ordinal)[kind])
    serving = [o for o, found in seats.items() if found.report.is_serving]
    leader = None
    if serving and case.leader is not None:
        leader = serving[case.leader % len(serving)]
        missing = seats[leader].report.missing
        report = said(leader, leads=True, survives=case.survives, shards_missing=missing)
        seats[leader] = replace(seats[leader], report=report)
    asked = ",".join(f"{o}={incarnation(o)}" for o in case.asked)
    members = [{"ordinal": o, "lastSeen": format_time(before(case.seen_seconds))} for o in seats]
    observed = settled(*seats.values(), spec=case.spec, annotations={"distkv.io/replace": asked})
    return replace(
        observed,
        status=dict(observed.status) | {"members": members},
        layout_progress=None if leader is None else WORDS[case.word],
        record=RECORDS[case.record],
        expandable=case.expandable,
        unread={case.unread: "cut off"} if case.unread else {},
    )


def destructive(found: Plan) -> list[Step]:
    kind = DeletePod | DeleteClaim | OrphanStatefulSet | Remove
    return [step for step in found.steps if isinstance(step, kind)]


def ordinal_of(step: DeletePod | DeleteClaim) -> int:
    return int(step.name.rpartition("-")[2])


def whole(observed: Observed, ordinal: int) -> bool:
    """By the node's own word: it serves as the member, and lacks nothing."""
    report = observed.seats[ordinal].report
    is_member = report.incarnation == incarnation(ordinal)
    return is_member and report.is_serving and report.missing == 0


def taken_away(found: Plan) -> list[DeletePod | DeleteClaim]:
    return [step for step in found.steps if isinstance(step, DeletePod | DeleteClaim)]


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_one_member_at_a_time(case: Case) -> None:
    observed = observed_in(case)
    found = planned(observed)
    ordinals = {ordinal_of(step) for step in taken_away(found)}
    event(f"taken away: {len(ordinals)}")
    assert len(ordinals) <= 1


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_a_volume_goes_only_if_the_others_hold_everything(case: Case) -> None:
    observed = observed_in(case)
    for step in planned(observed).steps:
        if isinstance(step, DeleteClaim):
            ordinal = ordinal_of(step)
            event("a volume goes")
            others = [o for o in range(5) if o != ordinal and whole(observed, o)]
            assert len(others) >= 3, "k of the others"
            assert not any(
                observed.seats[o].report.missing or observed.seats[o].report.state == "catching up"
                for o in range(5)
                if o != ordinal
            ), "another one is being refilled"
            assert any(s.report.role == "leader" for s in observed.seats)
            assert step.uid == observed.seats[ordinal].claim_uid


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_a_pod_that_serves_goes_only_if_all_others_are_whole(case: Case) -> None:
    observed = observed_in(case)
    for step in planned(observed).steps:
        if isinstance(step, DeletePod) and whole(observed, ordinal_of(step)):
            ordinal = ordinal_of(step)
            event("a serving pod goes")
            given_up = (
                observed.seats[ordinal].claim_is_terminating
                or f"{ordinal}=" in observed.annotations["distkv.io/replace"]
            )
            others = [o for o in range(5) if o != ordinal and whole(observed, o)]
            assert len(others) == 4 or (given_up and len(others) >= 3)


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_planning_again_repeats_nothing_that_takes_away(case: Case) -> None:
    observed = observed_in(case)
    steps = taken_away(planned(observed))
    again = taken_away(planned(after(observed, steps)))
    assert not set(steps) & set(again)
    event(f"taken away: {bool(steps)}")
    for step in again:
        # Deleting a pod that cannot even start takes nothing away.
        is_broken = observed.seats[ordinal_of(step)].is_broken and isinstance(step, DeletePod)
        assert not steps or step.name in {each.name for each in steps} or is_broken


def after(observed: Observed, steps: list[DeletePod | DeleteClaim]) -> Observed:
    """The pod and its claim are gone, and no other came yet."""
    seats = list(observed.seats)
    for step in steps:
        found = seats[ordinal_of(step)]
        if isinstance(step, DeletePod):
            found = replace(found, pod=None, host=None, report=SILENT)
            if found.claim_is_terminating:
                found = replace(found, claim=None)
        elif found.pod is None:
            found = replace(found, claim=None)
        else:
            assert found.claim is not None
            found = replace(found, claim=going(found.claim))
        seats[ordinal_of(step)] = found
    return replace(observed, seats=tuple(seats))


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_nobody_is_admitted_but_on_another_claim_or_by_a_person(case: Case) -> None:
    observed = observed_in(case)
    for step in planned(observed).steps:
        if isinstance(step, Command) and step.path.endswith("/replace"):
            event("admitted")
            ordinal = int(step.body["ordinal"])
            assert observed.record is not None
            recorded = observed.record.members[ordinal].claim
            by_a_person = f"{ordinal}=" in observed.annotations["distkv.io/replace"]
            assert observed.seats[ordinal].claim_uid != recorded or by_a_person
            assert step.body["old"] == incarnation(ordinal)
            assert step.body["new"] == observed.seats[ordinal].report.incarnation
            fresh = Holder(int(step.body["new"]), observed.seats[ordinal].claim_uid)
            assert observed.record.is_joining(ordinal, fresh), "it would not be known later"


@settings(max_examples=200, deadline=None)
@given(CASES)
def test_what_was_formed_is_never_founded_nor_forgotten(case: Case) -> None:
    observed = observed_in(case)
    found = planned(observed)
    formed = observed.record is not None and observed.record.formed
    for step in found.steps:
        if isinstance(step, Command) and step.path.endswith("/found"):
            assert not formed
            assert not any(s.report.is_formed for s in observed.seats)
        if isinstance(step, WriteRecord):
            assert step.record.cluster_id == record().cluster_id
            assert step.record.formed or not formed
        if isinstance(step, CreateOnce):
            assert not formed
    if found.formation.holds:
        assert destructive(found) == []


@settings(max_examples=200, deadline=None)
@given(CASES, st.sampled_from(["Service", "StatefulSet", "PodDisruptionBudget", "Node"]))
def test_nothing_is_taken_away_by_half_of_what_there_is(case: Case, unread: str) -> None:
    observed = observed_in(case._replace(unread=unread))
    found = planned(observed)
    assert destructive(found) == []
    assert not found.is_settled
    for step in found.steps:
        if isinstance(step, Command):
            assert not step.path.endswith("/layout")
        if isinstance(step, Apply):
            assert step.manifest["kind"] != unread
            if step.manifest["kind"] == "StatefulSet":
                assert step.manifest["spec"]["replicas"] >= 5
            if step.manifest["kind"] == "PodDisruptionBudget":
                allowed = step.manifest["spec"]["maxUnavailable"]
                assert allowed == 0 or step.manifest["metadata"]["name"] != "store"
    event(f"taken away if all were known: {bool(taken_away(planned(observed_in(case))))}")


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_plans_are_pure_and_pauses_are_kept(case: Case) -> None:
    observed = observed_in(case)
    first, second = planned(observed), planned(observed)
    assert first == second
    held = dict(observed.annotations) | {"distkv.io/paused": "true"}
    assert planned(replace(observed, annotations=held)).steps == ()


@settings(max_examples=100, deadline=None)
@given(CASES)
def test_there_is_always_something_to_say(case: Case) -> None:
    observed = observed_in(case)
    found = planned(observed)
    conditions = merged(observed, found.said)
    assert [entry.type for entry in conditions] == list(TYPES)
    by_type: Mapping[str, Any] = {entry.type: entry for entry in conditions}
    for entry in conditions:
        assert entry.reason
        assert entry.message or entry.type in ("KeyMissing", "ReconcileSucceeded")
    if by_type["Ready"].status == "True":
        assert by_type["Available"].status == by_type["QuorumHealthy"].status == "True"
    if taken_away(found) and found.formation.reason == "Formed":
        assert not found.is_settled
        assert by_type["Progressing"].status == "True"
    status(
        observed, found.formation.record, found.states, found.budget, found.leader,
        found.healing.notes, found.image, conditions,
    )  # fmt: skip
