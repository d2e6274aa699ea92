"""DistKV: a strongly consistent, erasure-coded, Multi-Paxos key-value store."""
