"""Namespace, permissions and Deployment of the operator, and the custom resource definition."""

from __future__ import annotations

from typing import Any, NamedTuple

from distkv_operator import names
from distkv_operator.builders.pods import CONTAINER_SECURITY, POD_SECURITY
from distkv_operator.crd import definition
from distkv_operator.install import permissions

Document = dict[str, Any]
NAME = "distkv-operator"
PORT = 8082
RBAC = "rbac.authorization.k8s.io"


class Options(NamedTuple):
    """`namespaced`: it looks after the clusters of its own namespace only."""

    namespace: str = "distkv-system"
    image: str = "distkv:dev"
    namespaced: bool = False


def documents(options: Options) -> tuple[Document, ...]:
    """In the order to apply them."""
    return (
        _namespace(options),
        definition(),
        _object("v1", "ServiceAccount", options, automountServiceAccountToken=False),
        *_roles(options),
        _deployment(options),
    )


def _namespace(options: Options) -> Document:
    labels = {names.NAME_LABEL: NAME}
    for mode in ("enforce", "audit", "warn"):
        labels[f"pod-security.kubernetes.io/{mode}"] = "restricted"
    return {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": options.namespace, "labels": labels},
    }


def _object(
    api_version: str, kind: str, options: Options, name: str = NAME, scope: str = "", **rest: Any
) -> Document:
    metadata: Document = {"name": name}
    if scope != "Cluster":
        metadata["namespace"] = options.namespace
    metadata["labels"] = dict(names.OPERATOR_LABELS)
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **rest}


def _roles(options: Options) -> list[Document]:
    """What it may do, where: in all namespaces, or in its own."""
    if options.namespaced:
        # A cluster-wide name of its own for each namespace that has such an operator.
        name = f"{NAME}-{options.namespace}"
        return [
            *_bound(options, NAME, "Role", (*permissions.CLUSTERS, *permissions.ELECTION)),
            *_bound(options, name, "ClusterRole", permissions.HOSTS),
        ]
    everywhere = (*permissions.CLUSTERS, *permissions.LEASES_SEEN, *permissions.HOSTS)
    return [
        *_bound(options, NAME, "ClusterRole", everywhere),
        *_bound(options, NAME, "Role", permissions.ELECTION),
    ]


def _bound(
    options: Options, name: str, kind: str, rules: tuple[permissions.Rule, ...]
) -> list[Document]:
    """A role, given to the operator's service account."""
    version = f"{RBAC}/v1"
    scope = "Cluster" if kind == "ClusterRole" else ""
    subject = {"kind": "ServiceAccount", "name": NAME, "namespace": options.namespace}
    return [
        _object(version, kind, options, name, scope, rules=[dict(rule) for rule in rules]),
        _object(
            version,
            f"{kind}Binding",
            options,
            name,
            scope,
            roleRef={"apiGroup": RBAC, "kind": kind, "name": name},
            subjects=[subject],
        ),
    ]


def _deployment(options: Options) -> Document:
    return _object(
        "apps/v1",
        "Deployment",
        options,
        spec={
            "replicas": 1,
            "revisionHistoryLimit": 5,
            "selector": {"matchLabels": dict(names.OPERATOR_LABELS)},
            "template": {
                "metadata": {"labels": dict(names.OPERATOR_LABELS)},
                "spec": {
                    "serviceAccountName": NAME,
                    "automountServiceAccountToken": True,
                    "enableServiceLinks": False,
                    "securityContext": {
                        key: value
                        for key, value in POD_SECURITY.items()
                        if key not in ("fsGroup", "fsGroupChangePolicy")
                    },
                    "terminationGracePeriodSeconds": 30,
                    "containers": [_container(options)],
                    "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
                },
            },
        },
    )


def _container(options: Options) -> Document:
    environment = [{"name": "DISTKV_OPERATOR_IMAGE", "value": options.image}]
    if options.namespaced:
        environment.append({"name": "DISTKV_OPERATOR_NAMESPACES", "value": options.namespace})
    return {
        "name": names.OPERATOR,
        "image": options.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["distkv-operator", "run"],
        "env": environment,
        "ports": [{"name": "metrics", "containerPort": PORT, "protocol": "TCP"}],
        "startupProbe": _probe("/livez", periodSeconds=2, failureThreshold=60),
        "livenessProbe": _probe("/livez", periodSeconds=10, failureThreshold=3),
        "readinessProbe": _probe("/readyz", periodSeconds=5, failureThreshold=3),
        "resources": {
            "requests": {"cpu": "50m", "memory": "128Mi"},
            "limits": {"memory": "512Mi"},
        },
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }


def _probe(path: str, **timing: int) -> Document:
    return {"httpGet": {"path": path, "port": "metrics"}, "timeoutSeconds": 3, **timing}
