"""What a plan can ask for. Each step can be repeated, and does nothing if it was done already."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from distkv_operator.planning.record import Record

Manifest = dict[str, Any]


@dataclass(frozen=True)
class Apply:
    """Bring a child to what it should be (server-side apply)."""

    manifest: Manifest


@dataclass(frozen=True)
class CreateOnce:
    """Create it if it is not there; never change it (secrets)."""

    manifest: Manifest


@dataclass(frozen=True)
class Remove:
    """A child that is not wanted any more."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True)
class WriteRecord:
    """Make this the durable record; refused if it changed since it was read."""

    record: Record


@dataclass(frozen=True)
class AnnotateClaim:
    """`uid` must still be the claim's."""

    name: str
    uid: str
    annotations: Mapping[str, str]


@dataclass(frozen=True)
class Command:
    """The owner's command to a node: POST `path` of its admin listener."""

    ordinal: int
    path: str
    body: Mapping[str, Any]
    doing: str
    """For people: "founding", "admitting node 2"."""


@dataclass(frozen=True)
class DeletePod:
    """Its StatefulSet makes another. `force`: do not wait for a kubelet that is gone."""

    name: str
    uid: str
    why: str
    force: bool = False


@dataclass(frozen=True)
class DeleteClaim:
    """Give a volume up. Only ever for a member whose shards the others can rebuild."""

    name: str
    uid: str
    why: str


@dataclass(frozen=True)
class GrowClaim:
    """Ask for a larger volume."""

    name: str
    uid: str
    size: str


@dataclass(frozen=True)
class OrphanStatefulSet:
    """Delete it and leave its pods alone, because a field cannot be changed in place."""

    name: str
    uid: str
    why: str


Step = (
    Apply
    | CreateOnce
    | Remove
    | WriteRecord
    | AnnotateClaim
    | Command
    | DeletePod
    | DeleteClaim
    | GrowClaim
    | OrphanStatefulSet
)
