"""NetworkPolicies: who reaches which port.

| port | from |
|---|---|
| peers, UDP 7400 | nodes of this cluster |
| link, TCP 7401 | its gateways |
| admin, TCP 8081 | the operator |
| resp 6379, http 8080 | clients: everybody, or the namespaces of `networkPolicy.clientNamespaces` |

Nodes and gateways reach nobody but each other and the DNS. The kubelet's probes come from the
pod's own host, which policies never cut off.
"""

from __future__ import annotations

from typing import Any

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders.context import Context, Manifest
from distkv_operator.builders.metadata import manifest

Rule = dict[str, Any]


def node_policy(cluster: Cluster, context: Context) -> Manifest | None:
    """For the nodes; None where policies are not wanted."""
    name = cluster.metadata.name
    nodes, gateways = _pods(name, names.NODE), _pods(name, names.GATEWAY)
    ingress = [
        {"from": [nodes], "ports": [_port(names.PEERS_PORT, "UDP")]},
        {"from": [gateways], "ports": [_port(names.LINK_PORT)]},
        _admin(context),
        _clients(cluster, context),
    ]
    egress = [{"to": [nodes], "ports": [_port(names.PEERS_PORT, "UDP")]}, _dns()]
    child = names.Names(name).network_policy
    return _policy(cluster, context, child, names.NODE, ingress, egress)


def gateway_policy(cluster: Cluster, context: Context) -> Manifest | None:
    """For the gateways; None where there are none or policies are not wanted."""
    if cluster.spec.gateway.replicas == 0:
        return None
    name = cluster.metadata.name
    egress = [{"to": [_pods(name, names.NODE)], "ports": [_port(names.LINK_PORT)]}, _dns()]
    ingress = [_clients(cluster, context)]
    child = names.Names(name).gateway
    return _policy(cluster, context, child, names.GATEWAY, ingress, egress)


def _policy(
    cluster: Cluster,
    context: Context,
    name: str,
    component: str,
    ingress: list[Rule],
    egress: list[Rule],
) -> Manifest | None:
    if not cluster.spec.network_policy.enabled:
        return None
    return manifest(
        "networking.k8s.io/v1",
        "NetworkPolicy",
        name,
        cluster,
        context,
        component,
        spec={
            "podSelector": {"matchLabels": names.selector(cluster.metadata.name, component)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": ingress,
            "egress": egress,
        },
    )


def _pods(cluster: str, component: str) -> Rule:
    return {"podSelector": {"matchLabels": names.selector(cluster, component)}}


def _namespace(name: str) -> Rule:
    return {"namespaceSelector": {"matchLabels": {names.NAMESPACE_LABEL: name}}}


def _port(number: int, protocol: str = "TCP") -> Rule:
    return {"protocol": protocol, "port": number}


def _admin(context: Context) -> Rule:
    """An operator outside of the cluster comes through the API server, whose address no
    selector names: then the token alone protects the port."""
    rule: Rule = {"ports": [_port(names.ADMIN_PORT)]}
    if context.operator is not None:
        pods = {"podSelector": {"matchLabels": dict(context.operator.labels)}}
        rule["from"] = [{**_namespace(context.operator.namespace), **pods}]
    return rule


def _clients(cluster: Cluster, context: Context) -> Rule:
    rule: Rule = {"ports": [_port(names.RESP_PORT), _port(names.HTTP_PORT)]}
    allowed = cluster.spec.network_policy.client_namespaces
    if allowed:
        operator = () if context.operator is None else (context.operator.namespace,)
        wanted = sorted({*allowed, context.namespace, *operator})
        rule["from"] = [_namespace(name) for name in wanted]
    return rule


def _dns() -> Rule:
    """Wherever it is: in a namespace of its own, or at a link-local address."""
    return {"ports": [_port(names.DNS_PORT, "UDP"), _port(names.DNS_PORT)]}
