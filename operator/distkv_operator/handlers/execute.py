"""Carrying a plan's steps out, one after the other; a failed one does not stop the rest."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field

from distkv_operator.handlers.observe import Observer, admin_token
from distkv_operator.kube.errors import ApiError
from distkv_operator.kube.gate import Gate
from distkv_operator.kube.kinds import BY_NAME, CLAIM, POD, STATEFUL_SET, Manifest, kind_of
from distkv_operator.planning.observed import Observed
from distkv_operator.planning.secrets import record_secret
from distkv_operator.planning.steps import (
    AnnotateClaim,
    Apply,
    Command,
    CreateOnce,
    DeleteClaim,
    DeletePod,
    GrowClaim,
    OrphanStatefulSet,
    Remove,
    Step,
    WriteRecord,
)

log = logging.getLogger("distkv.operator")

REMEMBERED_MAX = 4096


@dataclass
class Outcome:
    """`waits`: what nodes answered that is not a failure, "not yet". `done`: for events."""

    errors: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    done: list[tuple[Step, str]] = field(default_factory=list)
    changed: bool = False
    """Something was written: look again soon."""


class Executor:
    """Remembers what it applied, so that a child whose form the server changes (0.5 CPU becomes
    500m) is not written again and again. A hint only: a lost memory costs one more write."""

    def __init__(self, gate: Gate, observer: Observer) -> None:
        self._gate = gate
        self._observer = observer
        self._applied: dict[tuple[str, str, str], tuple[str, str]] = {}

    async def carry_out(self, observed: Observed, steps: tuple[Step, ...]) -> Outcome:
        """Never raises for what the API server or a node refuses."""
        outcome = Outcome()
        claim_stays = False
        for step in steps:
            if claim_stays and isinstance(step, DeletePod):
                continue  # its next pod would only wait for the volume that is gone
            try:
                await self._do(observed, step, outcome)
            except ApiError as error:
                claim_stays |= isinstance(step, DeleteClaim)
                if error.is_conflict:
                    outcome.waits.append(f"{describe(step)}: somebody else changed it meanwhile")
                    outcome.changed = True
                else:
                    outcome.errors.append(f"{describe(step)}: {error}")
        return outcome

    async def _do(self, observed: Observed, step: Step, outcome: Outcome) -> None:
        match step:
            case Apply(manifest):
                await self._apply(observed, manifest, outcome)
            case CreateOnce(manifest):
                outcome.changed |= await self._gate.create(manifest) is not None
            case Remove(kind, name, uid):
                await self._gate.delete(BY_NAME[kind], observed.namespace, name, uid)
                outcome.changed = True
            case WriteRecord():
                await self._write_record(observed, step)
                outcome.changed = True
            case Command():
                await self._command(observed, step, outcome)
            case _:
                await self._destructive(observed, step, outcome)

    async def _destructive(self, observed: Observed, step: Step, outcome: Outcome) -> None:
        """Deletions and patches of claims: each with the UID it was decided for."""
        gate, namespace = self._gate, observed.namespace
        match step:
            case DeletePod(name, uid, why, force):
                grace = 0 if force else None
                done = await gate.delete(POD, namespace, name, uid, grace=grace)
                note = f"pod {name} was deleted: {why}"
            case DeleteClaim(name, uid, why):
                done = await gate.delete(CLAIM, namespace, name, uid)
                note = f"the volume of claim {name} was given up: {why}"
            case OrphanStatefulSet(name, uid, why):
                done = await gate.delete(STATEFUL_SET, namespace, name, uid, propagation="Orphan")
                note = f"StatefulSet {name} is made again, its pods stay: {why}"
            case AnnotateClaim(name, uid, annotations):
                meta = {"uid": uid, "annotations": dict(annotations)}
                await gate.merge(CLAIM, namespace, name, {"metadata": meta})
                outcome.changed = True
                return
            case GrowClaim(name, uid, size):
                patch: Manifest = {"metadata": {"uid": uid}}
                patch["spec"] = {"resources": {"requests": {"storage": size}}}
                await gate.merge(CLAIM, namespace, name, patch)
                done, note = True, f"the volume of claim {name} grows to {size}"
            case _:
                raise AssertionError(f"unknown step {step}")
        if done:
            outcome.changed = True
            outcome.done.append((step, note))
            log.info("%s", note, extra={"cluster": f"{namespace}/{observed.name}"})

    async def _apply(self, observed: Observed, manifest: Manifest, outcome: Outcome) -> None:
        kind, name = kind_of(manifest), manifest["metadata"]["name"]
        key = (observed.uid, kind.name, name)
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        live = observed.child(kind.name, name)
        if live is not None and self._applied.get(key) == (digest, version_of(live)):
            return
        written = await self._gate.apply(manifest)
        if len(self._applied) >= REMEMBERED_MAX:
            self._applied.clear()
        self._applied[key] = (digest, version_of(written))
        outcome.changed |= live is None or version_of(live) != version_of(written)

    async def _write_record(self, observed: Observed, step: WriteRecord) -> None:
        manifest = record_secret(observed, step.record)
        if not step.record.version:
            made = await self._gate.create(manifest)
            if made is None:
                raise ApiError(409, "AlreadyExists", "the record was made meanwhile")
            return
        manifest["metadata"]["resourceVersion"] = step.record.version
        await self._gate.replace(manifest)

    async def _command(self, observed: Observed, step: Command, outcome: Outcome) -> None:
        seat = observed.seats[step.ordinal]
        token = admin_token(observed.children, observed.name)
        answer = await self._observer.command(observed.namespace, seat, token, step.path, step.body)
        if answer.ok:
            outcome.changed = True
            if answer.body.get("replaced") or answer.body.get("formed"):
                outcome.done.append((step, f"{step.doing}: done"))
            return
        text = f"{step.doing}: {answer.reason}"
        # 409 and 503: not at this moment; nobody answered: the next round asks again.
        if answer.status in (0, 409, 429, 503, 504):
            outcome.waits.append(text)
        else:
            outcome.errors.append(f"{text} (HTTP {answer.status})")


def version_of(manifest: Manifest) -> str:
    """resourceVersion."""
    return str(manifest["metadata"].get("resourceVersion", ""))


def describe(step: Step) -> str:
    """For messages."""
    match step:
        case Apply(manifest) | CreateOnce(manifest):
            return f"{manifest['kind']} {manifest['metadata']['name']}"
        case Remove(kind, name, _):
            return f"{kind} {name}"
        case WriteRecord():
            return "formation record"
        case Command():
            return step.doing
        case DeletePod() | OrphanStatefulSet():
            return f"replacing {step.name}"
        case _:
            return f"claim {step.name}"
