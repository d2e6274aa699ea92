"""The world as one round of observation found it. Plain data; nothing here asks anybody."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from distkv.manifest import Cluster, ClusterSpec
from distkv_operator.planning.record import Record
from distkv_operator.planning.report import NodeReport

Manifest = dict[str, Any]

REVISION_LABEL = "controller-revision-hash"
BROKEN_REASONS = (
    "ImagePullBackOff",
    "ErrImagePull",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)


@dataclass(frozen=True)
class KubeNode:
    """A Kubernetes node as far as it matters."""

    name: str
    ready: bool
    since: datetime.datetime | None
    """When `ready` last changed."""
    unschedulable: bool
    zone: str


@dataclass(frozen=True)
class Seat:
    """One ordinal: its pod and claim as they are, the host, and what the node said."""

    ordinal: int
    pod: Manifest | None = None
    claim: Manifest | None = None
    host: KubeNode | None = None
    """Where the pod runs, or where its volume is when it cannot be placed."""
    volume_host: str = ""
    """Name of the only Kubernetes node that can reach the volume; empty: any, or unknown."""
    report: NodeReport = field(default_factory=NodeReport)

    @property
    def pod_uid(self) -> str:
        """Empty without a pod."""
        return "" if self.pod is None else str(self.pod["metadata"]["uid"])

    @property
    def claim_uid(self) -> str:
        """Empty without a claim."""
        return "" if self.claim is None else str(self.claim["metadata"]["uid"])

    @property
    def revision(self) -> str:
        """Of the StatefulSet's template that the pod was made from."""
        return "" if self.pod is None else labels_of(self.pod).get(REVISION_LABEL, "")

    @property
    def is_terminating(self) -> bool:
        """Whether the pod is on its way out."""
        return self.pod is not None and "deletionTimestamp" in self.pod["metadata"]

    @property
    def claim_is_terminating(self) -> bool:
        """Whether somebody deleted the claim; it stays until its pod is gone."""
        return self.claim is not None and "deletionTimestamp" in self.claim["metadata"]

    @property
    def claim_is_lost(self) -> bool:
        """Whether the volume behind the claim is gone."""
        return self.claim is not None and self.claim.get("status", {}).get("phase") == "Lost"

    @property
    def is_ready(self) -> bool:
        """Whether the kubelet says so."""
        return (
            self.pod is not None
            and not self.is_terminating
            and condition_of(self.pod, "Ready") == "True"
        )

    @property
    def is_placed(self) -> bool:
        """Whether the pod was given a Kubernetes node."""
        return self.pod is not None and bool(self.pod["spec"].get("nodeName"))

    @property
    def waits_because(self) -> str:
        """Why its container does not run, in Kubernetes' words; empty: it does, or just begins."""
        if self.pod is None:
            return ""
        status = self.pod.get("status", {})
        for container in status.get("containerStatuses") or []:
            waiting = container.get("state", {}).get("waiting") or {}
            if waiting.get("reason") in BROKEN_REASONS:
                return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
        if not self.is_placed:
            for entry in status.get("conditions") or []:
                if entry["type"] == "PodScheduled" and entry["status"] == "False":
                    return f"{entry.get('reason', '')}: {entry.get('message', '')}".rstrip(": ")
        return ""

    @property
    def unmounted_since(self) -> datetime.datetime | None:
        """Since when a pod that has its place waits for the kubelet to set it up, which begins
        with mounting its volumes; an image is pulled only after that. None: it is set up, or the
        kubelet does not say."""
        if self.pod is None or self.is_terminating or not self.is_placed:
            return None
        entries = {e["type"]: e for e in self.pod.get("status", {}).get("conditions") or []}
        waits = entries.get("PodReadyToStartContainers")
        if waits is None or waits["status"] != "False":
            return None
        known = (waits, entries.get("PodScheduled") or {})
        moments = [parse_time(str(e.get("lastTransitionTime") or "")) for e in known]
        return max((moment for moment in moments if moment is not None), default=None)

    @property
    def is_broken(self) -> bool:
        """Whether its container cannot even start: deleting it takes nothing away."""
        return bool(self.waits_because) and self.is_placed

    @property
    def image(self) -> str:
        """Of the node's container."""
        if self.pod is None:
            return ""
        return str(self.pod["spec"]["containers"][0].get("image", ""))


@dataclass(frozen=True)
class Observed:
    """`seats` are all that are wanted or still there, by ordinal.

    A kind in `unread` is unknown, not absent: nothing is made of it, and nothing of any kind is
    taken away until all can be read.
    """

    now: datetime.datetime
    cluster: Cluster
    namespace: str
    uid: str
    generation: int
    status: Mapping[str, Any]
    annotations: Mapping[str, str]
    record: Record | None
    record_fault: str
    """Why the Secret of the record cannot be read; empty if it can, or there is none."""
    children: Mapping[tuple[str, str], Manifest]
    """By (kind, name): what exists of what the operator makes."""
    seats: tuple[Seat, ...]
    layout_progress: Mapping[str, Any] | None = None
    """What the leader says of layouts and who waits for a seat; None: no leader said anything."""
    expandable: bool | None = None
    """Whether the storage class lets volumes grow; None: not known."""
    knows_service_monitors: bool = False
    unread: Mapping[str, str] = field(default_factory=dict)
    """Kinds that could not be read in this round, and why."""

    @property
    def sees_seats(self) -> bool:
        """Whether record, pods and claims were read: without them nothing is known of any node."""
        return not {"Secret", "Pod", "PersistentVolumeClaim"} & set(self.unread)

    @property
    def gaps(self) -> str:
        """What could not be read, for a message; empty: nothing is amiss."""
        return "; ".join(f"{kind} could not be read: {why}" for kind, why in self.unread.items())

    def child(self, kind: str, name: str) -> Manifest | None:
        """A child that exists."""
        return self.children.get((kind, name))

    @property
    def name(self) -> str:
        """Of the cluster."""
        return self.cluster.metadata.name

    @property
    def spec(self) -> ClusterSpec:
        """What is wanted."""
        return self.cluster.spec

    @property
    def nodes(self) -> int:
        """n of the layout in force; before there is one, of the specification."""
        if self.newest is None:
            return self.spec.nodes
        return len(self.newest.layout.get("members") or []) or self.spec.nodes

    @property
    def newest(self) -> NodeReport | None:
        """Of the node of this cluster that knows most; None: none was founded, or answers. One
        that left, or was away for long, may still speak of an old layout."""
        told = [
            seat.report
            for seat in self.seats
            if seat.report.is_founded
            and (self.record is None or seat.report.cluster == self.record.cluster_id)
        ]
        return max(told, key=lambda report: (report.epoch, report.applied), default=None)

    @property
    def wanted(self) -> tuple[Seat, ...]:
        """The seats of those n nodes."""
        return self.seats[: self.nodes]

    @property
    def is_formed(self) -> bool:
        """By the owner's own record."""
        return self.record is not None and self.record.formed


def labels_of(manifest: Manifest) -> Mapping[str, str]:
    """Labels, if there are any."""
    found = manifest["metadata"].get("labels")
    return found if isinstance(found, dict) else {}


def annotations_of(manifest: Manifest | None) -> Mapping[str, str]:
    """Annotations, if there are any."""
    if manifest is None:
        return {}
    found = manifest["metadata"].get("annotations")
    return found if isinstance(found, dict) else {}


def condition_of(manifest: Manifest, kind: str) -> str:
    """Status of one condition: "True", "False" or "Unknown"."""
    for entry in manifest.get("status", {}).get("conditions") or []:
        if entry["type"] == kind:
            return str(entry["status"])
    return "Unknown"


def parse_time(text: str) -> datetime.datetime | None:
    """RFC 3339, as Kubernetes writes it; None if it is not that."""
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def format_time(moment: datetime.datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
