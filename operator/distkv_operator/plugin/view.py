"""What is shown of a cluster, as plain data: the same for screens and for `--json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distkv_operator import names

Manifest = dict[str, Any]
MEMBER_FIELDS = ("role", "state", "detail", "applied", "keys", "leader", "serving")


def summary(cluster: Manifest) -> Manifest:
    """Of one resource: what it should be and what the operator saw."""
    metadata, spec = cluster["metadata"], cluster.get("spec", {})
    status = cluster.get("status", {})
    return {
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
        "paused": is_paused(cluster),
        "data_shards": spec.get("dataShards"),
        "parity_shards": spec.get("parityShards"),
        "up_to_date": status.get("observedGeneration") == metadata.get("generation"),
        "ready": condition(cluster, "Ready"),
        "replacing": sorted(replacing(cluster)),
        "status": status,
    }


def condition(cluster: Manifest, kind: str) -> str:
    """ "True", "False" or "Unknown"; the last also where the operator said nothing yet."""
    for entry in cluster.get("status", {}).get("conditions", []):
        if entry["type"] == kind:
            return str(entry["status"])
    return "Unknown"


def annotations_of(cluster: Manifest) -> Mapping[str, str]:
    """Of the resource."""
    found: Mapping[str, str] = cluster["metadata"].get("annotations") or {}
    return found


def is_paused(cluster: Manifest) -> bool:
    """Whether the operator changes nothing."""
    by_hand = annotations_of(cluster).get(names.PAUSED_ANNOTATION) == "true"
    return by_hand or bool(cluster.get("spec", {}).get("paused"))


def replacing(cluster: Manifest) -> dict[int, int]:
    """Members given up by annotation, ordinal to incarnation; one that cannot be read counts as
    none, the operator says so in a condition."""
    try:
        return names.replacements(annotations_of(cluster).get(names.REPLACE_ANNOTATION, ""))
    except ValueError:
        return {}


def members(cluster: Manifest, live: Mapping[str, Manifest]) -> list[Manifest]:
    """Each node as the operator saw it, and over that what it says itself (`live`, by pod)."""
    found = []
    for member in cluster.get("status", {}).get("members", []):
        said = live.get(member.get("pod", ""), {})
        merged = {**member, "asked": bool(said)}
        merged |= {field: said[field] for field in MEMBER_FIELDS if said.get(field) is not None}
        for field, name in (
            ("shards", "shardsHeld"),
            ("shards_missing", "shardsMissing"),
            ("shards_corrupt", "shardsCorrupt"),
            ("shards_bytes", "bytesHeld"),
        ):
            if said.get(field) is not None:
                merged[name] = said[field]
        found.append(merged)
    return found


def seat(cluster: Manifest, ordinal: int) -> int | None:
    """Incarnation that holds the seat in the layout in force."""
    layout = cluster.get("status", {}).get("layout") or {}
    for member in layout.get("members", []):
        if member["ordinal"] == ordinal:
            return int(member["incarnation"])
    return None
