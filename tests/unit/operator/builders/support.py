"""Clusters and contexts for the tests of the builders."""

from __future__ import annotations

from typing import Any

from distkv.manifest import API_VERSION, KIND, Cluster, parse
from distkv_operator import names
from distkv_operator.builders import Context, OperatorPlace

CLUSTER_ID = "0123456789abcdef" * 2


def cluster(name: str = "store", **spec: Any) -> Cluster:
    """As the API server would give it."""
    metadata = {"name": name, "namespace": "space", "uid": "uid-1", "generation": 1}
    raw = {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
    return parse(raw, "test")


def context(of: Cluster | None = None, **changes: Any) -> Context:
    """What the operator would observe."""
    plain = Context(
        namespace="space",
        uid="uid-1",
        image="registry.example/distkv:1.0",
        cluster_id=CLUSTER_ID,
        replicas=of.spec.nodes if of else 5,
        disruption_allowed=True,
        service_monitors=True,
        operator=OperatorPlace("distkv-system", names.OPERATOR_LABELS),
    )
    return plain._replace(**changes)
