"""The gateways' Deployment: no state, no key of the nodes, replaced without a gap."""

from __future__ import annotations

from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders import config, pods
from distkv_operator.builders.context import Context, Manifest
from distkv_operator.builders.metadata import manifest, pod_metadata

GRACE_SECONDS = 30


def deployment(cluster: Cluster, context: Context) -> Manifest:
    """A new pod is ready before an old one goes."""
    name = cluster.metadata.name
    children = names.Names(name)
    return manifest(
        "apps/v1",
        "Deployment",
        children.gateway,
        cluster,
        context,
        names.GATEWAY,
        spec={
            "replicas": cluster.spec.gateway.replicas,
            "revisionHistoryLimit": 5,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1},
            },
            "selector": {"matchLabels": names.selector(name, names.GATEWAY)},
            "template": pod_template(cluster, context),
        },
    )


def pod_template(cluster: Cluster, context: Context) -> Manifest:
    """The pod of a gateway."""
    children = names.Names(cluster.metadata.name)
    volumes = pods.Volumes()
    volumes.file(children.config, config.GATEWAY_FILE)
    volumes.secret("link-token", children.link_token)
    container = pods.container(
        cluster,
        names.GATEWAY,
        context.image,
        ["distkv", "gateway", "--config", f"{config.CONFIG_DIRECTORY}/{config.GATEWAY_FILE}"],
        cluster.spec.gateway.resources,
    )
    container["ports"] = [
        pods.port("resp", names.RESP_PORT),
        pods.port("http", names.HTTP_PORT),
    ]
    container["volumeMounts"] = volumes.mounts
    spec = pods.pod_spec(cluster, names.GATEWAY, [container])
    spec["volumes"] = volumes.volumes
    spec["terminationGracePeriodSeconds"] = GRACE_SECONDS
    annotations = {names.CONFIG_ANNOTATION: config.gateway_checksum(cluster, context)}
    return {"metadata": pod_metadata(cluster, names.GATEWAY, annotations), "spec": spec}
