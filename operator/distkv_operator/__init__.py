"""The kopf operator that keeps a DistKVCluster true."""
