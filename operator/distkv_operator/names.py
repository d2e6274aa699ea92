"""Names of everything the operator makes: API group, children, labels, annotations, ports.

They are part of the interface: changing one orphans what an earlier release made.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from distkv.manifest import API_VERSION as API_VERSION
from distkv.manifest import KIND as KIND

GROUP: Final = "distkv.io"
VERSION: Final = API_VERSION.partition("/")[2]
PLURAL: Final = "distkvclusters"
SINGULAR: Final = "distkvcluster"
SHORT_NAME: Final = "dkv"
CRD: Final = f"{PLURAL}.{GROUP}"
FIELD_MANAGER: Final = "distkv-operator"
"""Of server-side apply, for everything the operator writes but the status."""


# -- ports ------------------------------------------------------------------------------------

RESP_PORT: Final = 6379
HTTP_PORT: Final = 8080
"""Clients, /metrics, /livez and /readyz."""
ADMIN_PORT: Final = 8081
PEERS_PORT: Final = 7400
"""UDP, between nodes."""
LINK_PORT: Final = 7401
"""TCP, from gateways to nodes."""
DNS_PORT: Final = 53

ADMIN_TOKEN_HEADER: Final = "X-DistKV-Token"
"""Not `Authorization`: the API server's proxy takes that one off."""

# -- labels -----------------------------------------------------------------------------------

NAME_LABEL: Final = "app.kubernetes.io/name"
INSTANCE_LABEL: Final = "app.kubernetes.io/instance"
COMPONENT_LABEL: Final = "app.kubernetes.io/component"
MANAGED_BY_LABEL: Final = "app.kubernetes.io/managed-by"
CLUSTER_LABEL: Final = f"{GROUP}/cluster"
SCRAPE_LABEL: Final = f"{GROUP}/scrape"
"""On the Services whose endpoints Prometheus reads, so that no pod is read twice."""
NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
POD_INDEX_LABEL: Final = "apps.kubernetes.io/pod-index"
HOST_KEY: Final = "kubernetes.io/hostname"
ZONE_KEY: Final = "topology.kubernetes.io/zone"

APPLICATION: Final = "distkv"
MANAGER: Final = "distkv-operator"
NODE: Final = "node"
GATEWAY: Final = "gateway"
OPERATOR: Final = "operator"

OPERATOR_LABELS: Final = {NAME_LABEL: MANAGER, COMPONENT_LABEL: OPERATOR}
"""Of the operator's own pods, in whichever namespace they run."""

# -- annotations ------------------------------------------------------------------------------

FINGERPRINT_ANNOTATION: Final = f"{GROUP}/fingerprint"
"""On a node's pod: what it was started with. Another one than `builders.fingerprint` gives now
means that the pod must be replaced; another StatefulSet revision alone does not."""
CONFIG_ANNOTATION: Final = f"{GROUP}/config"
"""On a gateway's pod: checksum of its configuration file."""
APPLIED_ANNOTATION: Final = f"{GROUP}/applied"
"""On every child: checksum of the intent that was applied last."""
PAUSED_ANNOTATION: Final = f"{GROUP}/paused"
"""On a DistKVCluster: "true" makes the operator change nothing, like `spec.paused`."""
REPLACE_ANNOTATION: Final = f"{GROUP}/replace"
"""On a DistKVCluster: members whose volumes are lost for good, see `replacements`."""
CLUSTER_ID_ANNOTATION: Final = f"{GROUP}/cluster-id"
FORMED_ANNOTATION: Final = f"{GROUP}/formed"
INCARNATION_ANNOTATION: Final = f"{GROUP}/incarnation"
"""The three on a claim: which cluster its data belong to, "true" once that was formed, and which
member lives there."""

CLAIM_TEMPLATE: Final = "data"


class Names(NamedTuple):
    """Names of a cluster's children. `Names("store").pod(3)` is "store-3"."""

    cluster: str

    @property
    def stateful_set(self) -> str:
        """Of the nodes."""
        return self.cluster

    def pod(self, ordinal: int) -> str:
        """The pod of a node."""
        return f"{self.cluster}-{ordinal}"

    def claim(self, ordinal: int) -> str:
        """The volume claim of a node."""
        return f"{CLAIM_TEMPLATE}-{self.cluster}-{ordinal}"

    @property
    def peers_service(self) -> str:
        """Headless: a DNS name for each node, ready or not."""
        return f"{self.cluster}-peers"

    def peer_host(self, ordinal: int) -> str:
        """DNS name of a node within its namespace: the first search domain completes it, in
        one query and whatever the cluster's domain is."""
        return f"{self.pod(ordinal)}.{self.peers_service}"

    @property
    def service(self) -> str:
        """For clients, straight to the nodes."""
        return self.cluster

    @property
    def gateway(self) -> str:
        """The gateways' Deployment, Service, disruption budget and network policy."""
        return f"{self.cluster}-gateway"

    @property
    def config(self) -> str:
        """ConfigMap with the configuration files."""
        return f"{self.cluster}-config"

    @property
    def cluster_key(self) -> str:
        """Secret of the messages between nodes; only nodes have it."""
        return f"{self.cluster}-cluster-key"

    @property
    def admin_token(self) -> str:
        """Secret that nodes and operator share."""
        return f"{self.cluster}-admin-token"

    @property
    def link_token(self) -> str:
        """Secret that nodes and gateways share."""
        return f"{self.cluster}-link-token"

    @property
    def identity(self) -> str:
        """Secret with cluster id and formation; no object owns it, so that it outlives all."""
        return f"{self.cluster}-identity"

    @property
    def disruption_budget(self) -> str:
        """Of the nodes."""
        return self.cluster

    @property
    def network_policy(self) -> str:
        """Of the nodes."""
        return self.cluster

    @property
    def service_monitor(self) -> str:
        """Of nodes and gateways."""
        return self.cluster


CLUSTER_KEY_FIELD: Final = "key"
"""In the cluster key's Secret: 64 hexadecimal digits."""
TOKEN_FIELD: Final = "token"
"""In the Secrets of tokens."""


def selector(cluster: str, component: str) -> dict[str, str]:
    """Labels that select the pods of one cluster and component. Never changed afterwards."""
    return {NAME_LABEL: APPLICATION, INSTANCE_LABEL: cluster, COMPONENT_LABEL: component}


def labels(cluster: str, component: str) -> dict[str, str]:
    """Labels of a child."""
    return {
        **selector(cluster, component),
        CLUSTER_LABEL: cluster,
        MANAGED_BY_LABEL: MANAGER,
    }


def replacements(value: str) -> dict[int, int]:
    """Of REPLACE_ANNOTATION, "ordinal=incarnation,...": the members given up, by ordinal.

    Naming the incarnation makes it harmless once the member was replaced. Raises ValueError
    with what would have been taken.
    """
    found = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        ordinal, equals, incarnation = item.partition("=")
        if not (equals and ordinal.strip().isdecimal() and incarnation.strip().isdecimal()):
            raise ValueError(
                f"{item!r} is not of the form ORDINAL=INCARNATION, such as 2=183645; "
                "`kubectl distkv repair` writes it for you"
            )
        found[int(ordinal)] = int(incarnation)
    return found


def replacements_text(members: Mapping[int, int]) -> str:
    """The value of REPLACE_ANNOTATION for these members."""

    def parts() -> Iterator[str]:
        for ordinal, incarnation in sorted(members.items()):
            yield f"{ordinal}={incarnation}"

    return ",".join(parts())
