"""Members that are ailing: what is admitted, what is given up, and what has to wait."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distkv_operator.planning.healing import Healing, heal
from distkv_operator.planning.observed import Observed, Seat, format_time
from distkv_operator.planning.record import Holder, Record
from distkv_operator.planning.steps import Command, DeleteClaim, DeletePod, WriteRecord

from .support import (
    SILENT,
    before,
    claim,
    condition,
    fresh_directory,
    going,
    host,
    incarnation,
    judged,
    last_seen,
    planned,
    pod,
    progress,
    record,
    said,
    seat,
    settled,
    taken,
)

NEW = 777
POLICY = {"volumeLossPolicy": {"delay": "60s"}}
REPLACE = "distkv.io/replace"


def healing(observed: Observed) -> Healing:
    assert observed.record is not None
    states, budget, leader = judged(observed)
    return heal(observed, observed.record, states, budget, leader)


def gone(ordinal: int, seconds: float = 10_000, **changes: Any) -> Seat:
    """Its host has not been ready for so long."""
    away = host(ordinal, ready=False, since=before(seconds))
    return seat(ordinal, SILENT, host=away, **changes)


def unmounted(ordinal: int, seconds: float, **changes: Any) -> Seat:
    """Its pod has its place, and its volume has not been mounted there for so long."""
    made = pod(ordinal)
    since = {"lastTransitionTime": format_time(before(seconds))}
    waits = [
        {"type": "PodScheduled", "status": "True", **since},
        {"type": "PodReadyToStartContainers", "status": "False", **since},
    ]
    made["status"] = {"phase": "Pending", "conditions": waits}
    return seat(ordinal, SILENT, pod=made, **changes)


def test_nothing_ails() -> None:
    assert healing(settled()) == Healing()


# -- admission


def recorded(ordinal: int, *asking: Holder) -> Record:
    """The record, in which these directories may be admitted."""
    return record(joining={ordinal: asking})


def test_a_fresh_directory_on_another_claim_is_admitted_by_itself() -> None:
    fresh = seat(2, fresh_directory(2, NEW), claim=claim(2, "another"))
    found = healing(settled(fresh, record=recorded(2, Holder(NEW, "another"))))
    (step,) = found.steps
    assert isinstance(step, Command)
    assert (step.ordinal, step.path) == (0, "/v1/admin/replace")
    assert step.body == {
        "owner": record().owner,
        "ordinal": 2,
        "old": incarnation(2),
        "new": NEW,
    }


def test_an_empty_directory_on_the_same_claim_waits_for_a_person() -> None:
    observed = settled(seat(2, fresh_directory(2, NEW)))
    found = healing(observed)
    assert found.steps == ()
    assert f"{REPLACE}=2={incarnation(2)}" in found.notes[2]
    assert condition(planned(observed), "Progressing").status is False
    asked = replace(
        observed,
        annotations={REPLACE: f"2={incarnation(2)}"},
        record=recorded(2, Holder(NEW, "claim-2")),
    )
    assert [type(step) for step in healing(asked).steps] == [Command]


@pytest.mark.parametrize(
    "before",
    [(), (Holder(NEW, "some"),), (Holder(5, "another"),)],
    ids=["nobody", "on another claim", "another one"],
)
def test_it_is_recorded_with_its_claim_before_it_is_admitted(before: tuple[Holder, ...]) -> None:
    fresh = seat(2, fresh_directory(2, NEW), claim=claim(2, "another"))
    found = healing(settled(fresh, record=recorded(2, *before)))
    (step,) = found.steps
    assert isinstance(step, WriteRecord)
    assert step.record.is_joining(2, Holder(NEW, "another"))
    assert step.record.members == record().members
    assert "recorded with its claim" in found.notes[2]
    assert [type(step) for step in healing(settled(fresh, record=step.record)).steps] == [Command]


def test_only_who_may_be_admitted_is_recorded() -> None:
    assert healing(settled(seat(2, fresh_directory(2, NEW)))).steps == ()


def lost_the_moment_after(claim_of_next: str) -> Observed:
    """NEW was admitted on claim "another" and lost before anybody saw it there."""
    seated = {o: incarnation(o) for o in range(5)} | {2: NEW}
    seats = [
        seat(o, said(o, members=seated, leads=o == 0, incarnation=seated[o])) for o in range(5)
    ]
    empty = {"state": "waiting to be admitted", "serving": False, "formed": False}
    report = said(2, members=seated, incarnation=888, shards_missing=None, **empty)
    seats[2] = seat(2, report, claim=claim(2, claim_of_next))
    return settled(*seats, record=recorded(2, Holder(NEW, "another")))


def test_who_was_lost_the_moment_after_its_admission_is_replaced_by_itself() -> None:
    observed = lost_the_moment_after("a third")
    (step,) = healing(observed).steps
    assert isinstance(step, WriteRecord)
    assert step.record.members[2] == Holder(NEW, "another")
    (command,) = healing(replace(observed, record=step.record)).steps
    assert isinstance(command, Command)
    assert (command.body["old"], command.body["new"]) == (NEW, 888)


def test_but_not_by_an_empty_directory_on_the_same_claim() -> None:
    observed = lost_the_moment_after("another")
    (step,) = healing(observed).steps
    assert isinstance(step, WriteRecord)
    again = healing(replace(observed, record=step.record))
    assert again.steps == ()
    assert "its claim is the one it had before" in again.notes[2]


def test_the_admission_of_an_earlier_one_can_come_true_late() -> None:
    """Its request was answered by nobody, and the next one is on its way by then."""
    observed = lost_the_moment_after("a third")
    asking = recorded(2, Holder(NEW, "another"), Holder(888, "a third"))
    (step, *_) = healing(replace(observed, record=asking)).steps
    assert isinstance(step, WriteRecord)
    assert step.record.members[2] == Holder(NEW, "another")


@pytest.mark.parametrize(
    "holder", [Holder(incarnation(2), ""), Holder(55, "claim-2"), None], ids=str
)
def test_a_claim_that_was_never_recorded_with_the_member_proves_nothing(
    holder: Holder | None,
) -> None:
    members = dict(record().members)
    del members[2]
    if holder is not None:
        members[2] = holder
    fresh = seat(2, fresh_directory(2, NEW), claim=claim(2, "another"))
    found = healing(settled(fresh, record=record(members=members)))
    assert not any(isinstance(step, Command) for step in found.steps)


def test_the_annotation_for_an_earlier_incarnation_does_nothing() -> None:
    asked = {REPLACE: "2=1"}
    assert healing(settled(seat(2, fresh_directory(2, NEW)), annotations=asked)).steps == ()


def test_an_annotation_that_cannot_be_read_is_said() -> None:
    found = healing(settled(annotations={REPLACE: "two"}))
    assert "ORDINAL=INCARNATION" in found.notes[-1]


def test_admission_waits_for_a_leader() -> None:
    leaderless = [seat(o, said(o)) for o in (0, 1)]
    fresh = seat(2, fresh_directory(2, NEW), claim=claim(2, "another"))
    asking = recorded(2, Holder(NEW, "another"))
    found = healing(settled(*leaderless, fresh, record=asking))
    assert found.steps == ()
    assert "no leader" in found.notes[2]


def test_who_was_admitted_is_recorded_with_its_claim() -> None:
    seated = {o: incarnation(o) for o in range(5)} | {2: NEW}
    seats = [
        seat(o, said(o, members=seated, leads=o == 0, incarnation=seated[o])) for o in range(5)
    ]
    seats[2] = replace(seats[2], claim=claim(2, "another"))
    (step,) = healing(settled(*seats)).steps
    assert isinstance(step, WriteRecord)
    assert step.record.members[2] == Holder(NEW, "another")


def test_two_fresh_directories_are_both_admitted() -> None:
    fresh = (seat(o, fresh_directory(o, NEW + o), claim=claim(o, f"new-{o}")) for o in (2, 3))
    asking = {o: (Holder(NEW + o, f"new-{o}"),) for o in (2, 3)}
    found = healing(settled(*fresh, record=record(joining=asking)))
    commands = [s for s in found.steps if isinstance(s, Command)]
    assert [command.body["ordinal"] for command in commands] == [2, 3]


# -- giving a volume up


def test_a_host_that_is_gone_for_longer_than_the_policy_costs_claim_and_pod() -> None:
    found = healing(settled(gone(1), spec=POLICY, **last_seen(1)))
    lost, replaced = found.steps
    assert isinstance(lost, DeleteClaim)
    assert isinstance(replaced, DeletePod)
    assert (lost.uid, replaced.uid, replaced.force) == ("claim-1", "pod-1", True)
    assert found.disrupts


@pytest.mark.parametrize(
    ("of_host", "of_status"), [(30, 10_000), (10_000, 30), (10_000, None)], ids=str
)
def test_it_waits_for_the_policys_delay(of_host: float, of_status: float | None) -> None:
    """From when the host went, and from when the node fell silent: the later of both."""
    status = {} if of_status is None else last_seen(1, seconds=of_status)
    found = healing(settled(gone(1, of_host), spec=POLICY, **status))
    assert found.steps == ()
    assert "is given up in" in found.notes[1]


def test_a_host_that_was_deleted_is_gone() -> None:
    lost = seat(1, SILENT, host=None)
    assert taken(healing(settled(lost, spec=POLICY, **last_seen(1))).steps) == [
        "data-store-1",
        "store-1",
    ]


def test_manual_policy_says_what_to_do_and_does_it_when_told() -> None:
    manual = {"volumeLossPolicy": {"mode": "Manual"}}
    observed = settled(gone(1), spec=manual, **last_seen(1))
    found = healing(observed)
    assert found.steps == ()
    assert f"{REPLACE}=1={incarnation(1)}" in found.notes[1]
    told = replace(observed, annotations={REPLACE: f"1={incarnation(1)}"})
    assert taken(healing(told).steps) == ["data-store-1", "store-1"]


def test_a_lost_volume_is_given_up() -> None:
    lost = seat(1, SILENT, claim=claim(1, status={"phase": "Lost"}))
    assert "data-store-1" in taken(healing(settled(lost, spec=POLICY, **last_seen(1))).steps)


def test_a_claim_that_somebody_deleted_costs_only_the_pod() -> None:
    found = healing(settled(seat(1, claim=going(claim(1)))))
    (step,) = found.steps
    assert isinstance(step, DeletePod)
    assert not step.force, "it hands over first"


def test_a_drained_host_gives_its_pod_another_volume() -> None:
    """The pod was evicted, and its volume ties it to a host that takes nobody."""
    placeless = pod(1)
    placeless["spec"].pop("nodeName")
    cordoned = host(1, unschedulable=True)
    observed = settled(
        seat(1, SILENT, pod=placeless, host=cordoned, volume_host="host-1"),
        spec=POLICY,
        **last_seen(1),
    )
    assert taken(healing(observed).steps) == ["data-store-1", "store-1"]
    back = replace(observed.seats[1], host=host(1))
    seats = (observed.seats[0], back, *observed.seats[2:])
    assert healing(replace(observed, seats=seats)).steps == (), "no longer cordoned"


def test_a_pod_that_finds_no_place_keeps_its_volume() -> None:
    placeless = pod(1)
    placeless["spec"].pop("nodeName")
    observed = settled(seat(1, SILENT, pod=placeless, host=None), spec=POLICY, **last_seen(1))
    assert healing(observed).steps == ()


# -- what does not bear it


@pytest.mark.parametrize(
    ("others", "why"),
    [
        ([seat(2, said(2, shards_missing=3))], "node 2 is being brought back first"),
        ([seat(2, said(2, shards_missing=None))], "node 2 is being brought back first"),
        ([seat(2, said(2, state="catching up", serving=False))], "brought back first"),
        ([seat(2, SILENT), seat(3, SILENT)], "the others' shards would not do"),
        ([seat(0, said(0))], "no leader"),
        ([seat(0, said(0, leads=True, survives=None))], "not sure"),
    ],
    ids=["refilling", "uncounted", "catching up", "two silent", "leaderless", "unsure"],
)
def test_a_volume_is_kept_while_the_others_would_not_do(others: list[Seat], why: str) -> None:
    found = healing(settled(gone(1), *others, spec=POLICY, **last_seen(1)))
    assert taken(found.steps) == []
    assert why in found.notes[1]


def test_one_volume_at_a_time() -> None:
    found = healing(settled(gone(1), gone(3), spec=POLICY, **last_seen(1, 3)))
    assert taken(found.steps) == ["data-store-1", "store-1"]
    assert "one at a time" in found.notes[3]


def test_the_second_of_two_lost_waits_until_the_first_is_refilled() -> None:
    fresh = seat(1, fresh_directory(1, NEW), claim=claim(1, "another"))
    found = healing(settled(fresh, gone(3), spec=POLICY, **last_seen(3)))
    assert [type(step) for step in found.steps] == [WriteRecord]
    assert "node 1 is being brought back first" in found.notes[3]


@pytest.mark.parametrize(
    "first",
    [
        seat(1, SILENT, pod=None, claim=None),
        seat(1, SILENT, pod=going(pod(1)), claim=going(claim(1))),
        seat(1, SILENT, claim=claim(1, "another")),
    ],
    ids=["gone", "going", "starting anew"],
)
def test_the_second_waits_also_while_the_first_has_no_volume_yet(first: Seat) -> None:
    found = healing(settled(first, gone(3), spec=POLICY, **last_seen(3)))
    assert taken(found.steps) == []
    assert "node 1 is being brought back first" in found.notes[3]
    asked = {REPLACE: f"1={incarnation(1)},3={incarnation(3)}"}
    assert taken(healing(settled(first, annotations=asked)).steps) == []


def test_a_first_that_finds_no_place_does_not_hold_up_the_second() -> None:
    placeless = pod(1)
    placeless["spec"].pop("nodeName")
    placeless["status"] = {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "full"}
    ]}  # fmt: skip
    first = seat(1, SILENT, pod=placeless, claim=claim(1, "another"), host=None)
    found = healing(settled(first, gone(3), spec=POLICY, **last_seen(3)))
    assert taken(found.steps) == ["data-store-3", "store-3"]


def test_repair_goes_on_while_a_volume_cannot_be_given_up() -> None:
    fresh = seat(4, fresh_directory(4, NEW), claim=claim(4, "another"))
    away = [gone(1), gone(2)]
    asking = recorded(4, Holder(NEW, "another"))
    found = healing(settled(fresh, *away, spec=POLICY, record=asking, **last_seen(1, 2)))
    assert [type(step) for step in found.steps] == [Command]


def test_a_node_that_leaves_counts_while_old_values_need_it() -> None:
    """From 3+2 to 2+1: nodes 3 and 4 are gone, so old values have exactly the three others."""
    three = {o: incarnation(o) for o in range(3)}
    leaving = [[3, incarnation(3)], [4, incarnation(4)]]
    moving = progress(3, 2, changing=True, failures=1, leaving=leaving)
    view = {"survives": {"durable": 0}, "members": []}
    seats = [seat(0, said(0, members=three, k=2, epoch=2, leads=True, cluster_view=view))]
    seats += [seat(2, said(2, members=three, k=2, epoch=2)), gone(1)]
    seats += [seat(o, SILENT) for o in (3, 4)]
    spec = POLICY | {"dataShards": 2, "parityShards": 1}
    observed = settled(*seats, spec=spec, layout_progress=moving, **last_seen(1))
    assert taken(healing(observed).steps) == []
    rows = [{"ordinal": o, "incarnation": i, "up": True, "shards_missing": 0} for o, i in leaving]
    view["members"] = rows  # type: ignore[assignment]
    assert taken(healing(observed).steps) == ["data-store-1", "store-1"]


def test_no_roll_beside_a_volume_that_is_given_up() -> None:
    observed = settled(gone(1), spec=POLICY | {"image": "distkv:2"}, **last_seen(1))
    assert taken(planned(observed).steps) == ["data-store-1", "store-1"]


@pytest.mark.parametrize(("seconds", "given_up"), [(30, False), (80, False), (95, True)])
def test_a_volume_that_nobody_can_mount_is_given_up(seconds: float, given_up: bool) -> None:
    """A disk that went while its host stayed, or came back before anybody saw it go. Mounting
    may take longer than the policy's delay, and a pod may have been away before."""
    observed = settled(unmounted(3, seconds), spec=POLICY, **last_seen(3))
    found = healing(observed)
    deleted = [step for step in found.steps if isinstance(step, DeleteClaim | DeletePod)]
    assert bool(deleted) == given_up
    if given_up:
        assert "host-3 has not mounted its volume since" in found.notes[3]


def test_a_volume_that_nobody_can_mount_waits_while_another_member_is_away() -> None:
    away = seat(1, SILENT), seat(2, SILENT)
    found = healing(settled(*away, unmounted(3, 1000), spec=POLICY, **last_seen(1, 2, 3)))
    assert not found.disrupts
    assert "not given up yet" in found.notes[3]


def test_in_manual_mode_a_person_says_what_becomes_of_a_volume_that_nobody_can_mount() -> None:
    manual = {"volumeLossPolicy": {"mode": "Manual"}}
    found = healing(settled(unmounted(3, 1000), spec=manual, **last_seen(3)))
    assert not found.disrupts
    assert REPLACE in found.notes[3]
