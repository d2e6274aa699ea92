"""All children of a cluster: those wanted now, and those that ever could be."""

from __future__ import annotations

from typing import NamedTuple

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders import (
    config,
    disruption,
    gateway,
    monitoring,
    network,
    nodes,
    services,
)
from distkv_operator.builders.context import Context, Manifest


class Reference(NamedTuple):
    """An object of the cluster's namespace."""

    api_version: str
    kind: str
    name: str


def children(cluster: Cluster, context: Context) -> tuple[Manifest, ...]:
    """The manifests to apply, in that order: what pods need comes before them."""
    wanted: list[Manifest | None] = [
        config.config_map(cluster, context),
        services.peers_service(cluster, context),
        services.client_service(cluster, context),
        network.node_policy(cluster, context),
        disruption.node_budget(cluster, context),
        nodes.stateful_set(cluster, context),
    ]
    if cluster.spec.gateway.replicas:
        wanted += [
            services.gateway_service(cluster, context),
            network.gateway_policy(cluster, context),
            disruption.gateway_budget(cluster, context),
            gateway.deployment(cluster, context),
        ]
    wanted.append(monitoring.service_monitor(cluster, context))
    return tuple(child for child in wanted if child is not None)


def reference(manifest: Manifest) -> Reference:
    """Which object a manifest is of."""
    return Reference(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])


def unwanted(cluster: Cluster, context: Context) -> tuple[Reference, ...]:
    """Children that another specification had and this one has not: to be deleted if they exist
    and the resource owns them. Never the StatefulSet, a Secret or a claim."""
    own = names.Names(cluster.metadata.name)
    optional = [
        Reference("networking.k8s.io/v1", "NetworkPolicy", own.network_policy),
        Reference("networking.k8s.io/v1", "NetworkPolicy", own.gateway),
        Reference("policy/v1", "PodDisruptionBudget", own.disruption_budget),
        Reference("policy/v1", "PodDisruptionBudget", own.gateway),
        Reference("v1", "Service", own.gateway),
        Reference("apps/v1", "Deployment", own.gateway),
    ]
    if context.service_monitors:
        optional.append(
            Reference("monitoring.coreos.com/v1", "ServiceMonitor", own.service_monitor)
        )
    wanted = {reference(child) for child in children(cluster, context)}
    return tuple(child for child in optional if child not in wanted)
