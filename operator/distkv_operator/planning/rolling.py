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
from distkv_operator.planning.observed import Observed, annotations_of
from distkv_operator.planning.seats import NOT_SERVING, SILENT, STARTING, SeatState
from distkv_operator.planning.steps import DeletePod

NO_QUORUM = "no quorum"
"""State of a node that is well and misses the others."""


@dataclass(frozen=True)
class Roll:
    """`outdated`: ordinals of pods that were started with something else."""

    outdated: tuple[int, ...] = ()
    step: DeletePod | None = None
    message: str = ""
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
    going = [s for s in outdated if s.seat.is_terminating]
    if going:
        return Roll(ordinals, message=f"node {going[0].ordinal} is being replaced")
    for state in outdated:
        if state.seat.is_broken:
            why = f"it cannot start ({state.sentence}) and has an old template"
            return Roll(ordinals, _delete(observed, state, why), f"replacing node {state.ordinal}")
    return _next(observed, states, outdated, ordinals, fingerprint, budget, leader)


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
    useless = _useless(states[: observed.nodes], outdated)
    if useless is not None:
        why = f"it does not serve ({useless.sentence or useless.word}) and has an old template"
        step = _delete(observed, useless, why)
        return Roll(ordinals, step, f"replacing node {useless.ordinal}; {left}")
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


def _useless(members: Sequence[SeatState], outdated: Sequence[SeatState]) -> SeatState | None:
    """The only member that is not whole, if it runs with an old template and does not serve: its
    template may be the reason, and to delete its pod takes nothing away. Where no failure is
    tolerated the others lack a quorum because of it."""
    ailing = [s for s in members if not (s.is_healthy or s.seat.report.state == NO_QUORUM)]
    if len(ailing) != 1 or ailing[0] not in outdated:
        return None
    return ailing[0] if ailing[0].word in (NOT_SERVING, SILENT, STARTING) else None


def _delete(observed: Observed, state: SeatState, why: str) -> DeletePod:
    return DeletePod(Names(observed.name).pod(state.ordinal), state.seat.pod_uid, why)


def _fingerprint(state: SeatState) -> str:
    return annotations_of(state.seat.pod).get(FINGERPRINT_ANNOTATION, "")


def _live_fingerprint(observed: Observed) -> str:
    live = observed.child("StatefulSet", Names(observed.name).stateful_set)
    if live is None:
        return ""
    return annotations_of(live["spec"]["template"]).get(FINGERPRINT_ANNOTATION, "")
