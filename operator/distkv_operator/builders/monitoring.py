"""The ServiceMonitor of the Prometheus operator, where the cluster knows that kind."""

from __future__ import annotations

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders.context import Context, Manifest
from distkv_operator.builders.metadata import manifest
from distkv_operator.crd.units import duration_text


def service_monitor(cluster: Cluster, context: Context) -> Manifest | None:
    """Nodes (ready or not) and gateways; None where it is not wanted or not known."""
    monitoring = cluster.spec.monitoring
    if not (monitoring.enabled and context.service_monitors):
        return None
    name = cluster.metadata.name
    interval = duration_text(round(monitoring.interval, 3))
    return manifest(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        names.Names(name).service_monitor,
        cluster,
        context,
        names.NODE,
        labels=dict(monitoring.labels),
        spec={
            "selector": {
                "matchLabels": {names.CLUSTER_LABEL: name, names.SCRAPE_LABEL: "true"},
            },
            "namespaceSelector": {"matchNames": [context.namespace]},
            "targetLabels": [names.CLUSTER_LABEL, names.COMPONENT_LABEL],
            "endpoints": [{"port": "http", "path": "/metrics", "interval": interval}],
        },
    )
