"""A change of k and m: what the leader's word leads to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from distkv_operator.planning.layout import LayoutChange, change_layout
from distkv_operator.planning.observed import Observed
from distkv_operator.planning.steps import Apply, Command, DeleteClaim, WriteRecord

from .support import (
    SILENT,
    asking,
    claim,
    condition,
    going,
    incarnation,
    judged,
    planned,
    pod,
    progress,
    record,
    said,
    seat,
    settled,
    taken,
)

GROWN = {"dataShards": 4, "parityShards": 3}
SHRUNK = {"dataShards": 2, "parityShards": 1}
NOBODY: dict[str, Any] = {"pod": None, "claim": None, "host": None, "report": SILENT}


def joining(ordinal: int, **changes: Any) -> dict[str, Any]:
    found = {"ordinal": ordinal, "incarnation": incarnation(ordinal), "caught_up": True}
    return found | changes


def changing(observed: Observed) -> LayoutChange:
    assert observed.record is not None
    return change_layout(observed, observed.record, judged(observed)[2])


def test_nothing_to_change() -> None:
    assert changing(settled()) == LayoutChange(5)


def test_growing_needs_the_pods_first() -> None:
    found = changing(settled(spec=GROWN))
    assert (found.replicas, found.steps) == (7, ())
    assert "nodes 5, 6 have to start and catch up first" in found.message


@pytest.mark.parametrize(
    "half",
    [
        [joining(5)],
        [joining(5), joining(6, caught_up=False)],
        [joining(5), joining(6, removed=True)],
    ],
    ids=["one", "behind", "removed"],
)
def test_growing_waits_until_all_have_caught_up(half: list[dict[str, Any]]) -> None:
    found = changing(
        settled(spec=GROWN, layout_progress=progress(waiting=half), record=asking(5, 6))
    )
    assert found.steps == ()
    assert "node" in found.message


def test_newcomers_are_recorded_with_their_claims_before_they_are_named() -> None:
    """One that is lost the moment after can then be told from a failed mount."""
    new = [seat(o, said(o, state="waiting to be admitted", serving=False)) for o in (5, 6)]
    ready = progress(waiting=[joining(5), joining(6)])
    observed = settled(*new, spec=GROWN, layout_progress=ready)
    steps = planned(observed).steps
    assert not any(isinstance(step, Command) for step in steps)
    (written,) = [step.record for step in steps if isinstance(step, WriteRecord)]
    assert written.joining == asking(5, 6).joining
    following = planned(replace(observed, record=written)).steps
    assert [type(step) for step in following if isinstance(step, Command | WriteRecord)] == [
        Command
    ]


def test_growing_names_all_members() -> None:
    ready = progress(waiting=[joining(5), joining(6)])
    (step,) = changing(settled(spec=GROWN, layout_progress=ready, record=asking(5, 6))).steps
    assert isinstance(step, Command)
    assert step.ordinal == 0
    assert step.body == {
        "owner": record().owner,
        "data_shards": 4,
        "parity_shards": 3,
        "members": [[o, incarnation(o)] for o in range(7)],
        "epoch": 1,
    }


def test_shrinking_keeps_the_pods_until_the_leader_lets_them_go() -> None:
    found = changing(settled(spec=SHRUNK))
    (step,) = found.steps
    assert isinstance(step, Command)
    assert step.body["members"] == [[o, incarnation(o)] for o in range(3)]
    assert found.replicas == 5
    three = {o: incarnation(o) for o in range(3)}
    seats = [seat(o, said(o, k=2, members=three, epoch=2, leads=o == 0)) for o in range(5)]
    leaving = [[3, incarnation(3)], [4, incarnation(4)]]
    moving = progress(3, 2, changing=True, leaving=leaving, records_left=8, bytes_left=99)
    found = changing(settled(*seats, spec=SHRUNK, layout_progress=moving))
    assert (found.replicas, found.steps) == (5, ())
    assert "8 records (99 bytes)" in found.message
    done = settled(*seats, spec=SHRUNK, layout_progress=progress(3, 2))
    assert changing(done).replicas == 3
    assert taken(changing(done).steps) == [], "their pods are there"


def test_the_claims_of_nodes_that_left_go_when_their_pods_are_gone() -> None:
    three = {o: incarnation(o) for o in range(3)}
    seats = [seat(o, said(o, k=2, members=three, epoch=2, leads=o == 0)) for o in range(3)]
    seats += [seat(3, SILENT, pod=None), seat(4, SILENT)]
    found = changing(settled(*seats, spec=SHRUNK, layout_progress=progress(3, 2)))
    (step,) = found.steps
    assert isinstance(step, DeleteClaim)
    assert step.uid == "claim-3"


def test_a_node_that_left_and_speaks_of_the_old_layout_misleads_nobody() -> None:
    three = {o: incarnation(o) for o in range(3)}
    seats = [seat(o, said(o, k=2, members=three, epoch=2, leads=o == 0)) for o in range(3)]
    seats += [seat(o, said(o, serving=False, state="removed", applied=99)) for o in (3, 4)]
    observed = settled(*seats, spec=SHRUNK, layout_progress=progress(3, 2))
    assert observed.nodes == 3
    assert changing(observed).replicas == 3
    assert condition(planned(observed), "QuorumHealthy").status is True


def test_without_the_leaders_word_nothing_is_scaled_down() -> None:
    grown = settled(spec=SHRUNK, layout_progress=None)
    assert changing(grown) == LayoutChange(5, is_known=False)
    children = {key: child for key, child in grown.children.items() if key[0] != "StatefulSet"}
    silent = tuple(replace(each, report=SILENT) for each in grown.seats)
    orphaned = replace(grown, children=children, seats=silent)
    assert orphaned.nodes == 3
    assert changing(orphaned).replicas == 5, "the StatefulSet is gone, its pods are there"
    podless = replace(orphaned, seats=tuple(replace(s, pod=None) for s in silent))
    assert changing(podless).replicas == 5, "the record knows of five"


def test_an_unknown_layout_is_not_settled() -> None:
    found = planned(settled(layout_progress=None))
    assert not found.is_settled
    assert condition(found, "Progressing").reason == "LayoutUnknown"
    assert planned(settled()).is_settled


def test_a_change_taken_back_half_way_removes_the_pods_that_came_for_it() -> None:
    new = [seat(o, SILENT, pod=pod(o), claim=claim(o)) for o in (5, 6)]
    observed = settled(*new, layout_progress=progress(waiting=[joining(5), joining(6)]))
    assert changing(observed) == LayoutChange(5)


def shrinking(**changes: Any) -> Observed:
    """From 3+2 to 2+1: nodes 3 and 4 leave; and the specification wants 3+2 again."""
    three = {o: incarnation(o) for o in range(3)}
    seats = [seat(o, said(o, k=2, members=three, epoch=2, leads=o == 0)) for o in range(5)]
    leaving = [[3, incarnation(3)], [4, incarnation(4)]]
    moving = progress(3, 2, epoch=2, changing=True, leaving=leaving, records_left=8, bytes_left=9)
    return settled(*seats, layout_progress=moving | changes)


def test_a_shrink_turned_back_takes_those_that_leave_as_they_are() -> None:
    """They hold their shards still, and everybody knows them; later they never come back."""
    found = changing(shrinking())
    (step,) = found.steps
    assert isinstance(step, Command)
    assert step.body["members"] == [[o, incarnation(o)] for o in range(5)]
    assert (step.body["data_shards"], step.body["epoch"]) == (3, 2)
    assert found.replicas == 5


def test_a_shrink_turned_into_a_growth_waits_for_the_new_ones_alone() -> None:
    observed = replace(shrinking(waiting=[joining(5), joining(6)]), record=asking(5, 6))
    grown = replace(observed, cluster=settled(spec=GROWN).cluster)
    (step,) = changing(grown).steps
    assert isinstance(step, Command)
    assert step.body["members"] == [[o, incarnation(o)] for o in range(7)]
    alone = replace(grown, layout_progress=progress(3, 2, leaving=[[3, incarnation(3)]]))
    assert "nodes 4, 5, 6 have to start" in changing(alone).message


def left(*ordinals: int) -> Observed:
    """2+1 is in force and 3+2 wanted again; these nodes run, and had left with an older 3+2."""
    three = {o: incarnation(o) for o in range(3)}
    seats = [seat(o, said(o, k=2, members=three, epoch=2, leads=o == 0)) for o in range(3)]
    seats += [
        seat(o, said(o, serving=False, state="retired"))
        if o in ordinals
        else seat(o, SILENT, pod=None)
        for o in (3, 4)
    ]
    waiting = [joining(o, removed=True) for o in ordinals]
    return settled(*seats, layout_progress=progress(3, 2, epoch=3, waiting=waiting))


def test_nodes_that_had_left_start_anew_when_their_seats_are_wanted_again() -> None:
    """They are never admitted again: waited for as they are, they would be so for ever."""
    assert taken(changing(left(3, 4)).steps) == ["data-store-3", "store-3"], "one at a time"
    assert changing(left(3, 4)).replicas == 5
    assert taken(changing(left(4)).steps) == ["data-store-4", "store-4"]
    assert taken(changing(left()).steps) == []


@pytest.mark.parametrize(
    ("changes", "steps"),
    [
        ({"claim": going(claim(3))}, ["store-3"]),
        ({"pod": going(pod(3))}, ["data-store-3"]),
        ({"report": said(3, incarnation=77, state="waiting to be admitted")}, []),
        ({"report": SILENT}, []),
    ],
    ids=["claim goes", "pod goes", "another directory by now", "silent"],
)
def test_only_what_had_left_is_deleted_and_only_once(
    changes: dict[str, Any], steps: list[str]
) -> None:
    observed = left(3)
    seats = [replace(s, **changes) if s.ordinal == 3 else s for s in observed.seats]
    assert taken(changing(replace(observed, seats=tuple(seats))).steps) == steps


def test_the_statefulset_follows() -> None:
    steps = planned(settled(spec=GROWN)).steps
    (sets,) = [
        s.manifest for s in steps if isinstance(s, Apply) and s.manifest["kind"] == "StatefulSet"
    ]
    assert sets["spec"]["replicas"] == 7


def test_the_condition_says_what_is_under_way() -> None:
    found = planned(settled(spec=GROWN))
    assert condition(found, "Progressing").reason == "ChangingLayout"
    assert "from 3+2 to 4+3" in condition(found, "Progressing").message


def test_the_leaders_word_counts_the_members() -> None:
    """The statuses were asked before the layout changed, or say too little."""
    ready = progress(waiting=[joining(5), joining(6)])
    observed = settled(spec=GROWN, layout_progress=ready, record=asking(5, 6))
    mute = tuple(replace(s, report=said(s.ordinal, leads=s.ordinal == 0, cluster="")) for s in
                 observed.seats)  # fmt: skip
    (step,) = changing(replace(observed, seats=mute)).steps
    assert isinstance(step, Command)
    assert [ordinal for ordinal, _ in step.body["members"]] == list(range(7))
    done = progress(7, 4)
    assert changing(settled(spec=GROWN, layout_progress=done)) == LayoutChange(7)


def test_nodes_that_still_leave_keep_their_pods_and_claims() -> None:
    gone = seat(4, SILENT, pod=None)
    still = progress(4, 3, leaving=[[4, incarnation(4)]])
    members = {o: incarnation(o) for o in range(4)}
    seats = [seat(o, said(o, members=members, k=3, epoch=2, leads=o == 0)) for o in range(4)]
    spec = {"dataShards": 3, "parityShards": 1}
    observed = settled(*seats, gone, spec=spec, layout_progress=still)
    assert changing(observed) == LayoutChange(5)
