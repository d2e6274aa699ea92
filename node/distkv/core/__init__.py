"""Consensus core: Multi-Paxos without I/O."""
