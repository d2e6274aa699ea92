"""Which kinds the operator deals with, and where the API server keeps them."""

from __future__ import annotations

from typing import Any, NamedTuple

Manifest = dict[str, Any]


class Kind(NamedTuple):
    """One kind of resource."""

    name: str
    group: str
    version: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As a manifest says it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Path below the server's address; `namespace` None: of all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        where = f"/namespaces/{namespace}" if self.namespaced and namespace is not None else ""
        parts = [part for part in (name, subresource) if part]
        return "/".join([f"{root}{where}/{self.plural}", *parts])


CLUSTER = Kind("DistKVCluster", "distkv.io", "v1alpha1", "distkvclusters")
POD = Kind("Pod", "", "v1", "pods")
CLAIM = Kind("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims")
SERVICE = Kind("Service", "", "v1", "services")
CONFIG_MAP = Kind("ConfigMap", "", "v1", "configmaps")
SECRET = Kind("Secret", "", "v1", "secrets")
NODE = Kind("Node", "", "v1", "nodes", namespaced=False)
STATEFUL_SET = Kind("StatefulSet", "apps", "v1", "statefulsets")
DEPLOYMENT = Kind("Deployment", "apps", "v1", "deployments")
DISRUPTION_BUDGET = Kind("PodDisruptionBudget", "policy", "v1", "poddisruptionbudgets")
NETWORK_POLICY = Kind("NetworkPolicy", "networking.k8s.io", "v1", "networkpolicies")
SERVICE_MONITOR = Kind("ServiceMonitor", "monitoring.coreos.com", "v1", "servicemonitors")
VOLUME = Kind("PersistentVolume", "", "v1", "persistentvolumes", namespaced=False)
STORAGE_CLASS = Kind("StorageClass", "storage.k8s.io", "v1", "storageclasses", namespaced=False)
LEASE = Kind("Lease", "coordination.k8s.io", "v1", "leases")
EVENT = Kind("Event", "events.k8s.io", "v1", "events")

CHILDREN = (
    CONFIG_MAP,
    SECRET,
    SERVICE,
    STATEFUL_SET,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    NETWORK_POLICY,
)
"""Kinds the operator makes, apart from ServiceMonitor, which not every cluster knows."""

WATCHED = (*CHILDREN, POD, CLAIM)
"""Kinds whose changes wake the owner."""

ALL = (
    *WATCHED,
    CLUSTER,
    NODE,
    VOLUME,
    SERVICE_MONITOR,
    STORAGE_CLASS,
    LEASE,
    EVENT,
)

BY_NAME = {kind.name: kind for kind in ALL}


def kind_of(manifest: Manifest) -> Kind:
    """The kind of a manifest. Raises KeyError for one the operator does not deal with."""
    wanted = (manifest["apiVersion"], manifest["kind"])
    for kind in ALL:
        if (kind.api_version, kind.name) == wanted:
            return kind
    raise KeyError(f"{wanted[1]} ({wanted[0]})")
