"""What a manifest depends on beside the specification."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Manifest = dict[str, Any]


class OperatorPlace(NamedTuple):
    """Where the operator's pods are, for the network policies."""

    namespace: str
    labels: Mapping[str, str]


class Context(NamedTuple):
    """Observed or decided by the operator. Equal contexts give equal manifests."""

    namespace: str
    uid: str
    """Of the DistKVCluster, for ownerReferences."""
    image: str
    """Of nodes and gateways, resolved: `spec.image`, or what the status recorded."""
    cluster_id: str
    """32 hexadecimal digits."""
    replicas: int
    """Pods of nodes wanted now: n, and more while a change of layout is under way."""
    disruption_allowed: bool
    """Whether a node may be taken away voluntarily without going past the failure budget."""
    service_monitors: bool
    """Whether the API server knows the kind ServiceMonitor."""
    operator: OperatorPlace | None = None
    """None: the operator runs outside of the cluster and comes through the API server."""
