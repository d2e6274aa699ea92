"""From the specification to manifests: pure functions, plain dictionaries, no API.

`children(cluster, context)` gives every child of a DistKVCluster as it should be, in the order to
apply them (server-side apply, field manager `names.FIELD_MANAGER`, force). `cluster` is
`distkv.manifest.Cluster`, as `distkv.manifest.reading.parse` makes it of the object the API
server gives; `Context` has what is not in the specification. Equal arguments give equal
manifests; nothing in them is None; each has the owner, the labels and the namespace.

`unwanted(cluster, context)` names the children that should not exist (any more).
`fingerprint(cluster, context)` is what each node's pod must carry in
`names.FINGERPRINT_ANNOTATION`; a pod with another one is to be replaced. A StatefulSet may have a
newer revision although no fingerprint changed: pods need no restart for it.

Secrets are not among the children: they are created once, with random content, and never written
again. The pods mount three of them by name (`names.Names`): cluster_key with `key`, admin_token
and link_token with `token`.

There is one function for each child, for where only that one is needed: `config_map`,
`peers_service`, `client_service`, `gateway_service`, `stateful_set`, `deployment`, `node_budget`,
`gateway_budget`, `node_policy`, `gateway_policy`, `service_monitor`; those of optional children
give None where the child is not wanted.
"""

from distkv_operator.builders.children import Reference, children, reference, unwanted
from distkv_operator.builders.config import config_map, fingerprint
from distkv_operator.builders.context import Context, Manifest, OperatorPlace
from distkv_operator.builders.disruption import gateway_budget, node_budget
from distkv_operator.builders.gateway import deployment
from distkv_operator.builders.monitoring import service_monitor
from distkv_operator.builders.network import gateway_policy, node_policy
from distkv_operator.builders.nodes import stateful_set
from distkv_operator.builders.services import client_service, gateway_service, peers_service

__all__ = [
    "Context",
    "Manifest",
    "OperatorPlace",
    "Reference",
    "children",
    "client_service",
    "config_map",
    "deployment",
    "fingerprint",
    "gateway_budget",
    "gateway_policy",
    "gateway_service",
    "node_budget",
    "node_policy",
    "peers_service",
    "reference",
    "service_monitor",
    "stateful_set",
    "unwanted",
]
