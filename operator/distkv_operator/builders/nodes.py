"""The nodes' StatefulSet.

Pods start in parallel: a node needs a majority of the others to become ready. `OnDelete`: the
operator alone decides when which pod is replaced. A claim is never shared with another pod and
goes only with the resource, if `deletionPolicy` says so.
"""

from __future__ import annotations

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders import config, pods
from distkv_operator.builders.context import Context, Manifest
from distkv_operator.builders.metadata import manifest, pod_metadata

GRACE_SECONDS = 60
"""To hand over leadership, end requests and flush; then it is killed, which loses nothing."""


def stateful_set(cluster: Cluster, context: Context) -> Manifest:
    """One pod and one claim for each ordinal."""
    name = cluster.metadata.name
    children = names.Names(name)
    return manifest(
        "apps/v1",
        "StatefulSet",
        children.stateful_set,
        cluster,
        context,
        names.NODE,
        spec={
            "replicas": context.replicas,
            "serviceName": children.peers_service,
            "podManagementPolicy": "Parallel",
            "updateStrategy": {"type": "OnDelete"},
            "revisionHistoryLimit": 5,
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": cluster.spec.deletion_policy,
                "whenScaled": "Retain",
            },
            "selector": {"matchLabels": names.selector(name, names.NODE)},
            "template": pod_template(cluster, context),
            "volumeClaimTemplates": [claim_template(cluster)],
        },
    )


def pod_template(cluster: Cluster, context: Context) -> Manifest:
    """The pod of a node."""
    children = names.Names(cluster.metadata.name)
    volumes = pods.Volumes()
    volumes.file(children.config, config.NODE_FILE)
    volumes.secret("cluster-key", children.cluster_key)
    volumes.secret("admin-token", children.admin_token)
    volumes.secret("link-token", children.link_token)
    mounts = [*volumes.mounts, {"name": names.CLAIM_TEMPLATE, "mountPath": config.DATA_DIRECTORY}]
    container = pods.container(
        cluster,
        names.NODE,
        context.image,
        ["distkv", "node", "--config", f"{config.CONFIG_DIRECTORY}/{config.NODE_FILE}"],
        cluster.spec.resources,
    )
    container["ports"] = [
        pods.port("resp", names.RESP_PORT),
        pods.port("http", names.HTTP_PORT),
        pods.port("admin", names.ADMIN_PORT),
        pods.port("peers", names.PEERS_PORT, "UDP"),
        pods.port("link", names.LINK_PORT),
    ]
    container["env"] = [
        _from_pod("DISTKV_NODE__ORDINAL", f"metadata.labels['{names.POD_INDEX_LABEL}']"),
        _from_pod("DISTKV_NODE__NAME", "metadata.name"),
    ]
    container["volumeMounts"] = mounts
    spec = pods.pod_spec(cluster, names.NODE, [container])
    spec["volumes"] = volumes.volumes
    spec["terminationGracePeriodSeconds"] = GRACE_SECONDS
    started_with = {names.FINGERPRINT_ANNOTATION: config.fingerprint(cluster, context)}
    return {"metadata": pod_metadata(cluster, names.NODE, started_with), "spec": spec}


def _from_pod(variable: str, path: str) -> Manifest:
    return {"name": variable, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}


def claim_template(cluster: Cluster) -> Manifest:
    """The claim of a node, before its ordinal is known."""
    storage = cluster.spec.storage
    spec: Manifest = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Filesystem",
        "resources": {"requests": {"storage": storage.size}},
    }
    if storage.class_name is not None:
        spec["storageClassName"] = storage.class_name
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": names.CLAIM_TEMPLATE,
            "labels": names.labels(cluster.metadata.name, names.NODE),
        },
        "spec": spec,
    }
