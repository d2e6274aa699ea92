"""Services: a name for each node, and the doors for clients."""

from __future__ import annotations

from typing import Any

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders.context import Context, Manifest
from distkv_operator.builders.metadata import manifest


def _port(name: str, number: int, protocol: str = "TCP") -> Manifest:
    return {"name": name, "port": number, "targetPort": name, "protocol": protocol}


CLIENT_PORTS = (_port("resp", names.RESP_PORT), _port("http", names.HTTP_PORT))


def peers_service(cluster: Cluster, context: Context) -> Manifest:
    """Headless. Not-ready addresses too: nodes need each other to become ready."""
    children = names.Names(cluster.metadata.name)
    return manifest(
        "v1",
        "Service",
        children.peers_service,
        cluster,
        context,
        names.NODE,
        labels={names.SCRAPE_LABEL: "true"},
        spec={
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": names.selector(cluster.metadata.name, names.NODE),
            "ports": [
                _port("peers", names.PEERS_PORT, "UDP"),
                _port("link", names.LINK_PORT),
                _port("http", names.HTTP_PORT),
                _port("admin", names.ADMIN_PORT),
            ],
        },
    )


def client_service(cluster: Cluster, context: Context) -> Manifest:
    """For clients, straight to the nodes that serve: any of them takes any request."""
    children = names.Names(cluster.metadata.name)
    service = cluster.spec.service
    return manifest(
        "v1",
        "Service",
        children.service,
        cluster,
        context,
        names.NODE,
        annotations=dict(service.annotations),
        spec=_clients(cluster, names.NODE, service.type),
    )


def gateway_service(cluster: Cluster, context: Context) -> Manifest:
    """For clients, to the gateways."""
    children = names.Names(cluster.metadata.name)
    gateway = cluster.spec.gateway
    return manifest(
        "v1",
        "Service",
        children.gateway,
        cluster,
        context,
        names.GATEWAY,
        labels={names.SCRAPE_LABEL: "true"},
        annotations=dict(gateway.service_annotations),
        spec=_clients(cluster, names.GATEWAY, gateway.service_type),
    )


def _clients(cluster: Cluster, component: str, kind: str) -> dict[str, Any]:
    return {
        "type": kind,
        "selector": names.selector(cluster.metadata.name, component),
        "ports": [dict(port) for port in CLIENT_PORTS],
    }
