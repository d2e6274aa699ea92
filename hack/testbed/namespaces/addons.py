"""What a cluster holds besides Kubernetes itself: DNS and the storage class, as manifests."""

from __future__ import annotations

from typing import Any

from testbed.agents.names import PROVISIONER, STORAGE_CLASS
from testbed.namespaces import network
from testbed.namespaces.images import COREDNS

Manifest = dict[str, Any]
LABELS = {"k8s-app": "kube-dns"}  # the label that network policies of the world expect DNS to have

# The short lives of answers make a moved pod resolve anew at once. There is no upstream server, so
# unknown names get NXDOMAIN; without that a client would see a temporary failure and retry.
COREFILE = f""".:53 {{
    errors
    health :8080
    ready :8181
    kubernetes {network.DOMAIN} in-addr.arpa {{
        ttl 2
        fallthrough in-addr.arpa
    }}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
    cache 2
}}
"""


def manifests(nodes: int) -> list[Manifest]:
    return [storage_class(), *dns_access(), dns_service(), dns_config(), dns_deployment(nodes)]


def storage_class() -> Manifest:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
    }


def _system(name: str) -> Manifest:
    return {"name": name, "namespace": "kube-system"}


def dns_access() -> list[Manifest]:
    def read(group: str, *resources: str) -> Manifest:
        return {"apiGroups": [group], "resources": list(resources), "verbs": ["list", "watch"]}

    role = "testbed:coredns"
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", **_system("coredns")}
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _system("coredns")},
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": role},
            "rules": [
                read("", "services", "pods", "namespaces"),
                read("discovery.k8s.io", "endpointslices"),
            ],
        },
        {
            "apiVersion": f"{group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role},
            "subjects": [subject],
        },
    ]


def dns_service() -> Manifest:
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**_system("kube-dns"), "labels": LABELS},
        "spec": {"clusterIP": network.DNS_SERVICE, "selector": LABELS, "ports": ports},
    }


def dns_config() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _system("coredns"),
        "data": {"Corefile": COREFILE},
    }


def dns_deployment(nodes: int) -> Manifest:
    """Two pods on different nodes, so that the loss of a node is not the loss of all names."""
    container = {
        "name": "coredns",
        "image": COREDNS,
        "args": ["-conf", "/etc/coredns/Corefile"],
        "ports": [
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
            {"name": "dns-tcp", "containerPort": 53},
        ],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": LABELS},
    }
    pod = {
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 65534,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [spread],
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**_system("kube-dns"), "labels": LABELS},
        "spec": {
            "replicas": min(2, nodes),
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": pod},
        },
    }
