"""The sections of the configuration: every field with its unit, default, bounds and meaning.

`Field(description=...)` is what `distkv config explain` prints, so it is written for the
person who sets the field. Limits live here and nowhere else; `schema` asserts how they relate.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from distkv.config.units import (
    GIB,
    KIB,
    MIB,
    Address,
    AddressField,
    AddressList,
    Seconds,
    Size,
    TextList,
)

LARGEST_NODE_COUNT = 12
"""The erasure code is tested exhaustively up to this many nodes."""


class Section(BaseModel):
    """Base: immutable, and a field nobody knows is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NodeSection(Section):
    """Which seat of the cluster this process takes."""

    ordinal: int | None = Field(
        default=None,
        ge=0,
        lt=LARGEST_NODE_COUNT,
        description="Seat of this node, 0 to n - 1. The data directory is bound to it.",
    )
    name: str = Field(default="", description="Name in logs and metrics; empty: node-<ordinal>.")


class ClusterSection(Section):
    """Which cluster it belongs to."""

    id: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{32}$",
        description="Cluster id, 32 hexadecimal digits. Checked on every message and at start.",
    )


class ListenSection(Section):
    """Where this process listens."""

    resp: AddressField = Field(default=Address("0.0.0.0", 6379), description="Redis protocol, TCP.")
    http: AddressField = Field(
        default=Address("0.0.0.0", 8080), description="HTTP for clients, /metrics and probes, TCP."
    )
    admin: AddressField = Field(
        default=Address("127.0.0.1", 8081), description="Owner's commands and status, TCP."
    )
    peers: AddressField = Field(default=Address("0.0.0.0", 7400), description="Other nodes, UDP.")
    link: AddressField = Field(default=Address("0.0.0.0", 7401), description="Gateways, TCP.")


class PeersSection(Section):
    """Where the nodes are."""

    addresses: AddressList = Field(
        default=(),
        max_length=LARGEST_NODE_COUNT,
        description="host:port (UDP) of every node by ordinal, this one included.",
    )


class KeysSection(Section):
    """Encryption between nodes."""

    files: TextList = Field(
        default=(),
        max_length=2,
        description="Files with a cluster key (64 hexadecimal digits). The first seals; both "
        "open, so that a key can be changed without stopping.",
    )
    insecure: bool = Field(
        default=False, description="Run without encryption and authentication between nodes."
    )


class AdminSection(Section):
    """Who may command this node."""

    token_file: str | None = Field(
        default=None,
        description="File with the token that the X-DistKV-Token header must carry.",
    )


class StorageSection(Section):
    """Where and how data rests."""

    engine: Literal["files", "rocksdb", "memory"] = Field(
        default="files",
        description="Storage engine. memory keeps nothing over a restart (tests).",
    )
    directory: str = Field(
        default="./distkv-data", description="Data directory, of this node alone."
    )
    reserve: Size = Field(
        default=64 * MIB,
        ge=0,
        description="Free bytes below which the node only reads and deletes, so that it can "
        "recover; the engine's own reserve (files 4 MiB, rocksdb 48 MiB) comes on top.",
    )


class ConsensusSection(Section):
    """Timing of leaders and of the log."""

    heartbeat: Seconds = Field(
        default=0.075, ge=0.025, le=10, description="Seconds between heartbeats of the leader."
    )
    election_min: Seconds = Field(
        default=0.3,
        ge=0.05,
        le=60,
        description="Least seconds without a leader before a node stands for election.",
    )
    election_max: Seconds = Field(
        default=0.6,
        ge=0.05,
        le=60,
        description="Most seconds before it stands; each node draws anew between the two.",
    )
    batch_commands: int = Field(
        default=4096, ge=1, le=65536, description="Most commands in one log entry."
    )
    batch_bytes: Size = Field(
        default=MIB, ge=16 * KIB, le=4 * MIB, description="Most bytes of one log entry."
    )
    window_slots: int = Field(
        default=512, ge=1, le=2048, description="Most log entries proposed and not yet chosen."
    )
    window_bytes: Size = Field(
        default=4 * MIB, ge=64 * KIB, le=4 * MIB, description="Most bytes of such entries."
    )
    retain_slots: int = Field(
        default=20_000,
        ge=100,
        description="Applied log entries kept for peers that lag; a peer further behind gets a "
        "snapshot of the metadata.",
    )
    retain_bytes: Size = Field(
        default=32 * MIB, ge=MIB, description="The same in bytes; whichever is reached first."
    )


class TransportSection(Section):
    """Reliable UDP between nodes."""

    ping_interval: Seconds = Field(
        default=0.2,
        ge=0.01,
        le=60,
        description="Seconds of silence before a small datagram is sent.",
    )
    dead_after: Seconds = Field(
        default=0.75,
        ge=0.05,
        le=600,
        description="Seconds of silence after which a peer counts as down.",
    )
    datagram_max: Size = Field(
        default=60 * KIB,
        ge=1200,
        le=60 * KIB,
        description="Largest datagram (bytes of payload) that is tried on a path.",
    )
    control_queue: Size = Field(
        default=16 * MIB,
        ge=9 * MIB,
        le=GIB,
        description="Most bytes of small messages held for one peer.",
    )
    bulk_queue: Size = Field(
        default=8 * MIB, ge=3 * MIB, le=GIB, description="Most bytes of shards held for one peer."
    )


class DispersalSection(Section):
    """Large values on their way to the shards and back."""

    inline_max: Size = Field(
        default=4 * KIB,
        ge=512,
        le=64 * KIB,
        description="Largest value (bytes) that is replicated whole in the log. Taken over by "
        "the cluster when it is founded.",
    )
    stripe: Size = Field(
        default=256 * KIB,
        ge=4 * KIB,
        le=MIB,
        description="Bytes of a value that are coded together.",
    )
    stream_above: Size = Field(
        default=MIB,
        ge=64 * KIB,
        description="Bytes above which a value is read stripe by stripe, as the client takes it.",
    )


class LimitsSection(Section):
    """What a client may ask for; going past one is an error that names it."""

    key_bytes_max: Size = Field(
        default=4 * KIB, ge=1, le=32 * KIB, description="Largest key, bytes."
    )
    value_bytes_max: Size = Field(
        default=256 * MIB, ge=1, le=512 * MIB, description="Largest value, bytes."
    )
    connections_max: int = Field(
        default=1024, ge=1, le=100_000, description="Most client connections of each door."
    )
    pipeline_max: int = Field(
        default=512,
        ge=1,
        le=1_000_000,
        description="Most commands of a connection in the works; more wait unread.",
    )
    pending_max: int = Field(
        default=100_000,
        ge=16,
        le=10_000_000,
        description="Most requests in the works in a process.",
    )
    memory_in_flight_max: Size = Field(
        default=64 * MIB,
        ge=32 * MIB,
        description="Most bytes of requests and answers held by the doors; above it no client is "
        "read from.",
    )
    values_in_flight_max: Size = Field(
        default=512 * MIB,
        ge=8 * MIB,
        description="Most bytes of values being dispersed or gathered at once in a process.",
    )
    command_bytes_max: Size = Field(
        default=16 * MIB,
        ge=64 * KIB,
        description="Most bytes of one command whose values cannot leave as they arrive (MSET).",
    )
    keys_listed_max: int = Field(
        default=100_000, ge=1, le=10_000_000, description="Most keys in one answer of KEYS."
    )
    scan_count_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Most keys looked at by one SCAN or listing.",
    )
    request_seconds: Seconds = Field(
        default=10.0,
        ge=0.05,
        le=3600,
        description="Deadline of a request that names none. A write may take 8 seconds more for "
        "each MiB once all has arrived; a large value that is read, so long for each stripe.",
    )
    request_seconds_max: Seconds = Field(
        default=300.0, ge=0.05, le=3600, description="Longest deadline a client may ask for."
    )
    stall_seconds: Seconds = Field(
        default=60.0,
        ge=0.1,
        le=3600,
        description="Seconds without a byte in the middle of a transfer that end a connection, "
        "or an upload of which the store takes no more. While memory_in_flight_max is used up, a "
        "connection has half of request_seconds if that is less.",
    )


class RepairSection(Section):
    """The background worker that brings shards where they belong."""

    rate: Size = Field(
        default=32 * MIB,
        ge=64 * KIB,
        description="Most bytes per second that repair, re-striping and scrubbing read and write "
        "on a node. It slows down by itself, to a 32nd at most, while clients wait longer.",
    )
    scrub: Seconds = Field(
        default=7 * 86400.0,
        ge=1,
        le=366 * 86400,
        description="Seconds within which a node reads every row on its disk again and verifies "
        "its checksum; what has rotted is repaired.",
    )
    grace: Seconds = Field(
        default=30.0,
        ge=0,
        le=86400,
        description="Seconds a replaced value's shards stay for readers still under way.",
    )
    grace_bytes: Size = Field(
        default=256 * MIB, ge=0, description="Most bytes kept so; the oldest go first."
    )


class LoggingSection(Section):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is written."
    )
    format: Literal["text", "json"] = Field(
        default="text", description="One line each, text or JSON."
    )
    resources: Seconds = Field(
        default=60.0, ge=1, le=86400, description="Seconds between two lines of resource use."
    )


class GatewaySection(Section):
    """A gateway's view of the nodes."""

    nodes: AddressList = Field(
        default=(),
        max_length=64,
        description="host:port (TCP, listen.link) of the nodes to spread requests over.",
    )
    probe: Seconds = Field(
        default=0.5, ge=0.01, le=60, description="Seconds between two looks at a node's health."
    )
    token_file: str | None = Field(
        default=None,
        description="File with the token gateways show to nodes; unset on both: none is asked for.",
    )
    in_flight: int = Field(
        default=4096, ge=1, le=1_000_000, description="Most requests under way at one node."
    )
