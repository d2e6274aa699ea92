"""Addresses of a cluster. The same in every cluster: each has a network namespace of its own."""

from __future__ import annotations

HUB_ADDRESS = "10.240.0.254"  # the control plane, on the link that all nodes share
API_PORT = 6443
API_SERVER = f"https://{HUB_ADDRESS}:{API_PORT}"
POD_RANGE = "10.244.0.0/16"
SERVICE_RANGE = "10.96.0.0/16"
API_SERVICE = "10.96.0.1"  # Kubernetes gives its own Service the first address of the range
DNS_SERVICE = "10.96.0.10"
DOMAIN = "cluster.local"
BRIDGE = "underlay"
MAX_NODES = 64


def node_name(number: int) -> str:
    return f"node{number}"


def node_number(name: str) -> int:
    return int(name.removeprefix("node"))


def node_address(number: int) -> str:
    return f"10.240.0.{number}"


def pod_range(number: int) -> str:
    """The addresses of the pods of one node."""
    return f"10.244.{number}.0/24"


def zone_of(number: int, zones: int = 3) -> str:
    """Nodes are dealt out over the zones in turn, as in the kind cluster of this repository."""
    return f"zone-{'abcdefgh'[(number - 1) % zones]}"
