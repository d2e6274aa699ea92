"""The whole configuration, and how its limits relate.

Relations are checked here, once, so that no part of the store has to wonder whether two
limits fit together. A relation that does not hold names both fields and what to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from pydantic import Field

from distkv.config.sections import (
    AdminSection,
    ClusterSection,
    ConsensusSection,
    DispersalSection,
    GatewaySection,
    KeysSection,
    LimitsSection,
    ListenSection,
    LoggingSection,
    NodeSection,
    PeersSection,
    RepairSection,
    Section,
    StorageSection,
    TransportSection,
)


class TuningSections(Section):
    """What whoever runs a cluster may tune: the same for all its nodes."""

    consensus: ConsensusSection = Field(default_factory=lambda: ConsensusSection())
    transport: TransportSection = Field(default_factory=lambda: TransportSection())
    dispersal: DispersalSection = Field(default_factory=lambda: DispersalSection())
    limits: LimitsSection = Field(default_factory=lambda: LimitsSection())
    repair: RepairSection = Field(default_factory=lambda: RepairSection())
    logging: LoggingSection = Field(default_factory=lambda: LoggingSection())


class Config(TuningSections):
    """Everything a node or a gateway is started with. Immutable."""

    node: NodeSection = Field(default_factory=lambda: NodeSection())
    cluster: ClusterSection = Field(default_factory=lambda: ClusterSection())
    listen: ListenSection = Field(default_factory=lambda: ListenSection())
    peers: PeersSection = Field(default_factory=lambda: PeersSection())
    keys: KeysSection = Field(default_factory=lambda: KeysSection())
    admin: AdminSection = Field(default_factory=lambda: AdminSection())
    storage: StorageSection = Field(default_factory=lambda: StorageSection())
    gateway: GatewaySection = Field(default_factory=lambda: GatewaySection())

    @property
    def ordinal(self) -> int:
        """This node's seat; only of a configuration loaded for a node."""
        assert self.node.ordinal is not None, "not a node's configuration"
        return self.node.ordinal

    @property
    def cluster_id(self) -> bytes:
        """The cluster id, 16 bytes; only of a configuration loaded for a node."""
        assert self.cluster.id is not None, "not a node's configuration"
        return bytes.fromhex(self.cluster.id)

    @property
    def name(self) -> str:
        """Name for logs and metrics."""
        if self.node.name:
            return self.node.name
        return "gateway" if self.node.ordinal is None else f"node-{self.node.ordinal}"


class Relation(NamedTuple):
    """`holds(config)` or else: blame `field`, for the reason given (may use {c.section.field})."""

    field: str
    holds: Callable[[Config], bool]
    reason: str


GENERAL = (
    Relation(
        "consensus.election_min",
        lambda c: c.consensus.election_min >= 4 * c.consensus.heartbeat,
        "must be at least four times consensus.heartbeat ({c.consensus.heartbeat} s), or a late "
        "heartbeat unseats a healthy leader: raise this or lower consensus.heartbeat",
    ),
    Relation(
        "consensus.election_max",
        lambda c: c.consensus.election_max >= 1.25 * c.consensus.election_min,
        "must be at least 1.25 times consensus.election_min ({c.consensus.election_min} s), or "
        "candidates collide: raise this or lower consensus.election_min",
    ),
    Relation(
        "consensus.batch_bytes",
        lambda c: c.consensus.batch_bytes >= 2 * (c.limits.key_bytes_max + c.dispersal.inline_max),
        "must hold the largest key and inline value twice (limits.key_bytes_max "
        "{c.limits.key_bytes_max} + dispersal.inline_max {c.dispersal.inline_max} bytes): raise "
        "this or lower those",
    ),
    Relation(
        "consensus.window_bytes",
        lambda c: c.consensus.window_bytes >= c.consensus.batch_bytes,
        "must hold one entry of consensus.batch_bytes ({c.consensus.batch_bytes}): raise this",
    ),
    Relation(
        "transport.dead_after",
        lambda c: c.transport.dead_after > 2.5 * c.transport.ping_interval,
        "must be above 2.5 times transport.ping_interval ({c.transport.ping_interval} s), or "
        "a lost datagram takes a peer down: raise this or lower transport.ping_interval",
    ),
    Relation(
        "dispersal.inline_max",
        lambda c: c.dispersal.inline_max <= c.limits.value_bytes_max,
        "must be at most limits.value_bytes_max ({c.limits.value_bytes_max}): lower this",
    ),
    Relation(
        "limits.values_in_flight_max",
        lambda c: (
            c.limits.values_in_flight_max >= max(c.limits.value_bytes_max, 16 * c.dispersal.stripe)
        ),
        "must hold one value of limits.value_bytes_max ({c.limits.value_bytes_max} bytes) and "
        "sixteen stripes of dispersal.stripe ({c.dispersal.stripe} bytes): raise this or lower "
        "those",
    ),
    Relation(
        "limits.command_bytes_max",
        lambda c: c.limits.command_bytes_max <= c.limits.memory_in_flight_max,
        "must be at most limits.memory_in_flight_max ({c.limits.memory_in_flight_max} bytes), "
        "which it is a part of: lower this or raise that",
    ),
    Relation(
        "limits.request_seconds",
        lambda c: 2 * c.consensus.election_max <= c.limits.request_seconds,
        "must be at least twice consensus.election_max ({c.consensus.election_max} s), or no "
        "request outlives a change of leader: raise this",
    ),
    Relation(
        "limits.request_seconds_max",
        lambda c: c.limits.request_seconds <= c.limits.request_seconds_max,
        "must be at least limits.request_seconds ({c.limits.request_seconds} s): raise this",
    ),
    Relation(
        "repair.grace",
        lambda c: c.repair.grace >= c.limits.request_seconds,
        "must be at least limits.request_seconds ({c.limits.request_seconds} s), or shards go "
        "while a read still needs them: raise this",
    ),
)

OF_A_NODE = (
    Relation(
        "node.ordinal",
        lambda c: c.node.ordinal is not None,
        "is not set: every node needs its seat, 0 to n - 1",
    ),
    Relation(
        "cluster.id",
        lambda c: c.cluster.id is not None,
        "is not set: give the 32 hexadecimal digits that all nodes of this cluster share",
    ),
    Relation(
        "peers.addresses",
        lambda c: bool(c.peers.addresses),
        "is not set: list host:port (UDP) of every node by ordinal, this one included",
    ),
    Relation(
        "node.ordinal",
        lambda c: (
            c.node.ordinal is None
            or not c.peers.addresses
            or c.node.ordinal < len(c.peers.addresses)
        ),
        "has no address: peers.addresses lists {n} nodes, so ordinals end at {last}",
    ),
    Relation(
        "admin.token_file",
        lambda c: c.admin.token_file is not None,
        "is not set: without a token nobody could found or ask this node; name a file with one",
    ),
    Relation(
        "keys.files",
        lambda c: bool(c.keys.files) != c.keys.insecure,
        "and keys.insecure: exactly one must be set. Name a key file, or set "
        "keys.insecure = true to run without encryption between nodes",
    ),
)

OF_A_GATEWAY = (
    Relation(
        "gateway.nodes",
        lambda c: bool(c.gateway.nodes),
        "is not set: list host:port (TCP, listen.link) of the nodes",
    ),
)

ROLES = {"node": OF_A_NODE, "gateway": OF_A_GATEWAY, "any": ()}


def broken_relations(config: Config, role: str) -> Iterator[tuple[str, str]]:
    """(field, reason) of every relation that does not hold for a process of that role."""
    for relation in (*GENERAL, *ROLES[role]):
        if not relation.holds(config):
            count = len(config.peers.addresses)
            yield relation.field, relation.reason.format(c=config, n=count, last=count - 1)
