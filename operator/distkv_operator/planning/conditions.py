"""Conditions: reasons and messages a person understands, and their change over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from distkv.manifest.status import Condition
from distkv_operator.planning.observed import Observed, format_time

TYPES = (
    "Ready",
    "Available",
    "QuorumHealthy",
    "ShardsHealthy",
    "Progressing",
    "StorageReady",
    "ReconcileSucceeded",
    "ZoneFailureSurvivable",
    "KeyMissing",
)
MESSAGE_LENGTH = 1024


class Said(NamedTuple):
    """A condition without its times. `status` None: not known."""

    type: str
    status: bool | None
    reason: str
    message: str = ""


def merged(observed: Observed, said: Iterable[Said]) -> list[Condition]:
    """All known conditions in their order; the time moves only when a status changes."""
    by_type = {entry.type: entry for entry in said}
    before = {entry.get("type"): entry for entry in observed.status.get("conditions") or []}
    now = format_time(observed.now)
    found = []
    for kind in TYPES:
        entry = by_type.get(kind, Said(kind, None, "NotObserved"))
        status = {True: "True", False: "False", None: "Unknown"}[entry.status]
        previous = before.get(kind)
        same = previous is not None and previous.get("status") == status
        since = str(previous["lastTransitionTime"]) if previous is not None and same else now
        found.append(
            Condition.model_validate(
                {
                    "type": kind,
                    "status": status,
                    "reason": entry.reason,
                    "message": entry.message[:MESSAGE_LENGTH],
                    "lastTransitionTime": since,
                    "observedGeneration": observed.generation,
                }
            )
        )
    return found


def listing(ordinals: Sequence[int]) -> str:
    """ "node 2", "nodes 2, 4"."""
    word = "node" if len(ordinals) == 1 else "nodes"
    return f"{word} {', '.join(map(str, ordinals))}"
