"""The manifests that bring the operator itself into a cluster: hack/install*.yaml."""

from distkv_operator.install.documents import Options, documents

__all__ = ["Options", "documents"]
