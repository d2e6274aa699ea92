"""Parts of the specification: storage, pods, place, doors, policies.

Every text, list and mapping has a bound: the rules of the custom resource definition are
priced by the largest object that could be sent.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from distkv.config.units import Seconds, parse_size

RESERVED_PREFIXES = ("distkv.io/", "app.kubernetes.io/")
"""Of labels and annotations by which the operator finds pods and knows what they run."""


class Part(BaseModel):
    """Base of the manifest's objects: camelCase, immutable, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


def _bytes(raw: Any) -> str:
    """A Kubernetes quantity of bytes, kept as written after a check."""
    try:
        if parse_size(raw) <= 0:
            raise ValueError
    except ValueError:
        raise ValueError('give a size such as "10Gi" or "500Mi"') from None
    return str(raw)


Quantity = Annotated[
    str, BeforeValidator(_bytes), WithJsonSchema({"x-kubernetes-int-or-string": True})
]
"""Bytes, as Kubernetes writes them."""

Amount = Annotated[
    str,
    BeforeValidator(lambda raw: raw if isinstance(raw, bool) else str(raw)),
    Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"),
    WithJsonSchema({"x-kubernetes-int-or-string": True}),
]
"""An amount of a resource: "500m", "2", "4Gi"."""

KEY_PATTERN = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
Key = Annotated[str, Field(max_length=317, pattern=KEY_PATTERN)]
"""Of a label or annotation, such as example.org/team."""
LabelValue = Annotated[
    str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")
]
ObjectName = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
ShortText = Annotated[str, Field(max_length=253)]
LongText = Annotated[str, Field(max_length=4096)]
Labels = Annotated[dict[Key, LabelValue], Field(max_length=32)]
Annotations = Annotated[dict[Key, LongText], Field(max_length=32)]
Spread = Literal["Required", "Preferred", "Ignored"]
ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]


class StorageSpec(Part):
    """The volume of each node."""

    size: Quantity = Field(
        default="10Gi", description="Size of each volume. It may grow, never shrink."
    )
    class_name: ObjectName | None = Field(
        default=None,
        description="Storage class of the volumes. Unset: the default class of the Kubernetes "
        "cluster. It cannot be changed, set or unset afterwards.",
    )
    engine: Literal["files", "rocksdb", "memory"] | None = Field(
        default=None,
        description="Storage engine of the nodes. Unset: files. It cannot be changed, set or unset "
        "afterwards, because nodes do not convert their disks. memory keeps nothing over a restart "
        "and is for laptop mode only.",
    )


class Resources(Part):
    """CPU and memory of a container, as in a pod."""

    requests: Annotated[dict[ShortText, Amount], Field(max_length=8)] = Field(
        default_factory=dict, description="What is reserved, such as cpu: 500m and memory: 1Gi."
    )
    limits: Annotated[dict[ShortText, Amount], Field(max_length=8)] = Field(
        default_factory=dict,
        description="What is allowed at most. A memory limit should hold "
        "config.limits.values_in_flight_max and memory_in_flight_max, and 512Mi more.",
    )


class TopologySpec(Part):
    """How nodes are spread, so that losing one zone or host loses as few shards as possible."""

    zones: Spread = Field(
        default="Preferred",
        description="Spread over zones (topology.kubernetes.io/zone). Preferred: as evenly as "
        "there is room. Required: a node that would make it uneven waits; after a zone was added, "
        "nodes whose volumes are tied to a full zone wait too. Ignored: zones play no part.",
    )
    hosts: Spread = Field(
        default="Preferred",
        description="Spread over Kubernetes nodes (kubernetes.io/hostname). Preferred: two nodes "
        "share a host only if there is no other. Required: never; needs at least dataShards + "
        "parityShards hosts, and one more for a lost one to be replaced. Ignored: hosts play no "
        "part.",
    )


class GatewaySpec(Part):
    """The load balancer in front of the nodes: no state, any number of pods."""

    replicas: int = Field(default=2, ge=0, le=100, description="Gateway pods. 0: none.")
    service_type: ServiceType = Field(
        default="ClusterIP", description="Type of the Service in front of the gateways."
    )
    service_annotations: Annotations = Field(
        default_factory=dict,
        description="Annotations of that Service, for example of a cloud's load balancer.",
    )
    resources: Resources = Field(
        default_factory=lambda: Resources(
            requests={"cpu": "100m", "memory": "128Mi"}, limits={"memory": "1Gi"}
        ),
        description="CPU and memory of each gateway.",
    )


class ServiceSpec(Part):
    """The client Service straight to the nodes, any of which takes any request."""

    type: ServiceType = Field(default="ClusterIP", description="Type of the Service.")
    annotations: Annotations = Field(
        default_factory=dict, description="Annotations, for example of a cloud's load balancer."
    )


class VolumeLossPolicy(Part):
    """When the volume of a node counts as lost for good, so that a fresh one replaces it."""

    mode: Literal["Automatic", "Manual"] = Field(
        default="Automatic",
        description="Automatic: a volume is given up once its Kubernetes node was gone for the "
        "delay, and never while the other nodes' shards would not do. Manual: only when "
        "`kubectl distkv repair` says so.",
    )
    delay: Seconds = Field(
        default=300.0,
        ge=0,
        le=604800,
        description="How long a Kubernetes node may be gone before the volume there is given up.",
    )


class UpdateStrategy(Part):
    """How changes reach the pods."""

    type: Literal["Rolling", "Manual"] = Field(
        default="Rolling",
        description="Rolling: one pod at a time, the leader last, each once all shards are where "
        "they belong. Manual: a pod gets the change when somebody deletes it.",
    )


class MonitoringSpec(Part):
    """Prometheus."""

    enabled: bool = Field(
        default=True,
        description="Make a ServiceMonitor if the Kubernetes cluster knows that kind (Prometheus "
        "operator); otherwise nothing.",
    )
    interval: Seconds = Field(default=30.0, ge=1, le=3600, description="Time between two scrapes.")
    labels: Labels = Field(
        default_factory=dict,
        description="Labels of the ServiceMonitor, for a Prometheus that selects by them.",
    )


class NetworkPolicySpec(Part):
    """Who may reach the pods."""

    enabled: bool = Field(
        default=True,
        description="Make network policies: only nodes, gateways and the operator reach the inner "
        "ports, and pods of this cluster reach nobody else.",
    )
    client_namespaces: Annotated[list[ObjectName], Field(max_length=64)] = Field(
        default_factory=list,
        description="Namespaces whose pods may reach the client ports (6379, 8080), beside this "
        "one. Name that of Prometheus too. Empty: everybody may.",
    )


class Toleration(Part):
    """A taint that pods tolerate, as in a pod."""

    key: Key | None = Field(default=None, description="Key of the taint. Unset: all keys.")
    operator: Literal["Equal", "Exists"] = Field(
        default="Equal", description="Exists: any value. Equal: the value must be the same."
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. Unset: all effects."
    )
    toleration_seconds: int | None = Field(
        default=None,
        ge=0,
        le=2**31 - 1,
        description="How long a NoExecute taint is tolerated. Unset: for ever.",
    )

    @model_validator(mode="after")
    def _sound(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError("operator Exists takes no value: leave it out, or take Equal")
        if self.operator == "Equal" and self.key is None:
            raise ValueError("operator Equal needs a key: name one, or take Exists")
        if self.toleration_seconds is not None and self.effect != "NoExecute":
            raise ValueError("tolerationSeconds goes with effect NoExecute only")
        return self


class PodOverrides(Part):
    """Further fields of the pods of nodes and gateways. None of them can break the store."""

    labels: Labels = Field(
        default_factory=dict,
        description="Further labels. Those of distkv.io and app.kubernetes.io are the operator's.",
    )
    annotations: Annotations = Field(
        default_factory=dict,
        description="Further annotations. Those of distkv.io are the operator's.",
    )
    node_selector: Labels = Field(
        default_factory=dict, description="Labels that a Kubernetes node must have."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(
        default_factory=list, description="Taints that the pods tolerate."
    )
    priority_class_name: ObjectName | None = Field(default=None, description="Priority class.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When the image is pulled. Unset: as Kubernetes does by its tag."
    )
    image_pull_secrets: Annotated[list[ObjectName], Field(max_length=8)] = Field(
        default_factory=list, description="Names of Secrets for pulling the image."
    )

    @field_validator("labels", "annotations")
    @classmethod
    def _not_reserved(cls, given: dict[str, str]) -> dict[str, str]:
        for key in given:
            if key.startswith(RESERVED_PREFIXES):
                raise ValueError(f"{key} is the operator's own: use another prefix")
        return given
