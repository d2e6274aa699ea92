"""The `DistKVCluster` resource: one model for laptop mode and for the operator."""

from distkv.manifest.model import API_VERSION, KIND, Cluster, ClusterSpec
from distkv.manifest.reading import ManifestError, cluster_of, read

__all__ = ["API_VERSION", "KIND", "Cluster", "ClusterSpec", "ManifestError", "cluster_of", "read"]
