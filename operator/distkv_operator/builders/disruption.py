"""PodDisruptionBudgets: how many pods a drain may take away.

Nodes: one at a time, and none while a further loss could go past the failure budget. Where no
failure is tolerated (f = 0, such as 1+1 and 3+0) that is never: a drain of any node stops the whole
store, and an automatic one must not. Whoever means it deletes the pod, which no budget prevents.

A single node has no budget although its drain stops the store too: whoever runs one node has
accepted that it stops when that one moves, and a budget would only keep its host from ever being
drained. Several nodes without a failure to spare are another matter: an upgrade of all hosts would
stop the store once for each of them.
"""

from __future__ import annotations

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders.context import Context, Manifest
from distkv_operator.builders.metadata import manifest


def node_budget(cluster: Cluster, context: Context) -> Manifest | None:
    """For the nodes; None where there is only one."""
    if context.replicas < 2:
        return None
    name = names.Names(cluster.metadata.name).disruption_budget
    return _budget(cluster, context, name, names.NODE, 1 if context.disruption_allowed else 0)


def gateway_budget(cluster: Cluster, context: Context) -> Manifest | None:
    """For the gateways; None where there are fewer than two."""
    if cluster.spec.gateway.replicas < 2:
        return None
    return _budget(cluster, context, names.Names(cluster.metadata.name).gateway, names.GATEWAY, 1)


def _budget(
    cluster: Cluster, context: Context, name: str, component: str, unavailable: int
) -> Manifest:
    return manifest(
        "policy/v1",
        "PodDisruptionBudget",
        name,
        cluster,
        context,
        component,
        spec={
            "maxUnavailable": unavailable,
            "selector": {"matchLabels": names.selector(cluster.metadata.name, component)},
            # A node that is not ready may hold shards that nobody else has.
            "unhealthyPodEvictionPolicy": (
                "IfHealthyBudget" if component == names.NODE else "AlwaysAllow"
            ),
        },
    )
