"""The record of a cluster's formation: what must outlive the resource, its status and its pods.

It rests in a Secret that no object owns, so that neither a deleted resource nor a restored API
server takes it away, and is mirrored in annotations of the claims, so that claims without it
are adopted instead of founded again.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from distkv_operator.names import (
    CLUSTER_ID_ANNOTATION,
    FORMED_ANNOTATION,
    INCARNATION_ANNOTATION,
)

Manifest = dict[str, Any]

JOINING_MAX = 8
"""Directories that are remembered for one seat; an older one was never admitted, or is gone."""


@dataclass(frozen=True)
class Holder:
    """Who had a seat: the incarnation, and the UID of the claim its directory was on."""

    incarnation: int
    claim: str


@dataclass(frozen=True)
class Record:
    """`members` by ordinal: first the founders, later whoever was admitted."""

    cluster_id: str
    resource: str
    """UID of the resource it was made for."""
    deletes_claims: bool = False
    """deletionPolicy of the resource: its claims went with it."""
    founders: bool = False
    """`members` holds the complete list that `found` was, or will be, sent with."""
    formed: bool = False
    """The owner's word that the cluster exists: it is never founded again."""
    members: Mapping[int, Holder] = field(default_factory=dict)
    joining: Mapping[int, tuple[Holder, ...]] = field(default_factory=dict)
    """By ordinal: fresh directories that may be admitted. Each is recorded, with the claim that it
    is on, before anybody asks for its admission: so one that is lost the moment after is known to
    have been on that claim."""
    version: str = ""
    """resourceVersion of the Secret; not part of what is recorded."""

    @property
    def owner(self) -> str:
        """Replicated by the nodes; they take commands of this owner alone. It follows from the
        cluster id, so that a lost record can be made again."""
        return f"distkv-operator/{self.cluster_id}"

    def with_member(self, ordinal: int, holder: Holder) -> Record:
        """The same with another holder of one seat; who asked for it meanwhile is forgotten."""
        joining = {o: asking for o, asking in self.joining.items() if o != ordinal}
        return replace(self, members=dict(self.members) | {ordinal: holder}, joining=joining)

    def with_joining(self, ordinal: int, holder: Holder) -> Record:
        """The same with one more directory that may be admitted to a seat."""
        if self.is_joining(ordinal, holder):
            return self
        others = [h for h in self.joining.get(ordinal, ()) if h.incarnation != holder.incarnation]
        asking = (*others, holder)[-JOINING_MAX:]
        return replace(self, joining=dict(self.joining) | {ordinal: asking})

    def is_joining(self, ordinal: int, holder: Holder) -> bool:
        """Whether that directory was recorded with that claim."""
        return holder in self.joining.get(ordinal, ())

    def claim_of_joining(self, ordinal: int, incarnation: int) -> str:
        """The claim that a directory was recorded with; empty: it never was."""
        asking = self.joining.get(ordinal, ())
        return next((h.claim for h in asking if h.incarnation == incarnation), "")

    def same(self, other: Record) -> bool:
        """Whether nothing would have to be written."""
        return replace(self, version="") == replace(other, version="")


def to_data(record: Record) -> dict[str, str]:
    """`data` of the Secret."""
    members = {str(o): _entry(holder) for o, holder in sorted(record.members.items())}
    joining = {
        str(o): [_entry(holder) for holder in asking]
        for o, asking in sorted(record.joining.items())
    }
    content = {
        "cluster-id": record.cluster_id,
        "resource": record.resource,
        "deletes-claims": _flag(record.deletes_claims),
        "founders": _flag(record.founders),
        "formed": _flag(record.formed),
        "members": json.dumps(members, separators=(",", ":")),
        "joining": json.dumps(joining, separators=(",", ":")),
    }
    return {key: b64encode(value.encode()).decode() for key, value in content.items()}


def from_secret(secret: Manifest) -> Record:
    """Raises ValueError if it does not hold a record."""
    try:
        content = {key: b64decode(value).decode() for key, value in secret["data"].items()}
        members = {int(o): _holder(entry) for o, entry in json.loads(content["members"]).items()}
        # A record of an earlier release has none.
        asking = json.loads(content.get("joining", "{}"))
        joining = {int(o): tuple(map(_holder, entries)) for o, entries in asking.items()}
        return Record(
            cluster_id=content["cluster-id"],
            resource=content["resource"],
            deletes_claims=content["deletes-claims"] == "true",
            founders=content["founders"] == "true",
            formed=content["formed"] == "true",
            members=members,
            joining=joining,
            version=secret["metadata"].get("resourceVersion", ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"it does not hold the record of a cluster: {error!r}") from error


def claim_annotations(record: Record, ordinal: int) -> dict[str, str]:
    """What a claim says of the cluster it belongs to."""
    said = {CLUSTER_ID_ANNOTATION: record.cluster_id}
    holder = record.members.get(ordinal)
    if record.formed:
        said[FORMED_ANNOTATION] = "true"
        if holder is not None:
            said[INCARNATION_ANNOTATION] = str(holder.incarnation)
    return said


def from_claims(claims: Iterable[tuple[int, Manifest]], resource: str) -> Record | None:
    """The record again, from the claims' annotations; None if they say too little or differ."""
    cluster_ids: set[str] = set()
    members: dict[int, Holder] = {}
    formed = False
    for ordinal, claim in claims:
        said = claim["metadata"].get("annotations") or {}
        if CLUSTER_ID_ANNOTATION not in said:
            continue
        cluster_ids.add(said[CLUSTER_ID_ANNOTATION])
        formed = formed or said.get(FORMED_ANNOTATION) == "true"
        if said.get(INCARNATION_ANNOTATION, "").isdecimal():
            incarnation = int(said[INCARNATION_ANNOTATION])
            members[ordinal] = Holder(incarnation, claim["metadata"]["uid"])
    if len(cluster_ids) != 1:
        return None
    return Record(
        cluster_id=cluster_ids.pop(),
        resource=resource,
        founders=formed,
        formed=formed,
        members=members if formed else {},
    )


def _entry(holder: Holder) -> dict[str, Any]:
    return {"incarnation": holder.incarnation, "claim": holder.claim}


def _holder(entry: Mapping[str, Any]) -> Holder:
    return Holder(int(entry["incarnation"]), str(entry["claim"]))


def _flag(value: bool) -> str:
    return "true" if value else "false"
