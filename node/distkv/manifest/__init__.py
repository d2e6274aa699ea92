"""The `DistKVCluster` resource: one model for laptop mode and for the operator."""

from distkv.manifest.model import API_VERSION, KIND, Cluster, ClusterSpec
from distkv.manifest.reading import ManifestError, cluster_of, parse, read
from distkv.manifest.status import ClusterStatus

__all__ = [
    "API_VERSION",
    "KIND",
    "Cluster",
    "ClusterSpec",
    "ClusterStatus",
    "ManifestError",
    "cluster_of",
    "parse",
    "read",
]
