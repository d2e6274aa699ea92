"""Configuration files of the processes of a local cluster."""

from __future__ import annotations

import json
import sys
from typing import Any

from distkv.config.units import Address
from distkv.local.directory import Directory, Identity, write_durably
from distkv.local.ports import HOST, PortPlan
from distkv.local.processes import Child

SPARE_BYTES = 8 * 1024 * 1024
"""On a laptop all nodes share one disk: each keeps only a little in reserve."""


def write_configurations(directory: Directory) -> None:
    """Write node-N.json for every node process and gateway.json, from cluster.json."""
    identity = directory.identity()
    plan = PortPlan(identity.port_base, directory.nodes)
    for ordinal in range(plan.nodes):
        _write(directory, f"node-{ordinal}", node_configuration(directory, identity, plan, ordinal))
    _write(directory, "gateway", gateway_configuration(identity, plan))


def node_configuration(
    directory: Directory, identity: Identity, plan: PortPlan, ordinal: int
) -> dict[str, Any]:
    """Sections of one node's file."""
    ports = plan.node(ordinal)
    storage: dict[str, Any] = {"directory": str(directory.node(ordinal)), "reserve": SPARE_BYTES}
    if identity.engine is not None:
        storage["engine"] = identity.engine
    return identity.tuning | {
        "node": {"ordinal": ordinal},
        "cluster": {"id": identity.cluster_id},
        "listen": {name: str(Address(HOST, port)) for name, port in ports._asdict().items()},
        "peers": {"addresses": plan.peers()},
        "keys": {"files": [str(directory / "cluster.key")]},
        "admin": {"token_file": str(directory / "admin.token")},
        "storage": storage,
    }


def gateway_configuration(identity: Identity, plan: PortPlan) -> dict[str, Any]:
    """Sections of the gateway's file; it never gets the cluster key."""
    return identity.tuning | {
        "node": {"name": "gateway"},
        "listen": {
            "resp": str(Address(HOST, plan.gateway_resp)),
            "http": str(Address(HOST, plan.gateway_http)),
        },
        "gateway": {"nodes": plan.links()},
    }


def node_child(directory: Directory, ordinal: int) -> Child:
    """The process of a node; not started."""
    return _child(directory, f"node-{ordinal}", "node")


def children(directory: Directory) -> list[Child]:
    """The processes, nodes first, the gateway last; not started."""
    nodes = [node_child(directory, ordinal) for ordinal in range(directory.nodes)]
    return [*nodes, _child(directory, "gateway", "gateway")]


def _child(directory: Directory, name: str, role: str) -> Child:
    file = str(directory / f"{name}.json")
    return Child(name, directory.path, [sys.executable, "-m", "distkv", role, "--config", file])


def _write(directory: Directory, name: str, content: dict[str, Any]) -> None:
    write_durably(directory / f"{name}.json", json.dumps(content, indent=2) + "\n", 0o600)
