"""The `DistKVCluster` resource, group distkv.io, version v1alpha1.

Field names are camelCase in the manifest, as Kubernetes has it; node configuration below
`config` keeps the names of the configuration file, so that one description serves both.
Descriptions are what `kubectl explain` shows.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from distkv.config.schema import Config, TuningSections, broken_relations
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
from distkv.manifest.parts import (
    GatewaySpec,
    MonitoringSpec,
    NetworkPolicySpec,
    Part,
    PodOverrides,
    Resources,
    ServiceSpec,
    StorageSpec,
    TopologySpec,
    UpdateStrategy,
    VolumeLossPolicy,
)

API_VERSION = "distkv.io/v1alpha1"
KIND = "DistKVCluster"
NAME_LENGTH_MAX = 40
"""Pods, Services and labels derived from the name must stay within 63 characters."""
RESERVED_SUFFIXES = ("-gateway", "-peers")
"""A cluster of such a name would claim a Service of another cluster."""


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
        default=3,
        ge=1,
        le=LARGEST_NODE_COUNT,
        description="k: how many shards rebuild a value. A write costs network and disks (k + m) "
        "/ k of its size. 1: every node has a whole copy.",
    )
    parity_shards: int = Field(
        default=2,
        ge=0,
        lt=LARGEST_NODE_COUNT,
        description="m: how many further shards each value has. The cluster has n = k + m nodes, "
        "and any min(m, (n-1)/2) of them may be down or lose their disks at once.",
    )
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None,
        description="Image of nodes and gateways. Unset: that of the operator's own release at "
        "the time the cluster is made; status.image shows it, and it stays until this is set.",
    )
    storage: StorageSpec = Field(default_factory=StorageSpec)
    resources: Resources = Field(
        default_factory=lambda: Resources(
            requests={"cpu": "100m", "memory": "512Mi"}, limits={"memory": "2Gi"}
        ),
        description="CPU and memory of each node.",
    )
    topology: TopologySpec = Field(default_factory=TopologySpec)
    gateway: GatewaySpec = Field(default_factory=GatewaySpec)
    service: ServiceSpec = Field(default_factory=ServiceSpec)
    config: NodeConfig = Field(default_factory=NodeConfig)
    repair: RepairSection = Field(default_factory=RepairSection)
    volume_loss_policy: VolumeLossPolicy = Field(default_factory=VolumeLossPolicy)
    update_strategy: UpdateStrategy = Field(default_factory=UpdateStrategy)
    deletion_policy: Literal["Retain", "Delete"] = Field(
        default="Retain",
        description="What becomes of the volumes when this resource is deleted. Retain: a resource "
        "of the same name takes them over again.",
    )
    paused: bool = Field(
        default=False,
        description="While true the operator changes nothing; the store goes on. The annotation "
        "distkv.io/paused does the same.",
    )
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

    @model_validator(mode="after")
    def _limits_fit_together(self) -> ClusterSpec:
        tuning = {name: getattr(self.tuning(), name) for name in TuningSections.model_fields}
        faults = [
            f"{'' if field.startswith('repair.') else 'config.'}{field} {reason}"
            for field, reason in broken_relations(Config(**tuning), "any")
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def nodes(self) -> int:
        """n."""
        return self.data_shards + self.parity_shards

    def tuning(self) -> TuningSections:
        """The sections of the configuration file that are the same for all nodes."""
        given = {
            name: getattr(self.config, name)
            for name in NodeConfig.model_fields
            if name in self.config.model_fields_set
        }
        if "repair" in self.model_fields_set:
            given["repair"] = self.repair
        return TuningSections(**given)


class Metadata(BaseModel):
    """Only the name matters here; Kubernetes adds more."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field(
        pattern="^[a-z]([-a-z0-9]*[a-z0-9])?$",
        max_length=NAME_LENGTH_MAX,
        description="Name of the cluster.",
    )

    @field_validator("name")
    @classmethod
    def _not_reserved(cls, name: str) -> str:
        if name.endswith(RESERVED_SUFFIXES):
            raise ValueError(
                f"must not end in {' or '.join(RESERVED_SUFFIXES)}: another cluster's Service "
                "could have that name"
            )
        return name


class Cluster(BaseModel):
    """The whole resource. `status` is the operator's and is not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    apiVersion: Literal["distkv.io/v1alpha1"]  # noqa: N815 (Kubernetes' name)
    kind: Literal["DistKVCluster"]
    metadata: Metadata
    spec: ClusterSpec = Field(default_factory=ClusterSpec)
