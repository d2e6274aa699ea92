"""What the operator may do: exactly what `distkv_operator.kube` asks of the API server.

It never reads or writes what is not a child of a DistKVCluster, but RBAC knows no owners: the
namespaced installation keeps it to one namespace. It needs no `pods/exec`, no finalizers, and
cannot grant anything.
"""

from __future__ import annotations

from typing import Any

from distkv_operator import names

Rule = dict[str, Any]
WATCH = ("get", "list", "watch")
APPLY = (*WATCH, "create", "patch", "delete")
"""Server-side apply of an object that is not there yet is judged as `create`, else `patch`."""


def _rule(group: str, resources: tuple[str, ...], verbs: tuple[str, ...]) -> Rule:
    return {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}


CLUSTERS: tuple[Rule, ...] = (
    _rule(names.GROUP, (names.PLURAL,), WATCH),
    _rule(names.GROUP, (f"{names.PLURAL}/status",), ("patch",)),
    _rule("", ("configmaps", "services"), APPLY),
    # Created once, never overwritten; only the record of the formation is brought up to date.
    _rule("", ("secrets",), (*WATCH, "create", "update", "delete")),
    _rule("", ("pods",), (*WATCH, "delete")),
    _rule("", ("persistentvolumeclaims",), (*WATCH, "patch", "delete")),
    _rule("apps", ("statefulsets", "deployments"), APPLY),
    _rule("policy", ("poddisruptionbudgets",), APPLY),
    _rule("networking.k8s.io", ("networkpolicies",), APPLY),
    _rule("monitoring.coreos.com", ("servicemonitors",), APPLY),
    _rule("events.k8s.io", ("events",), ("create",)),
)
"""In the namespaces of the clusters."""

ELECTION: tuple[Rule, ...] = (
    _rule("coordination.k8s.io", ("leases",), (*WATCH, "create", "update")),
)
"""Where the Lease is."""

LEASES_SEEN: tuple[Rule, ...] = (_rule("coordination.k8s.io", ("leases",), ("list", "watch")),)
"""Cluster-wide: the watch of the Lease, by its name, is the sign that watches are alive."""

HOSTS: tuple[Rule, ...] = (
    _rule("", ("nodes", "persistentvolumes"), ("get",)),
    _rule("storage.k8s.io", ("storageclasses",), ("get",)),
)
"""Of no namespace: zones and health of Kubernetes nodes, where a volume is, whether it may grow."""
