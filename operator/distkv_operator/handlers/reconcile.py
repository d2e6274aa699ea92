"""One reconcile: observe, plan, carry out, report. Level-based: it does not know what woke it."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from distkv.manifest.status import Condition
from distkv_operator import names
from distkv_operator.handlers.execute import Executor, Outcome
from distkv_operator.handlers.observe import InvalidSpec, Observer, admin_token
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.events import Events
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import CLAIM, CLUSTER, SECRET
from distkv_operator.names import Names
from distkv_operator.planning.conditions import Said, merged
from distkv_operator.planning.observed import Observed, Seat, format_time
from distkv_operator.planning.plan import OperatorFacts, Plan, plan, put_back
from distkv_operator.planning.record import from_secret
from distkv_operator.planning.report import NodeReport
from distkv_operator.planning.secrets import Fresh
from distkv_operator.planning.status import status
from distkv_operator.planning.steps import Command, DeleteClaim, DeletePod, GrowClaim

log = logging.getLogger("distkv.operator")

AGAIN_SECONDS = 0.2
BUSY_SECONDS = 1.0
SETTLED_SECONDS = 15.0
FAILED_SECONDS = 5.0

EVENT_REASONS = {
    DeletePod: "PodReplaced",
    DeleteClaim: "VolumeGivenUp",
    GrowClaim: "VolumeGrowing",
    Command: "Member",
}


class Next(NamedTuple):
    """When to look again, without anything waking us before. `gone`: never."""

    seconds: float
    gone: bool = False
    failed: bool = False


@dataclass
class Known:
    """What the last round left for asking the nodes alone in between."""

    seats: tuple[Seat, ...] = ()
    token: str = ""
    digest: tuple[object, ...] = ()


class Report(Protocol):
    """Who wants to know what the rounds find."""

    def planned(self, observed: Observed, plan: Plan) -> None:
        """A round was planned."""
        ...

    def forget(self, namespace: str, name: str) -> None:
        """A cluster is gone."""
        ...


def digest_of(reports: dict[int, NodeReport]) -> tuple[object, ...]:
    """What of the nodes' answers is worth a reconcile when it changes."""
    return tuple(
        (o, r.answers, r.incarnation, r.state, r.role, r.missing, r.is_formed, r.epoch)
        for o, r in sorted(reports.items())
    )


def random_material() -> Fresh:
    """Fresh ids, keys and tokens; most rounds need none of it."""
    return Fresh(
        secrets.token_hex(16), secrets.token_hex(32), secrets.token_hex(32), secrets.token_hex(32)
    )


class Reconciler:
    """`report` is told of every plan and of clusters that are gone: the metrics."""

    def __init__(
        self,
        gate: Gate,
        observer: Observer,
        executor: Executor,
        events: Events,
        facts: OperatorFacts,
        report: Report,
        fresh: Callable[[], Fresh] = random_material,
    ) -> None:
        self._gate = gate
        self._observer = observer
        self._executor = executor
        self._events = events
        self._facts = facts
        self._report = report
        self._fresh = fresh
        self._known: dict[tuple[str, str], Known] = {}

    async def reconcile(self, namespace: str, name: str) -> Next:
        """Raises ApiError if the resource cannot be read, or its status not be written."""
        try:
            observed = await self._observer.observe(namespace, name)
        except InvalidSpec as refused:
            before, meta = refused.resource.get("status") or {}, refused.resource["metadata"]
            generation = int(meta.get("generation") or 0)
            await self._fail(namespace, name, before, generation, "InvalidSpec", str(refused))
            return Next(SETTLED_SECONDS)
        if observed is None:
            return await self._clean_up(namespace, name)
        try:
            if not observed.sees_seats:
                return await self._put_back(observed)
            planned = plan(observed, self._facts, self._fresh())
        except ApiError:
            raise
        except Exception as error:
            text = f"a defect of the operator, nothing is changed: {error!r}; please report it"
            before = observed.status
            await self._fail(namespace, name, before, observed.generation, "Defect", text)
            raise
        self._report.planned(observed, planned)
        outcome = await self._executor.carry_out(observed, planned.steps)
        await self._tell(observed, planned, outcome)
        await self._write_status(observed, planned, outcome)
        self._remember(observed)
        if outcome.errors:
            text = "; ".join(outcome.errors)
            log.warning("%s", text, extra={"cluster": f"{namespace}/{name}"})
            return Next(FAILED_SECONDS, failed=True)
        if observed.unread:
            return Next(BUSY_SECONDS, failed=True)
        if outcome.changed:
            return Next(AGAIN_SECONDS)
        return Next(SETTLED_SECONDS if planned.is_settled else BUSY_SECONDS)

    async def _put_back(self, observed: Observed) -> Next:
        """A round without pods or claims. The status keeps what was seen last."""
        outcome = await self._executor.carry_out(observed, put_back(observed, self._facts))
        text = _incomplete(observed, outcome).message
        log.warning("%s", text, extra={"cluster": f"{observed.namespace}/{observed.name}"})
        before, reason = observed.status, "ObservationIncomplete"
        await self._fail(
            observed.namespace, observed.name, before, observed.generation, reason, text
        )
        return Next(BUSY_SECONDS, failed=True)

    async def nodes_changed(self, namespace: str, name: str) -> bool:
        """Ask the nodes alone whether anything is other than in the last reconcile."""
        known = self._known.get((namespace, name))
        if known is None:
            return True
        reports = await self._observer.ask_all(namespace, known.seats, known.token)
        return digest_of(reports) != known.digest

    def forget(self, namespace: str, name: str) -> None:
        """The cluster is gone."""
        if self._known.pop((namespace, name), None) is not None:
            self._report.forget(namespace, name)

    def _remember(self, observed: Observed) -> None:
        reports = {seat.ordinal: seat.report for seat in observed.seats}
        self._known[observed.namespace, observed.name] = Known(
            observed.seats, admin_token(observed.children, observed.name), digest_of(reports)
        )

    # -- what is said

    async def _write_status(self, observed: Observed, planned: Plan, outcome: Outcome) -> None:
        said = [_with_waits(entry, outcome.waits) for entry in planned.said]
        said.append(_reconciled(observed, outcome))
        conditions = merged(observed, said)
        await self._tell_ready(observed, conditions)
        record = planned.formation.record
        wanted = status(
            observed,
            observed.record if record is None else record,
            planned.states,
            planned.budget,
            planned.leader,
            planned.healing.notes,
            planned.image,
            conditions,
        )
        if wanted != observed.status:
            try:
                await self._gate.apply_status(observed.namespace, observed.name, wanted)
            except ApiError as error:
                if not error.is_gone:
                    raise

    async def _tell_ready(self, observed: Observed, conditions: list[Condition]) -> None:
        ready = next(entry for entry in conditions if entry.type == "Ready")
        before = {entry["type"]: entry for entry in observed.status.get("conditions") or []}
        if before.get("Ready", {}).get("status", "Unknown") == ready.status:
            return
        if ready.status == "True":
            await self._event(observed, "Ready", ready.message, ready.last_transition_time)
        elif ready.status == "False" and before.get("Ready", {}).get("status") == "True":
            note = f"{ready.reason}: {ready.message}"
            await self._event(observed, "NotReady", note, ready.last_transition_time, True)

    async def _tell(self, observed: Observed, planned: Plan, outcome: Outcome) -> None:
        for step, note in outcome.done:
            reason = EVENT_REASONS.get(type(step), "StatefulSetReplaced")
            if isinstance(step, Command):
                reason = "Formed" if step.path.endswith("formed") else "MemberAdmitted"
            about = str(getattr(step, "uid", ""))
            await self._event(observed, reason, note, about, isinstance(step, DeleteClaim))
        if planned.formation.holds:
            formation = planned.formation
            await self._event(observed, formation.reason, formation.message, "", True)
        if planned.key_missing:
            await self._event(observed, "KeyMissing", planned.key_missing, "", True)
        if planned.rolling.stuck:
            about = f"generation {observed.generation}"
            await self._event(observed, "RollStuck", planned.rolling.message, about, True)

    async def _event(
        self, observed: Observed, reason: str, note: str, about: str, warning: bool = False
    ) -> None:
        await self._events.tell(
            observed.namespace, observed.name, observed.uid, reason, note, about, warning
        )

    async def _fail(
        self,
        namespace: str,
        name: str,
        before_this: Mapping[str, Any],
        generation: int,
        reason: str,
        message: str,
    ) -> None:
        """Say why nothing can be planned, and leave the store as it is: a specification that the
        schema should have kept out, or an exception."""
        status_now = dict(before_this)
        now = format_time(self._observer.now())
        kept = [
            entry
            for entry in status_now.get("conditions") or []
            if entry["type"] != "ReconcileSucceeded"
        ]
        refusal = {
            "type": "ReconcileSucceeded",
            "status": "False",
            "reason": reason,
            "message": message[:1024],
            "lastTransitionTime": now,
            "observedGeneration": generation,
        }
        before = [e for e in status_now.get("conditions") or [] if e not in kept]
        if before and (before[0]["reason"], before[0]["message"]) == (
            refusal["reason"],
            refusal["message"],
        ):
            return
        status_now["conditions"] = [*kept, refusal]
        await self._gate.apply_status(namespace, name, status_now)

    # -- after the resource

    async def _clean_up(self, namespace: str, name: str) -> Next:
        """The resource is gone; owners' garbage collection takes its children. The Secrets have no
        owner: they go when the volumes went on purpose, and stay while there is any volume."""
        own = Names(name)
        secret = await self._gate.get(SECRET, namespace, own.identity)
        if secret is None:
            return Next(0.0, gone=True)
        try:
            record = from_secret(secret)
        except ValueError:
            return Next(0.0, gone=True)
        if not record.deletes_claims:
            return Next(0.0, gone=True)
        labels = f"{names.CLUSTER_LABEL}={name}"
        if await self._gate.list(CLAIM, namespace, labels):
            return Next(BUSY_SECONDS)
        if await self._gate.get(CLUSTER, namespace, name) is not None:
            return Next(AGAIN_SECONDS)
        for each in (own.cluster_key, own.admin_token, own.link_token, own.identity):
            found = await self._gate.get(SECRET, namespace, each)
            if found is not None:
                await self._gate.delete(SECRET, namespace, each, found["metadata"]["uid"])
        log.info("its Secrets are gone too", extra={"cluster": f"{namespace}/{name}"})
        return Next(0.0, gone=True)


def _with_waits(entry: Said, waits: list[str]) -> Said:
    """What nodes answered belongs where somebody looks for the reason of a delay."""
    if entry.type != "Progressing" or not waits:
        return entry
    text = "; ".join([entry.message, *waits]) if entry.message else "; ".join(waits)
    return entry._replace(message=text)


def _incomplete(observed: Observed, outcome: Outcome) -> Said:
    text = "; ".join([f"nothing is taken away meanwhile: {observed.gaps}", *outcome.errors])
    return Said("ReconcileSucceeded", False, "ObservationIncomplete", text)


def _reconciled(observed: Observed, outcome: Outcome) -> Said:
    if observed.unread:
        return _incomplete(observed, outcome)
    if outcome.errors:
        return Said("ReconcileSucceeded", False, "StepsFailed", "; ".join(outcome.errors))
    return Said("ReconcileSucceeded", True, "Succeeded", "")
