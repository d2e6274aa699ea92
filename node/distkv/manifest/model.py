"""The `DistKVCluster` resource, group distkv.io, version v1alpha1.

Field names are camelCase in the manifest, as Kubernetes has it; node configuration below
`config` keeps the names of the configuration file, so that one description serves both.
Descriptions are what `kubectl explain` shows.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from distkv.config.schema import TuningSections
from distkv.config.sections import (
    LARGEST_NODE_COUNT,
    ConsensusSection,
    DispersalSection,
    LimitsSection,
    LoggingSection,
    RepairSection,
    Section,
    TransportSection,
)
from distkv.config.units import Seconds, parse_size

API_VERSION = "distkv.io/v1alpha1"
KIND = "DistKVCluster"
NAME_LENGTH_MAX = 40
"""Pods, Services and labels derived from the name must stay within 63 characters."""


class Part(BaseModel):
    """Base of the manifest's objects: camelCase, immutable, unknown fields refused."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )


def _quantity(raw: Any) -> str:
    """A Kubernetes quantity of bytes, kept as written after a check."""
    try:
        if parse_size(raw) <= 0:
            raise ValueError
    except ValueError:
        raise ValueError('give a size such as "10Gi" or "500Mi"') from None
    return str(raw)


Quantity = Annotated[
    str, BeforeValidator(_quantity), WithJsonSchema({"x-kubernetes-int-or-string": True})
]


class StorageSpec(Part):
    """The volume of each node."""

    size: Quantity = Field(default="10Gi", description="Size of each volume; it may only grow.")
    class_name: str | None = Field(
        default=None, description="Storage class; unset: the default class. Cannot be changed."
    )
    engine: Literal["files", "rocksdb", "memory"] | None = Field(
        default=None, description="Storage engine; unset: the node's default. Cannot be changed."
    )


class Resources(Part):
    """CPU and memory of a container, as in a pod."""

    requests: dict[str, str | int] = Field(default_factory=dict, description="What is reserved.")
    limits: dict[str, str | int] = Field(default_factory=dict, description="What is allowed.")


class TopologySpec(Part):
    """How nodes are spread, so that losing one zone or host loses as few shards as possible."""

    zones: Literal["Required", "Preferred", "Ignored"] = Field(
        default="Preferred", description="Spread over zones (topology.kubernetes.io/zone)."
    )
    hosts: Literal["Required", "Preferred", "Ignored"] = Field(
        default="Required", description="Spread over hosts (kubernetes.io/hostname)."
    )


ServiceType = Literal["ClusterIP", "NodePort", "LoadBalancer"]


class GatewaySpec(Part):
    """The load balancer in front of the nodes."""

    replicas: int = Field(default=2, ge=0, le=100, description="Gateway pods; 0: none.")
    service_type: ServiceType = Field(
        default="ClusterIP", description="Type of the Service in front of the gateways."
    )
    resources: Resources = Field(default_factory=Resources, description="Of each gateway pod.")


class ServiceSpec(Part):
    """The client Service in front of the nodes themselves."""

    type: ServiceType = Field(default="ClusterIP", description="Type of the Service.")
    annotations: dict[str, str] = Field(
        default_factory=dict, description="Annotations, for example of a cloud's load balancer."
    )


class VolumeLossPolicy(Part):
    """When the volume of a member counts as lost, so that a fresh one replaces it."""

    mode: Literal["Automatic", "Manual"] = Field(
        default="Automatic",
        description="Automatic: replaced after the delay. Manual: only on an annotation.",
    )
    delay: Seconds = Field(
        default=300.0,
        ge=0,
        le=604800,
        description="Seconds a node may be gone before its volume is given up.",
    )


class UpdateStrategy(Part):
    """How changes reach the pods."""

    type: Literal["Rolling", "Manual"] = Field(
        default="Rolling",
        description="Rolling: one pod at a time, leader last. Manual: as pods are deleted.",
    )


class MonitoringSpec(Part):
    """Prometheus."""

    enabled: bool = Field(
        default=True, description="Make a ServiceMonitor where the cluster knows that kind."
    )
    interval: Seconds = Field(default=30.0, ge=1, le=3600, description="Seconds between scrapes.")
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels of the ServiceMonitor, for its selector."
    )


class NetworkPolicySpec(Part):
    """Who may reach the pods."""

    enabled: bool = Field(
        default=True, description="Only nodes, gateways and the operator reach the inner ports."
    )


class PodOverrides(Part):
    """Further fields of the pods; none of them can break the store."""

    labels: dict[str, str] = Field(default_factory=dict, description="Further labels.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Further annotations.")
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Kubernetes nodes must have these labels."
    )
    tolerations: list[dict[str, str | int]] = Field(
        default_factory=list, description="Taints the pods tolerate, as in a pod."
    )
    priority_class_name: str | None = Field(default=None, description="Priority class.")
    image_pull_secrets: list[str] = Field(
        default_factory=list, description="Secrets for pulling the image."
    )


class NodeConfig(Section):
    """Node configuration: sections and fields are those of the configuration file."""

    consensus: ConsensusSection = Field(default_factory=ConsensusSection)
    transport: TransportSection = Field(default_factory=TransportSection)
    dispersal: DispersalSection = Field(default_factory=DispersalSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    logging: LoggingSection = Field(default_factory=LoggingSection)


class ClusterSpec(Part):
    """What the cluster should be."""

    data_shards: int = Field(
        default=3, ge=1, le=LARGEST_NODE_COUNT, description="k: shards that rebuild a value."
    )
    parity_shards: int = Field(
        default=2,
        ge=0,
        lt=LARGEST_NODE_COUNT,
        description="m: further shards. Of the n = k + m nodes any min(m, (n-1)/2) may be down.",
    )
    image: str | None = Field(
        default=None, description="Image of nodes and gateways; unset: the operator's own release."
    )
    storage: StorageSpec = Field(default_factory=StorageSpec)
    resources: Resources = Field(default_factory=Resources, description="Of each node's pod.")
    topology: TopologySpec = Field(default_factory=TopologySpec)
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    service: ServiceSpec = Field(default_factory=ServiceSpec)
    config: NodeConfig = Field(default_factory=NodeConfig)
    repair: RepairSection = Field(default_factory=RepairSection)
    volume_loss_policy: VolumeLossPolicy = Field(default_factory=VolumeLossPolicy)
    update_strategy: UpdateStrategy = Field(default_factory=UpdateStrategy)
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain", description="What becomes of the volumes when the resource is deleted."
    )
    paused: bool = Field(default=False, description="The operator changes nothing while set.")
    monitoring: MonitoringSpec = Field(default_factory=MonitoringSpec)
    network_policy: NetworkPolicySpec = Field(default_factory=NetworkPolicySpec)
    pod_template: PodOverrides = Field(default_factory=PodOverrides)

    @model_validator(mode="after")
    def _node_count(self) -> ClusterSpec:
        if self.nodes > LARGEST_NODE_COUNT:
            raise ValueError(
                f"dataShards + parityShards must be at most {LARGEST_NODE_COUNT}, "
                f"not {self.nodes}: lower one of them"
            )
        return self

    @property
    def nodes(self) -> int:
        """n."""
        return self.data_shards + self.parity_shards

    def tuning(self) -> TuningSections:
        """The sections of the configuration file that are the same for all nodes."""
        return TuningSections(
            consensus=self.config.consensus,
            transport=self.config.transport,
            dispersal=self.config.dispersal,
            limits=self.config.limits,
            logging=self.config.logging,
            repair=self.repair,
        )


class Metadata(BaseModel):
    """Only the name matters here; Kubernetes adds more."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(
        pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$",
        max_length=NAME_LENGTH_MAX,
        description="Name of the cluster.",
    )


class Cluster(BaseModel):
    """The whole resource. `status` is the operator's and is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    apiVersion: Literal["distkv.io/v1alpha1"]  # noqa: N815 (Kubernetes' name)
    kind: Literal["DistKVCluster"]
    metadata: Metadata
    spec: ClusterSpec = Field(default_factory=ClusterSpec)
