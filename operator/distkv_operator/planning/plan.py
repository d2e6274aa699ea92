"""The whole plan of one round: what to do, in which order, and what to say of it.

Steps that only repair come before steps that take something away; of those there is at most one
in a round. A step that fails does not keep the later ones from being tried.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from distkv_operator.builders import Context, OperatorPlace, fingerprint
from distkv_operator.names import PAUSED_ANNOTATION, Names
from distkv_operator.planning.budget import Budget, budget
from distkv_operator.planning.children import child_steps
from distkv_operator.planning.conditions import Said
from distkv_operator.planning.formation import Formation, form
from distkv_operator.planning.healing import Healing, heal
from distkv_operator.planning.layout import LayoutChange, change_layout, replicas_kept
from distkv_operator.planning.observed import Observed
from distkv_operator.planning.rolling import Roll, roll, roll_newcomers
from distkv_operator.planning.seats import SeatState, leader_of, states
from distkv_operator.planning.secrets import Fresh, secret_steps
from distkv_operator.planning.steps import Apply, Step
from distkv_operator.planning.verdicts import verdicts
from distkv_operator.planning.volumes import Volumes, volumes


@dataclass(frozen=True)
class OperatorFacts:
    """Of the operator itself. `image`: of its own release."""

    image: str
    place: OperatorPlace | None


@dataclass(frozen=True)
class Plan:
    """`said`: conditions, but for ReconcileSucceeded, which the outcome of the steps decides."""

    steps: tuple[Step, ...]
    formation: Formation
    states: tuple[SeatState, ...]
    budget: Budget
    leader: int | None
    healing: Healing
    rolling: Roll
    layout: LayoutChange
    storage: Volumes
    key_missing: str
    image: str
    is_paused: bool
    said: tuple[Said, ...]

    @property
    def is_settled(self) -> bool:
        """Nothing is under way: the next look can wait."""
        return (
            not self.steps
            and self.formation.reason == "Formed"
            and self.budget.is_whole
            and not self.rolling.outdated
            and not self.layout.message
            and self.layout.is_known
        )


def plan(observed: Observed, facts: OperatorFacts, fresh: Fresh) -> Plan:
    """Pure: equal arguments give an equal plan. For an observation that sees the seats; without
    them there is `put_back`."""
    assert observed.sees_seats, "what is unknown would pass for absent"
    formation = form(observed, fresh.cluster_id)
    seats = states(observed)
    spent = budget(observed, seats)
    leader = leader_of(observed)
    image = resolve_image(observed, facts.image)
    record = formation.record
    healing, rolling = Healing(), Roll()
    layout = LayoutChange(observed.nodes)
    if record is not None and record.formed:
        layout = change_layout(observed, record, leader)
    storage = volumes(observed)
    secrets, key_missing = secret_steps(observed, fresh, record is not None and record.formed)
    steps: list[Step] = []
    is_paused = paused(observed)
    if record is not None and not formation.holds:
        context = _context(observed, facts, image, record.cluster_id, spent, layout.replicas)
        steps += [*secrets, *child_steps(observed, context)]
        if record.formed:
            healing = heal(observed, record, seats, spent, leader)
        steps += [*formation.steps, *storage.steps, *healing.steps, *layout.steps]
        if formation.reason == "Formed":
            mark = fingerprint(observed.cluster, context)
            rolling = _beside(roll(observed, mark, seats, spent, leader), layout)
            if rolling.step is not None and not healing.disrupts:
                steps.append(rolling.step)
            newcomer = roll_newcomers(observed, mark, seats, layout)
            steps += [] if newcomer is None else [newcomer]
    elif not formation.holds:
        steps += formation.steps
    return Plan(
        steps=() if is_paused else tuple(steps),
        formation=formation,
        states=seats,
        budget=spent,
        leader=leader,
        healing=healing,
        rolling=rolling,
        layout=layout,
        storage=storage,
        key_missing=key_missing,
        image=image,
        is_paused=is_paused,
        said=(
            *verdicts(
                observed, formation, seats, spent, leader, healing, rolling, layout, is_paused
            ),
            Said("StorageReady", storage.ready, storage.reason, storage.message),
            _key_condition(key_missing),
        ),
    )


def put_back(observed: Observed, facts: OperatorFacts) -> tuple[Step, ...]:
    """All that can be done without knowing pods and claims: children that can be read become what
    they should be. No StatefulSet is made, because one with too few replicas takes pods away, and
    one beside volumes that are gone makes others; nor is a list of nodes written without it."""
    record = observed.record
    image = resolve_image(observed, "")
    if record is None or record.resource != observed.uid or paused(observed) or not image:
        return ()
    spent = Budget(observed.nodes, 0, (), is_known=False)
    replicas = replicas_kept(observed, record)
    context = _context(observed, facts, image, record.cluster_id, spent, replicas)
    kept = set()
    if observed.child("StatefulSet", Names(observed.name).stateful_set) is None:
        kept = {"StatefulSet", "ConfigMap"}
    return tuple(
        step
        for step in child_steps(observed, context)
        if isinstance(step, Apply) and step.manifest["kind"] not in kept
    )


def _beside(rolling: Roll, layout: LayoutChange) -> Roll:
    """What of a roll may be done at this stage of a layout."""
    if rolling.harmless or (layout.is_known and not layout.under_way):
        return rolling
    if rolling.step is None:
        return rolling
    return replace(rolling, step=None, message="pods are replaced once the layout is settled")


def paused(observed: Observed) -> bool:
    """By the specification or by the annotation."""
    return observed.spec.paused or observed.annotations.get(PAUSED_ANNOTATION) == "true"


def resolve_image(observed: Observed, release: str) -> str:
    """What the specification says; else what was decided once, which an upgrade of the operator
    does not change; else what runs; else the operator's own release."""
    if observed.spec.image is not None:
        return observed.spec.image
    decided = str(observed.status.get("image") or "")
    if decided and not observed.status.get("formed") and observed.record is None:
        decided = ""
    if decided:
        return decided
    live = observed.child("StatefulSet", Names(observed.name).stateful_set)
    if live is not None:
        return str(live["spec"]["template"]["spec"]["containers"][0]["image"])
    return next((seat.image for seat in observed.seats if seat.image), release)


def _context(
    observed: Observed,
    facts: OperatorFacts,
    image: str,
    cluster_id: str,
    spent: Budget,
    replicas: int,
) -> Context:
    return Context(
        namespace=observed.namespace,
        uid=observed.uid,
        image=image,
        cluster_id=cluster_id,
        replicas=replicas,
        disruption_allowed=observed.is_formed and spent.bears_disruption and not observed.unread,
        service_monitors=observed.knows_service_monitors,
        operator=facts.place,
    )


def _key_condition(key_missing: str) -> Said:
    if key_missing:
        return Said("KeyMissing", True, "KeyMissing", key_missing)
    return Said("KeyMissing", False, "Present", "")
