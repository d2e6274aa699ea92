"""Bringing members back: admit fresh directories, give up volumes that are gone.

A fresh directory is admitted by itself only if it is on another claim than the one recorded
with the member it replaces: the same claim with an empty directory can be a failed mount, and
waits for a person. So that this can be said of the next one too, it is recorded with its claim
before it is admitted. A volume is given up only while the others' shards rebuild everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from distkv_operator.names import (
    INCARNATION_ANNOTATION,
    REPLACE_ANNOTATION,
    Names,
    replacements,
    replacements_text,
)
from distkv_operator.planning.budget import Budget
from distkv_operator.planning.observed import Observed, annotations_of
from distkv_operator.planning.record import Holder, Record
from distkv_operator.planning.seats import (
    BROKEN,
    CATCHING_UP,
    HOST_GONE,
    NOT_MOUNTED,
    REFILLING,
    UNPLACED,
    VOLUME_LOST,
    SeatState,
)
from distkv_operator.planning.steps import Command, DeleteClaim, DeletePod, Step, WriteRecord


@dataclass(frozen=True)
class Healing:
    """`notes`: per ordinal, what is being done or waited for."""

    steps: tuple[Step, ...] = ()
    notes: Mapping[int, str] = field(default_factory=dict)
    disrupts: bool = False
    """A disruption is among the steps: no other may be planned in this round."""


def heal(
    observed: Observed,
    record: Record,
    states: Sequence[SeatState],
    budget: Budget,
    leader: int | None,
) -> Healing:
    """Steps for a formed cluster; those that only repair come first."""
    members, newcomers = states[: observed.nodes], states[observed.nodes :]
    asked, fault = _asked_for(observed)
    notes: dict[int, str] = {}
    steps: list[Step] = []
    updated = _follow(record, members)
    for state in newcomers:
        updated = _note_newcomer(updated, state)
    busy = {s.ordinal for s in members if _comes_back(s, record)}
    for state in members:
        if not state.is_stranger:
            continue
        refusal = _not_by_itself(updated, state, asked)
        if refusal:
            notes[state.ordinal] = refusal
            continue
        busy.add(state.ordinal)
        updated = updated.with_joining(state.ordinal, _directory(state))
        command, notes[state.ordinal] = _admit(record, state, leader)
        if command is not None:
            steps.append(command)
    if not updated.same(record):
        steps.insert(0, WriteRecord(updated))
    given_up: tuple[Step, ...] = ()
    for state in members:
        why = _why_give_up(updated, state, asked)
        if why is None:
            continue
        blocked = _blocked(observed, state, busy, budget, leader, bool(given_up))
        held_back = blocked or _wait(observed, state, asked)
        if held_back:
            notes[state.ordinal] = held_back
            continue
        given_up = tuple(_give_up(observed, state, why))
        notes[state.ordinal] = f"its volume is being given up: {why}"
    if fault:
        notes[-1] = fault
    return Healing((*steps, *given_up), notes, bool(given_up))


def _asked_for(observed: Observed) -> tuple[dict[int, int], str]:
    """Members that a person gave up, and what is wrong with how it was said."""
    text = observed.annotations.get(REPLACE_ANNOTATION, "")
    try:
        return replacements(text), ""
    except ValueError as error:
        return {}, f"annotation {REPLACE_ANNOTATION}: {error}"


def _follow(record: Record, members: Sequence[SeatState]) -> Record:
    """The record, brought to what the members say: who has a seat, and on which claim."""
    updated = record
    for state in members:
        known = record.members.get(state.ordinal)
        if state.member is None:
            continue
        is_here = state.seat.report.incarnation == state.member and bool(state.seat.claim_uid)
        if known is None or known.incarnation != state.member:
            recorded = record.claim_of_joining(state.ordinal, state.member)
            claim = state.seat.claim_uid if is_here else recorded
            updated = updated.with_member(state.ordinal, Holder(state.member, claim))
        elif is_here and known.claim != state.seat.claim_uid:
            updated = updated.with_member(state.ordinal, replace(known, claim=state.seat.claim_uid))
    return updated


def _note_newcomer(record: Record, state: SeatState) -> Record:
    """The record with a directory that asks for a seat of the next layout."""
    known = record.members.get(state.ordinal)
    incarnation = state.seat.report.incarnation
    if incarnation is None or not state.seat.claim_uid:
        return record
    if known is not None and known.incarnation == incarnation:
        return record  # it leaves, or has left
    return record.with_joining(state.ordinal, _directory(state))


def _directory(state: SeatState) -> Holder:
    """The directory that answers, and the claim it is on."""
    incarnation = state.seat.report.incarnation
    assert incarnation is not None, "it answers"
    return Holder(incarnation, state.seat.claim_uid)


def _not_by_itself(record: Record, state: SeatState, asked: Mapping[int, int]) -> str:
    """Why the fresh directory is not admitted without a person's word; empty: it is."""
    ordinal, old = state.ordinal, state.member
    assert old is not None, "a stranger is not the member"
    holder = record.members.get(ordinal)
    recorded = holder.claim if holder is not None and holder.incarnation == old else ""
    is_other_claim = bool(recorded) and state.seat.claim_uid not in ("", recorded)
    if is_other_claim or asked.get(ordinal) == old:
        return ""
    return (
        f"its directory is empty although {_same(recorded)}: a failed mount looks the same. "
        "If the data are really gone: kubectl annotate --overwrite dkv "
        f"{REPLACE_ANNOTATION}={replacements_text({ordinal: old})}"
    )


def _admit(record: Record, state: SeatState, leader: int | None) -> tuple[Command | None, str]:
    """The command that seats the fresh directory, or what it waits for. `record`: as it is now."""
    if leader is None:
        return None, "a fresh directory waits to be admitted: the members have no leader"
    fresh = _directory(state)
    if not record.is_joining(state.ordinal, fresh):
        return None, "a fresh directory is being recorded with its claim, to be admitted next"
    body = {
        "owner": record.owner,
        "ordinal": state.ordinal,
        "old": state.member,
        "new": fresh.incarnation,
    }
    command = Command(leader, "/v1/admin/replace", body, f"admitting node {state.ordinal}")
    return command, "a fresh directory is being admitted"


def _same(recorded: str) -> str:
    if recorded:
        return "its claim is the one it had before"
    return "nobody recorded another claim that it had before"


def _comes_back(state: SeatState, record: Record) -> bool:
    """Whether it is being refilled, or its volume was given up and the next one is on its way."""
    if state.word in (CATCHING_UP, REFILLING):
        return True
    if state.word in (UNPLACED, BROKEN, HOST_GONE, NOT_MOUNTED):
        return False  # who knows when
    seat, holder = state.seat, record.members.get(state.ordinal)
    if seat.claim is None or (seat.claim_is_terminating and (not seat.pod or seat.is_terminating)):
        return True
    return holder is not None and holder.claim not in ("", seat.claim_uid)


def _why_give_up(record: Record, state: SeatState, asked: Mapping[int, int]) -> str | None:
    """Why this member's volume could be given up; None: there is no reason to."""
    seat = state.seat
    if seat.claim is None or state.is_stranger or state.member is None:
        return None
    if asked.get(state.ordinal) == state.member and _has_its_volume(record, state):
        return "a person said that it is lost"
    if seat.claim_is_terminating and seat.pod is not None:
        return "its claim was deleted"
    if state.word in (HOST_GONE, VOLUME_LOST, NOT_MOUNTED):
        return state.sentence
    host = seat.host
    host_is_out = host is None or host.unschedulable or not host.ready
    if state.word == UNPLACED and seat.volume_host and host_is_out:
        return state.sentence
    return None


def _has_its_volume(record: Record, state: SeatState) -> bool:
    """Whether the claim is the member's, and not the one that came after it was given up."""
    seat, holder = state.seat, record.members.get(state.ordinal)
    if seat.report.incarnation == state.member:
        return True
    if holder is not None and holder.incarnation == state.member and holder.claim:
        return holder.claim == seat.claim_uid
    return annotations_of(seat.claim).get(INCARNATION_ANNOTATION) == str(state.member)


def _wait(observed: Observed, state: SeatState, asked: Mapping[int, int]) -> str:
    """Empty if it may be given up as far as its own policy goes."""
    if asked.get(state.ordinal) == state.member or state.seat.claim_is_terminating:
        return ""
    policy = observed.spec.volume_loss_policy
    if policy.mode == "Manual":
        assert state.member is not None, "only members are given up"
        text = replacements_text({state.ordinal: state.member})
        return (
            f"{state.sentence}; volumeLossPolicy.mode is Manual. To give its volume up: "
            f"kubectl annotate --overwrite dkv {observed.name} {REPLACE_ANNOTATION}={text}"
        )
    gone = (observed.now - _ails_since(observed, state)).total_seconds()
    if gone < policy.delay:
        left = policy.delay - gone
        return f"{state.sentence}; its volume is given up in {left:.0f} s if that stays so"
    return ""


def _ails_since(observed: Observed, state: SeatState) -> datetime:
    """When what ails it now began: what ailed it before is no reason to give it up."""
    host = state.seat.host
    moments = [state.since or observed.now]
    if host is not None and not host.ready:
        moments.append(host.since or moments[0])
    if state.word == NOT_MOUNTED:
        moments.append(state.seat.unmounted_since or moments[0])
    return max(moments)


def _blocked(
    observed: Observed,
    state: SeatState,
    busy: Collection[int],
    budget: Budget,
    leader: int | None,
    another: bool,
) -> str:
    """Why a volume cannot be given up at this moment; empty if it can."""
    waits = f"{state.sentence or 'its volume is lost'}; its volume is not given up yet: "
    if observed.gaps:
        return waits + observed.gaps
    if another:
        return waits + "one at a time"
    if leader is None:
        return waits + "the members have no leader"
    if not budget.is_known:
        return waits + "the leader is not sure yet what the others hold"
    others_busy = sorted(set(busy) - {state.ordinal})
    if others_busy:
        return waits + f"node {others_busy[0]} is being brought back first"
    if not budget.bears_loss_of(state.ordinal):
        others = ", ".join(map(str, budget.others_spent(state.ordinal))) or "none"
        return waits + (
            f"the others' shards would not do (tolerated: {budget.tolerated}, other nodes that "
            f"are not whole: {others}). Bring one of them back"
        )
    return ""


def _give_up(observed: Observed, state: SeatState, why: str) -> Iterator[Step]:
    """Claim first: once it is on its way out, the pod that comes next gets another."""
    names, seat = Names(observed.name), state.seat
    if not seat.claim_is_terminating:
        yield DeleteClaim(names.claim(state.ordinal), seat.claim_uid, why)
    forced = state.word in (HOST_GONE, UNPLACED, VOLUME_LOST)
    if seat.pod is not None and (forced or not seat.is_terminating):
        yield DeletePod(names.pod(state.ordinal), seat.pod_uid, why, forced)
