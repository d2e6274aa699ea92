"""The status of a `DistKVCluster`: written by the operator, all of it observed.

Incarnations are text: they have 62 bits, and many readers of JSON keep only 53 of a number.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from distkv.manifest.parts import LongText, Part, ShortText

Count = Annotated[int, Field(ge=0, le=2**53 - 1)]
Ordinal = Annotated[int, Field(ge=0, le=63)]


class Condition(Part):
    """One aspect of the cluster, as Kubernetes' conventions have it."""

    type: Annotated[str, Field(min_length=1, max_length=64)] = Field(
        description="Which aspect: Ready, Available, QuorumHealthy, ShardsHealthy, Progressing, "
        "StorageReady, ReconcileSucceeded, and others."
    )
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, Field(min_length=1, max_length=128)] = Field(
        description="Why, in one word, for programs."
    )
    message: Annotated[str, Field(max_length=4096)] = Field(
        default="", description="Why, in a sentence, and what to do if anything must be done."
    )
    last_transition_time: Annotated[str, Field(max_length=64)] = Field(
        description="When the status last became another one.",
        json_schema_extra={"format": "date-time"},
    )
    observed_generation: Count = Field(
        default=0, description="Which generation of the specification it speaks of."
    )


class LayoutMember(Part):
    """Who holds a seat."""

    ordinal: Ordinal = Field(description="Seat, 0 to n - 1.")
    incarnation: ShortText = Field(description="Which data directory: it votes and holds shards.")
    zone: ShortText = Field(default="", description="Zone it was seen in; empty: unknown.")
    node: ShortText = Field(default="", description="Kubernetes node it was seen on.")


class Layout(Part):
    """The layout that is in force, as the nodes' log has it."""

    epoch: Count = Field(default=0, description="Number of the layout; every record names one.")
    data_shards: Count = Field(default=0, description="k in force.")
    parity_shards: Count = Field(default=0, description="m in force.")
    members: Annotated[list[LayoutMember], Field(max_length=64)] = Field(
        default_factory=list, description="Who holds which seat."
    )


class MemberStatus(Part):
    """One node as it was last seen."""

    ordinal: Ordinal = Field(description="Seat, and number of the pod.")
    pod: ShortText = Field(default="", description="Name of its pod.")
    role: ShortText = Field(
        default="", description="leader, follower, candidate or learner; empty: does not answer."
    )
    state: ShortText = Field(
        default="", description="In the node's own words: serving, catching up, no quorum, ..."
    )
    detail: LongText = Field(default="", description="The same in a sentence; empty: all is well.")
    ready: bool = Field(default=False, description="Whether it takes requests of clients.")
    node: ShortText = Field(default="", description="Kubernetes node of the pod.")
    zone: ShortText = Field(default="", description="Zone of that node.")
    incarnation: ShortText = Field(default="", description="Which data directory it has.")
    claim_uid: ShortText = Field(
        default="", description="UID of the claim that this directory is on."
    )
    image: LongText = Field(default="", description="Image that its pod runs.")
    version: ShortText = Field(default="", description="Version that it reports.")
    shards_held: Count = Field(default=0, description="Shards that it holds.")
    shards_missing: Count | None = Field(
        default=None,
        description="Shards that it should hold and does not: repair brings them. "
        "Unset: it has yet to look.",
    )
    shards_corrupt: Count = Field(default=0, description="Shards that failed their checksum.")
    bytes_held: Count = Field(default=0, description="Bytes of its shards.")
    bytes_missing: Count = Field(default=0, description="Bytes that repair has still to bring.")
    seconds_left: Count | None = Field(
        default=None, description="Estimate of how long repair will take. Unset: unknown."
    )
    last_seen: Annotated[str, Field(max_length=64)] | None = Field(
        default=None,
        description="When it last answered, if it does not answer now.",
        json_schema_extra={"format": "date-time"},
    )


class Shards(Part):
    """Of all nodes together."""

    held: Count = Field(default=0, description="Shards held.")
    missing: Count | None = Field(
        default=None,
        description="Shards missing: 0 when all is repaired. Unset: some node has yet to look.",
    )
    corrupt: Count = Field(default=0, description="Shards that failed their checksum.")
    bytes: Count = Field(default=0, description="Bytes of the shards held.")


class Failures(Part):
    """How many nodes may be lost."""

    tolerated: Count = Field(default=0, description="f: of a healthy cluster of this layout.")
    survivable: Count = Field(
        default=0, description="Of f, what is left now: how many more may go at this moment."
    )


class GatewayStatus(Part):
    """The gateways."""

    replicas: Count = Field(default=0, description="Gateway pods there are.")
    ready: Count = Field(default=0, description="Of them, those that take requests.")


class Endpoints(Part):
    """Where clients of this Kubernetes cluster connect."""

    redis: ShortText = Field(default="", description="host:port of the Redis protocol.")
    http: ShortText = Field(default="", description="URL of the HTTP interface.")


class ClusterStatus(Part):
    """What the operator has seen. Nothing in it is decided by hand."""

    observed_generation: Count = Field(
        default=0, description="Generation of the specification that was last acted on."
    )
    conditions: Annotated[list[Condition], Field(max_length=32)] = Field(
        default_factory=list, description="Aspects of the cluster's health."
    )
    formed: bool = Field(
        default=False,
        description="Whether the cluster was founded. It is never founded again, whatever becomes "
        "of its volumes.",
    )
    cluster_id: ShortText = Field(default="", description="Cluster id, checked on every message.")
    owner_id: ShortText = Field(
        default="", description="Under which name this operator commands the nodes."
    )
    image: LongText = Field(default="", description="Image of nodes and gateways in use.")
    version: ShortText = Field(
        default="", description="Version that the nodes report; the lowest while they differ."
    )
    layout: Layout | None = Field(default=None)
    layout_summary: ShortText = Field(default="", description='k and m in force, such as "3+2".')
    nodes_summary: ShortText = Field(
        default="", description='Nodes ready and wanted, such as "5/5".'
    )
    replicas: Count = Field(default=0, description="Pods of nodes there are.")
    ready_replicas: Count = Field(default=0, description="Of them, those that take requests.")
    selector: LongText = Field(default="", description="Labels that select the nodes' pods.")
    leader: Ordinal | None = Field(default=None, description="Seat of the leader. Unset: none.")
    members: Annotated[list[MemberStatus], Field(max_length=64)] = Field(
        default_factory=list, description="Every node as it was last seen."
    )
    shards: Shards | None = Field(default=None)
    failures: Failures | None = Field(default=None)
    keys: Count | None = Field(default=None, description="Keys in the store. Unset: unknown.")
    gateway: GatewayStatus | None = Field(default=None)
    endpoints: Endpoints | None = Field(default=None)
