"""Metadata that every child has: name, owner, labels."""

from __future__ import annotations

from typing import Any

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders.context import Context, Manifest


def manifest(
    api_version: str,
    kind: str,
    name: str,
    cluster: Cluster,
    context: Context,
    component: str,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    **rest: Any,
) -> Manifest:
    """A child: its owner is the DistKVCluster, and goes with it.

    `blockOwnerDeletion` is false: with it a foreground deletion would wait for children, and
    setting it needs permission on the owner's finalizers. `rest`: spec or data.
    """
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": context.namespace,
        "labels": {**(labels or {}), **names.labels(cluster.metadata.name, component)},
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": cluster.metadata.name,
                "uid": context.uid,
                "controller": True,
                "blockOwnerDeletion": False,
            }
        ],
    }
    if annotations:
        metadata["annotations"] = dict(sorted(annotations.items()))
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def pod_metadata(cluster: Cluster, component: str, annotations: dict[str, str]) -> Manifest:
    """Of a pod template: what the user adds never replaces what selectors and rolls rely on."""
    overrides = cluster.spec.pod_template
    return {
        "labels": {**overrides.labels, **names.labels(cluster.metadata.name, component)},
        "annotations": {**overrides.annotations, **annotations},
    }
