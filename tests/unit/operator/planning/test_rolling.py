"""Bringing a change to the pods: which one is next, and what is waited for."""

from __future__ import annotations

from typing import Any

import pytest

from distkv_operator.planning.observed import Observed, Seat
from distkv_operator.planning.rolling import Roll, roll
from distkv_operator.planning.steps import DeletePod

from .support import (
    OLD,
    SILENT,
    condition,
    going,
    judged,
    last_seen,
    planned,
    pod,
    progress,
    said,
    seat,
    settled,
    taken,
    waiting,
)

NOBODY = {"state": "no quorum", "serving": False}


def old(ordinal: int, *arguments: Any, **changes: Any) -> Seat:
    return seat(ordinal, *arguments, **{"pod": pod(ordinal, OLD)} | changes)


def all_old(leads: int = 0, **changes: Any) -> list[Seat]:
    return [old(o, said(o, leads=o == leads, **changes)) for o in range(5)]


def rolling(observed: Observed) -> Roll:
    states, budget, leader = judged(observed)
    live = observed.child("StatefulSet", "store")
    assert live is not None
    mark = live["spec"]["template"]["metadata"]["annotations"]["distkv.io/fingerprint"]
    return roll(observed, mark, states, budget, leader)


def chosen(observed: Observed) -> int | None:
    step = rolling(observed).step
    return None if step is None else int(step.name.rpartition("-")[2])


def test_nothing_to_roll() -> None:
    assert rolling(settled()) == Roll()


@pytest.mark.parametrize("leader", range(5))
def test_from_the_last_follower_to_the_leader(leader: int) -> None:
    order = []
    seats = {s.ordinal: s for s in all_old(leader)}
    while (ordinal := chosen(settled(*seats.values()))) is not None:
        order.append(ordinal)
        seats[ordinal] = seat(ordinal, said(ordinal, leads=ordinal == leader))
    assert order == [o for o in (4, 3, 2, 1, 0) if o != leader] + [leader]


@pytest.mark.parametrize(
    "ailing",
    [
        seat(3, said(3, shards_missing=1)),
        seat(3, said(3, shards_missing=None)),
        seat(3, said(3, state="catching up", serving=False)),
        seat(3, SILENT),
        seat(3, SILENT, pod=None),
        old(3, said(3, shards_missing=1)),
        old(3, said(3, state="catching up", serving=False)),
        old(3, said(3, state="mending", serving=False)),
    ],
    ids=[
        "missing",
        "uncounted",
        "catching up",
        "silent",
        "no pod",
        "old missing",
        "old catching",
        "mending",
    ],
)
def test_one_after_the_other(ailing: Seat) -> None:
    seats = [*all_old()[:3], ailing, old(4)]
    found = rolling(settled(*seats))
    assert found.step is None
    assert "waiting for node 3" in found.message


def test_a_pod_on_its_way_out_is_waited_for() -> None:
    found = rolling(settled(*all_old()[:4], old(4, pod=going(pod(4, OLD)))))
    assert (found.step, found.message) == (None, "node 4 is being replaced")


def test_a_leader_whose_state_is_mended_leads() -> None:
    mending = said(4, leads=True, state="mending", serving=False)
    found = rolling(settled(*(old(o, said(o)) for o in range(4)), old(4, mending)))
    assert found.step is None
    assert "waiting for node 4" in found.message


def test_no_leader_no_roll() -> None:
    found = rolling(settled(*(old(o, said(o)) for o in range(5))))
    assert found.step is None
    assert "leader" in found.message


def test_a_leader_that_is_not_sure_of_all_shards_stops_the_roll() -> None:
    seats = all_old()
    seats[0] = old(0, said(0, leads=True, survives=None))
    assert rolling(settled(*seats)).step is None


def test_a_bad_image_stops_after_one_pod() -> None:
    broken = seat(4, SILENT, pod=pod(4, status=waiting("ImagePullBackOff", "no such image")))
    found = rolling(settled(*all_old()[:4], broken))
    assert (found.step, found.stuck) == (None, True)
    assert "no such image" in found.message
    assert "Correct the specification" in found.message


def test_a_broken_pod_is_the_first_to_get_another_template() -> None:
    broken = old(4, SILENT, pod=pod(4, OLD, status=waiting("CrashLoopBackOff")))
    assert chosen(settled(*all_old()[:4], broken)) == 4
    assert chosen(settled(broken)) == 4


@pytest.mark.parametrize(
    "report", [SILENT, said(4, state="starting", serving=False)], ids=["silent", "starting"]
)
def test_so_is_one_that_starts_and_never_serves(report: Any) -> None:
    assert chosen(settled(old(4, report), **last_seen(4))) == 4
    two = settled(old(4, report), seat(2, SILENT), **last_seen(2, 4))
    assert chosen(two) is None, "two are ailing"


@pytest.mark.parametrize("leads", [0, 3])
@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(("seconds", "slow"), [(None, True), (29, True), (31, False)])
def test_one_that_did_not_answer_for_a_moment_may_serve_and_even_lead(
    leads: int, ready: bool, seconds: float | None, slow: bool
) -> None:
    made = pod(leads, OLD)
    if not ready:
        made["status"] = {"phase": "Running", "conditions": []}
    seats = all_old(leads)
    seats[leads] = old(leads, SILENT, pod=made)
    seen = {} if seconds is None else last_seen(leads, seconds=seconds)
    found = rolling(settled(*seats, **seen))
    assert (found.step is None) == slow
    if slow:
        assert f"waiting for node {leads}" in found.message


def test_where_no_failure_is_tolerated_the_others_have_no_quorum_because_of_it() -> None:
    """1+1: f is 0."""
    spec = {"dataShards": 1, "parityShards": 1}
    well = seat(0, said(0, 2, 1, role="none", **NOBODY))
    two = settled(well, old(1, SILENT), spec=spec, layout_progress=None, **last_seen(1))
    observed = Observed(**vars(two) | {"seats": two.seats[:2]})
    assert chosen(observed) == 1


def test_without_a_quorum_nobody_is_replaced_for_that() -> None:
    seats = [old(o, said(o, role="none", **NOBODY)) for o in range(2)]
    seats += [old(o, SILENT) for o in range(2, 5)]
    assert chosen(settled(*seats)) is None


def test_manual_strategy_names_the_pods_and_deletes_none() -> None:
    manual = {"updateStrategy": {"type": "Manual"}}
    found = rolling(settled(old(1), old(2), spec=manual))
    assert found.step is None
    assert "store-1, store-2" in found.message


def test_the_template_comes_first() -> None:
    observed = settled(spec={"image": "distkv:2"})
    live = observed.child("StatefulSet", "store")
    assert live is not None
    live["spec"]["template"]["metadata"]["annotations"]["distkv.io/fingerprint"] = OLD
    found = planned(observed)
    assert taken(found.steps) == []
    assert found.rolling.message == "the new template is being applied"


@pytest.mark.parametrize("layout", [None, progress(changing=True)], ids=["unknown", "changing"])
def test_no_roll_while_the_layout_changes_or_is_not_known(layout: Any) -> None:
    assert taken(planned(settled(*all_old(), layout_progress=layout)).steps) == []
    assert taken(planned(settled(*all_old())).steps) == ["store-4"]


def test_the_pod_is_deleted_as_it_was_seen() -> None:
    step = rolling(settled(old(4, pod=pod(4, OLD, "uid-9")))).step
    assert step == DeletePod("store-4", "uid-9", "it gets the new template")


def test_ready_says_what_is_being_rolled() -> None:
    said_of = condition(planned(settled(old(4))), "Ready")
    assert (said_of.status, said_of.reason) == (False, "Rolling")


def grown(*newcomers: Seat, **changes: Any) -> Observed:
    """4+3 is wanted, and its new nodes have pods."""
    spec = {"dataShards": 4, "parityShards": 3}
    observed = settled(*newcomers, spec=spec, **changes)
    live = observed.child("StatefulSet", "store")
    assert live is not None
    return observed


def test_a_newcomer_with_an_old_template_gets_the_new_one() -> None:
    observed = grown(old(5, SILENT), seat(6, SILENT))
    assert taken(planned(observed).steps) == ["store-5"]


def test_members_are_rolled_while_newcomers_are_awaited() -> None:
    observed = grown(*all_old())
    assert taken(planned(observed).steps) == ["store-4"]


def test_no_newcomer_is_touched_while_the_layout_changes() -> None:
    moving = progress(changing=True)
    assert taken(planned(grown(old(5, SILENT), layout_progress=moving)).steps) == []


def test_a_pod_that_never_serves_is_replaced_whatever_the_layout_does() -> None:
    ill = old(4, said(4, state="starting", serving=False))
    assert taken(planned(grown(ill, layout_progress=progress(changing=True))).steps) == ["store-4"]


def test_several_that_never_serve_go_one_by_one() -> None:
    ill = [old(o, said(o, state="starting", serving=False)) for o in (3, 4)]
    assert chosen(settled(*ill)) == 4
    starts = seat(4, said(4, state="starting", serving=False))
    assert chosen(settled(ill[0], starts)) is None, "the new one is looked at first"
    silent = [old(o, SILENT) for o in (3, 4)]
    assert chosen(settled(*silent)) is None, "they may serve others"
