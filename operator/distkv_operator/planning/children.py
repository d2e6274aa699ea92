"""Which children have to be written: those that are absent, or differ from what they should be.

A child carries a checksum of the intent that was applied last: a field that is no longer wanted
is not missing anywhere, and only an apply without it takes it away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from distkv_operator.builders import Context, children, unwanted
from distkv_operator.builders.config import checksum
from distkv_operator.names import APPLIED_ANNOTATION, Names
from distkv_operator.planning.observed import Manifest, Observed
from distkv_operator.planning.steps import Apply, Remove, Step
from distkv_operator.planning.volumes import with_live_claim_template


def child_steps(observed: Observed, context: Context) -> Iterator[Step]:
    """Applies in the builders' order, then removals. Nothing of a kind that could not be read; and
    nothing is removed while any could not."""
    own = Names(observed.name)
    for manifest in children(observed.cluster, context):
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if kind in observed.unread:
            continue
        live = observed.child(kind, name)
        if kind == "StatefulSet" and name == own.stateful_set:
            if live is not None and "deletionTimestamp" in live["metadata"]:
                continue  # on its way out without its pods; made again once it is gone
            manifest = with_live_claim_template(manifest, live)
        manifest = marked(manifest)
        if live is None or not covers(live, manifest):
            yield Apply(manifest)
    if observed.unread:
        return
    for reference in unwanted(observed.cluster, context):
        live = observed.child(reference.kind, reference.name)
        if live is not None and _is_owned(live, observed.uid):
            yield Remove(reference.kind, reference.name, live["metadata"]["uid"])


def marked(manifest: Manifest) -> Manifest:
    """With the checksum of all the rest."""
    meta = manifest["metadata"]
    said = {**meta.get("annotations", {}), APPLIED_ANNOTATION: checksum(manifest)}
    return manifest | {"metadata": meta | {"annotations": said}}


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything wanted is so already. The server adds fields, and never list entries
    (which of them carry names it may reorder)."""
    if isinstance(wanted, dict):
        return isinstance(live, dict) and all(
            covers(live[key], value) if key in live else value in ({}, [], None)
            for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        return isinstance(live, list) and len(live) == len(wanted) and _lists_cover(live, wanted)
    return bool(live == wanted)


def _lists_cover(live: Sequence[Any], wanted: Sequence[Any]) -> bool:
    return all(covers(a, b) for a, b in zip(live, wanted, strict=True))


def _is_owned(live: Manifest, uid: str) -> bool:
    owners = live["metadata"].get("ownerReferences") or []
    return any(owner.get("uid") == uid for owner in owners)
