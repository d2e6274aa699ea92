"""Manifests that the tests of the test bed are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from testbed.agents.names import STORAGE_CLASS

Manifest = dict[str, Any]
TOOLBOX = "testbed.local/toolbox:1"
IDLE = ("sleep", "infinity")
PORT = 7000

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def pod(name: str, command: Sequence[str] = IDLE, node: str = "", **labels: str) -> Manifest:
    """A pod of the toolbox image; `node` binds it to one node without asking the scheduler."""
    spec: Manifest = {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "main", "image": TOOLBOX, "command": list(command)}],
    }
    if node:
        spec["nodeName"] = node
    meta = {"name": name, "labels": {"app": name, **labels}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def server(name: str, node: str = "", **labels: str) -> Manifest:
    """Answers UDP and TCP on PORT."""
    return pod(name, ("probe", "serve", f":{PORT}"), node, **labels)


def stateful(name: str, replicas: int, size: str = "", node: str = "") -> Manifest:
    """A StatefulSet; with a size each pod has a volume of it at /data."""
    template = pod(name)
    spec = template["spec"]
    if node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": node}
    found: Manifest = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "serviceName": name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }
    if size:
        spec["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        claim = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": STORAGE_CLASS,
            "resources": {"requests": {"storage": size}},
        }
        found["spec"]["volumeClaimTemplates"] = [{"metadata": {"name": "data"}, "spec": claim}]
    return found


def headless(name: str) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "selector": {"app": name}, "ports": [{"port": PORT}]},
    }


def policy(name: str, app: str | None, **rules: Any) -> Manifest:
    """A NetworkPolicy for pods with this `app` label (None: all pods of the namespace).

    `ingress=[]` forbids everything in that direction; a direction that is not given stays free.
    """
    selector = {"matchLabels": {"app": app}} if app else {}
    types = [direction.capitalize() for direction in rules]
    spec = {"podSelector": selector, "policyTypes": types, **rules}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": spec,
    }
