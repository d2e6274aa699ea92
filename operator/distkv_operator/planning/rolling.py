"""Bringing a change of image or configuration to the pods: one at a time, the leader last.

A pod that cannot even start takes nothing away when it is deleted, so it goes first: that is how
a bad image is rolled back by editing the specification. A pod with the new template that does
not become whole stops the roll.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from distkv_operator.names import FINGERPRINT_ANNOTATION, Names
from distkv_operator.planning.budget import Budget
from distkv_operator.planning.layout import LayoutChange
from distkv_operator.planning.observed import Observed, annotations_of
from distkv_operator.planning.seats import NOT_SERVING, SILENT, STARTING, SeatState
from distkv_operator.planning.steps import DeletePod

NO_QUORUM = "no quorum"
"""State of a node that is well and misses the others."""
SILENT_SECONDS = 30.0
"""Who has not answered for so long is not only slow: one lost answer says nothing of a node, and
it may be the leader's."""


@dataclass(frozen=True)
class Roll:
    """`outdated`: ordinals of pods that were started with something else."""

    outdated: tuple[int, ...] = ()
    step: DeletePod | None = None
    message: str = ""
    harmless: bool = False
    """`step` takes nothing away: that pod does not serve, and its template is the reason."""
    stuck: bool = False
    """A pod with the new template does not work: somebody has to look at the specification."""


def roll(
    observed: Observed,
    fingerprint: str,
    states: Sequence[SeatState],
    budget: Budget,
    leader: int | None,
) -> Roll:
    """The next pod to replace, or what is waited for. `fingerprint`: what pods should carry."""
    present = [s for s in states[: observed.nodes] if s.seat.pod is not None]
    outdated = [s for s in present if _fingerprint(s) != fingerprint]
    ordinals = tuple(s.ordinal for s in outdated)
    if not outdated:
        return Roll()
    if _live_fingerprint(observed) != fingerprint:
        return Roll(ordinals, message="the new template is being applied")
    if observed.spec.update_strategy.type == "Manual":
        names = ", ".join(Names(observed.name).pod(o) for o in ordinals)
        return Roll(ordinals, message=f"these pods get the change when they are deleted: {names}")
    if observed.gaps:
        return Roll(ordinals, message=f"no pod is replaced meanwhile: {observed.gaps}")
    going = [s for s in outdated if s.seat.is_terminating]
    if going:
        return Roll(ordinals, message=f"node {going[0].ordinal} is being replaced")
    for state in outdated:
        if state.seat.is_broken:
            why = f"it cannot start ({state.sentence}) and has an old template"
            step = _delete(observed, state, why)
            return Roll(ordinals, step, f"replacing node {state.ordinal}", harmless=True)
    return _next(observed, states, outdated, ordinals, fingerprint, budget, leader)


def roll_newcomers(
    observed: Observed, fingerprint: str, states: Sequence[SeatState], layout: LayoutChange
) -> DeletePod | None:
    """A pod that waits for a seat in the next layout, and was started with an old template: with
    that it may never come so far."""
    if layout.under_way or not layout.is_known or _live_fingerprint(observed) != fingerprint:
        return None
    for state in states[observed.nodes : layout.replicas]:
        seat = state.seat
        if seat.pod is not None and not seat.is_terminating and _fingerprint(state) != fingerprint:
            return _delete(observed, state, "it gets the new template, and has no seat yet")
    return None


def _next(
    observed: Observed,
    states: Sequence[SeatState],
    outdated: Sequence[SeatState],
    ordinals: tuple[int, ...],
    fingerprint: str,
    budget: Budget,
    leader: int | None,
) -> Roll:
    left = f"{len(outdated)} of {observed.nodes} pods still to be replaced"
    useless = _useless(observed, states[: observed.nodes], outdated)
    if useless is not None:
        why = f"it does not serve ({useless.sentence or useless.word}) and has an old template"
        step = _delete(observed, useless, why)
        return Roll(ordinals, step, f"replacing node {useless.ordinal}; {left}", harmless=True)
    for state in states[: observed.nodes]:
        if state.is_healthy:
            continue
        is_new = state.seat.pod is not None and _fingerprint(state) == fingerprint
        if is_new and state.seat.is_broken:
            message = (
                f"node {state.ordinal} cannot start with the new template "
                f"({state.sentence}); {left}. Correct the specification or put the old one back"
            )
            return Roll(ordinals, message=message, stuck=True)
        wait = (
            f"waiting for node {state.ordinal} to be whole again ({state.word}: {state.sentence})"
        )
        return Roll(ordinals, message=f"{wait}; {left}")
    if leader is None:
        return Roll(ordinals, message=f"waiting for the members to have a leader; {left}")
    if not (budget.is_whole and budget.is_known):
        return Roll(ordinals, message=f"waiting until the leader knows all shards in place; {left}")
    followers = [s for s in outdated if s.ordinal != leader]
    chosen = max(followers or outdated, key=lambda s: s.ordinal)
    step = _delete(observed, chosen, "it gets the new template")
    return Roll(ordinals, step, f"replacing node {chosen.ordinal}; {left}")


def _useless(
    observed: Observed, members: Sequence[SeatState], outdated: Sequence[SeatState]
) -> SeatState | None:
    """The last of those that are not whole, if all of these run with an old template and do not
    serve, by their own word or for a while: their template may be the reason, and to delete such a
    pod takes nothing away. (A silent one may serve others.) Where no failure is tolerated the rest
    lacks a quorum because of them."""
    ailing = [s for s in members if not (s.is_healthy or s.seat.report.state == NO_QUORUM)]
    words = (NOT_SERVING, STARTING) if len(ailing) > 1 else (NOT_SERVING, STARTING, SILENT)
    if all(s in outdated and s.word in words and not _is_slow(observed, s) for s in ailing):
        return max(ailing, key=lambda state: state.ordinal, default=None)
    return None


def _is_slow(observed: Observed, state: SeatState) -> bool:
    """Whether it has not answered for a moment only."""
    if state.since is None:
        return False  # it answers, and says itself that it does not serve
    return (observed.now - state.since).total_seconds() < SILENT_SECONDS


def _delete(observed: Observed, state: SeatState, why: str) -> DeletePod:
    return DeletePod(Names(observed.name).pod(state.ordinal), state.seat.pod_uid, why)


def _fingerprint(state: SeatState) -> str:
    return annotations_of(state.seat.pod).get(FINGERPRINT_ANNOTATION, "")


def _live_fingerprint(observed: Observed) -> str:
    live = observed.child("StatefulSet", Names(observed.name).stateful_set)
    if live is None:
        return ""
    return annotations_of(live["spec"]["template"]).get(FINGERPRINT_ANNOTATION, "")
