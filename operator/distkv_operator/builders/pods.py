"""What pods of nodes and gateways have in common: security, probes, place, resources."""

from __future__ import annotations

from typing import Any

from distkv.manifest import Cluster
from distkv.manifest.parts import Resources
from distkv_operator import names
from distkv_operator.builders.config import CONFIG_DIRECTORY, SECRETS_DIRECTORY
from distkv_operator.builders.context import Manifest

USER_ID = 10001
SCRATCH_SIZE = "64Mi"
START_SECONDS_MAX = 900
"""A node may take so long to read its disk before it answers at all."""
PROBE_SECONDS = 2

CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": USER_ID,
    "runAsGroup": USER_ID,
    "fsGroup": USER_ID,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}


def port(name: str, number: int, protocol: str = "TCP") -> Manifest:
    """A container's port."""
    return {"name": name, "containerPort": number, "protocol": protocol}


def probes() -> Manifest:
    """Alive: the process answers. Ready: it takes requests of clients."""
    alive = {"path": "/livez", "port": "http"}
    return {
        "startupProbe": {
            "httpGet": alive,
            "periodSeconds": PROBE_SECONDS,
            "timeoutSeconds": PROBE_SECONDS,
            "failureThreshold": START_SECONDS_MAX // PROBE_SECONDS,
        },
        # Slow is not dead: killing a busy node would make the others busier.
        "livenessProbe": {
            "httpGet": alive,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
        "readinessProbe": {
            "httpGet": {"path": "/readyz", "port": "http"},
            "periodSeconds": PROBE_SECONDS,
            "timeoutSeconds": PROBE_SECONDS,
            "failureThreshold": 2,
        },
    }


def container(
    cluster: Cluster, name: str, image: str, command: list[str], resources: Resources
) -> Manifest:
    """The one container of a pod, without ports, environment and mounts."""
    found: Manifest = {
        "name": name,
        "image": image,
        "command": command,
        "securityContext": dict(CONTAINER_SECURITY),
        **probes(),
        # Time for Services and kube-proxies to forget the pod before it refuses requests.
        "lifecycle": {"preStop": {"sleep": {"seconds": PROBE_SECONDS}}},
    }
    pull_policy = cluster.spec.pod_template.image_pull_policy
    if pull_policy is not None:
        found["imagePullPolicy"] = pull_policy
    asked = resources.model_dump(mode="json", exclude_none=True, by_alias=True)
    wanted = {kind: amounts for kind, amounts in asked.items() if amounts}
    if wanted:
        found["resources"] = wanted
    return found


def pod_spec(cluster: Cluster, component: str, containers: list[Manifest]) -> Manifest:
    """A pod's specification, without volumes and grace period."""
    overrides = cluster.spec.pod_template
    found: Manifest = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": dict(POD_SECURITY),
        "containers": containers,
        **placing(cluster, component),
    }
    if overrides.node_selector:
        found["nodeSelector"] = dict(overrides.node_selector)
    if overrides.tolerations:
        found["tolerations"] = [
            t.model_dump(mode="json", by_alias=True, exclude_none=True)
            for t in overrides.tolerations
        ]
    if overrides.priority_class_name is not None:
        found["priorityClassName"] = overrides.priority_class_name
    if overrides.image_pull_secrets:
        found["imagePullSecrets"] = [{"name": name} for name in overrides.image_pull_secrets]
    return found


def placing(cluster: Cluster, component: str) -> Manifest:
    """Spread over zones and hosts.

    Hosts "Required" is an anti-affinity, not a constraint of spreading: with that, a pod whose
    volume ties it to a host could not come back after an empty host had joined.
    """
    topology = cluster.spec.topology
    selects = {"matchLabels": names.selector(cluster.metadata.name, component)}
    hosts = "Preferred" if component == names.GATEWAY else topology.hosts
    zones = "Preferred" if component == names.GATEWAY else topology.zones
    found: Manifest = {}
    spread: list[dict[str, Any]] = []
    for key, wanted in ((names.ZONE_KEY, zones), (names.HOST_KEY, hosts)):
        if wanted == "Ignored" or (key == names.HOST_KEY and wanted == "Required"):
            continue
        spread.append(
            {
                "maxSkew": 1,
                "topologyKey": key,
                "whenUnsatisfiable": "DoNotSchedule" if wanted == "Required" else "ScheduleAnyway",
                "labelSelector": selects,
            }
        )
    term = {"topologyKey": names.HOST_KEY, "labelSelector": selects}
    if hosts == "Required":
        rule: Manifest = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
        found["affinity"] = {"podAntiAffinity": rule}
    elif hosts == "Preferred":
        weighted = [{"weight": 100, "podAffinityTerm": term}]
        rule = {"preferredDuringSchedulingIgnoredDuringExecution": weighted}
        found["affinity"] = {"podAntiAffinity": rule}
    if spread:
        found["topologySpreadConstraints"] = spread
    return found


class Volumes:
    """Volumes of a pod and where its container mounts them."""

    def __init__(self) -> None:
        self.volumes: list[Manifest] = [{"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH_SIZE}}]
        self.mounts: list[Manifest] = [{"name": "tmp", "mountPath": "/tmp"}]

    def file(self, config_map: str, key: str) -> None:
        """One file of a ConfigMap, in a directory so that changes of it arrive."""
        source = {"name": config_map, "items": [{"key": key, "path": key}]}
        self.volumes.append({"name": "config", "configMap": source})
        self.mounts.append({"name": "config", "mountPath": CONFIG_DIRECTORY, "readOnly": True})

    def secret(self, name: str, secret: str) -> None:
        """A Secret's fields as files below SECRETS_DIRECTORY/name, for our group only."""
        self.volumes.append({"name": name, "secret": {"secretName": secret, "defaultMode": 0o440}})
        mount = {"name": name, "mountPath": f"{SECRETS_DIRECTORY}/{name}", "readOnly": True}
        self.mounts.append(mount)
