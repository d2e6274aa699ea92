"""Names that the agents and the manifests share."""

STORAGE_CLASS = "distkv-testbed"
PROVISIONER = "testbed.distkv.io/xfs"
