"""The configuration files of nodes and gateways, and what of them needs a restart.

A pod is replaced when its fingerprint changes: image, and what was set in the resource of
resources, pod template, storage engine and configuration, without the fields that a running
node takes over from its file (`LIVE_FIELDS`). Only what the user set counts, not what a release
makes of the rest, so that an upgrade of the operator alone restarts no node.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from distkv.config.live import LIVE_FIELDS
from distkv.config.units import Address
from distkv.manifest import Cluster
from distkv_operator import names
from distkv_operator.builders import toml
from distkv_operator.builders.context import Context, Manifest
from distkv_operator.builders.metadata import manifest

NODE_FILE = "node.toml"
GATEWAY_FILE = "gateway.toml"
CONFIG_DIRECTORY = "/etc/distkv/config"
SECRETS_DIRECTORY = "/etc/distkv/secrets"
CLUSTER_KEY_FILE = f"{SECRETS_DIRECTORY}/cluster-key/{names.CLUSTER_KEY_FIELD}"
ADMIN_TOKEN_FILE = f"{SECRETS_DIRECTORY}/admin-token/{names.TOKEN_FIELD}"
LINK_TOKEN_FILE = f"{SECRETS_DIRECTORY}/link-token/{names.TOKEN_FIELD}"
DATA_DIRECTORY = "/var/lib/distkv"
HEADING = "Written by the distkv operator from the DistKVCluster; edits here are undone."
EVERYWHERE = "0.0.0.0"


def tuning(cluster: Cluster) -> dict[str, dict[str, Any]]:
    """Sections and fields that the resource sets, in the units of the configuration file."""
    sections = cluster.spec.tuning().model_dump(mode="json", exclude_unset=True)
    return {section: dict(sorted(sections[section].items())) for section in sorted(sections)}


def node_sections(cluster: Cluster, context: Context) -> dict[str, dict[str, Any]]:
    """What all nodes are started with. The ordinal comes from the pod's environment."""
    children = names.Names(cluster.metadata.name)
    peers = [Address(children.peer_host(i), names.PEERS_PORT) for i in range(context.replicas)]
    sections: dict[str, dict[str, Any]] = {
        "cluster": {"id": context.cluster_id},
        "listen": {
            "resp": str(Address(EVERYWHERE, names.RESP_PORT)),
            "http": str(Address(EVERYWHERE, names.HTTP_PORT)),
            "admin": str(Address(EVERYWHERE, names.ADMIN_PORT)),
            "peers": str(Address(EVERYWHERE, names.PEERS_PORT)),
            "link": str(Address(EVERYWHERE, names.LINK_PORT)),
        },
        "peers": {"addresses": [str(address) for address in peers]},
        "keys": {"files": [CLUSTER_KEY_FILE]},
        "admin": {"token_file": ADMIN_TOKEN_FILE},
        "gateway": {"token_file": LINK_TOKEN_FILE},
        "storage": {"directory": DATA_DIRECTORY},
    }
    if cluster.spec.storage.engine is not None:
        sections["storage"]["engine"] = cluster.spec.storage.engine
    return {**sections, **tuning(cluster)}


def gateway_sections(cluster: Cluster, context: Context) -> dict[str, dict[str, Any]]:
    """What all gateways are started with. They have no key of the nodes."""
    children = names.Names(cluster.metadata.name)
    links = [Address(children.peer_host(i), names.LINK_PORT) for i in range(context.replicas)]
    sections: dict[str, dict[str, Any]] = {
        "listen": {
            "resp": str(Address(EVERYWHERE, names.RESP_PORT)),
            "http": str(Address(EVERYWHERE, names.HTTP_PORT)),
        },
        "gateway": {
            "nodes": [str(address) for address in links],
            "token_file": LINK_TOKEN_FILE,
        },
    }
    wanted = {k: v for k, v in tuning(cluster).items() if k in ("limits", "logging")}
    return {**sections, **wanted}


def config_map(cluster: Cluster, context: Context) -> Manifest:
    """Both files. Nodes and gateways mount their own only."""
    children = names.Names(cluster.metadata.name)
    return manifest(
        "v1",
        "ConfigMap",
        children.config,
        cluster,
        context,
        names.NODE,
        data={
            NODE_FILE: toml.document(node_sections(cluster, context), HEADING),
            GATEWAY_FILE: toml.document(gateway_sections(cluster, context), HEADING),
        },
    )


def fingerprint(cluster: Cluster, context: Context) -> str:
    """Of what a node's pod is started with; see the module. 16 hexadecimal digits."""
    spec = cluster.spec
    sections = tuning(cluster)
    for field in LIVE_FIELDS:
        section, _, name = field.partition(".")
        sections.get(section, {}).pop(name, None)
    what: dict[str, Any] = {
        "image": context.image,
        "engine": spec.storage.engine,
        "config": {name: fields for name, fields in sections.items() if fields},
        "resources": spec.resources.model_dump(mode="json", exclude_unset=True),
        "pod": spec.pod_template.model_dump(mode="json", exclude_unset=True),
    }
    return checksum({name: value for name, value in what.items() if value})


def gateway_checksum(cluster: Cluster, context: Context) -> str:
    """Of the gateways' file: they are replaced, a few at a time, when it changes. The list of
    nodes they take over from the changed file."""
    sections = gateway_sections(cluster, context)
    del sections["gateway"]["nodes"]
    return checksum(sections)


def checksum(content: Any) -> str:
    """Of plain data, whatever the order of its keys. 16 hexadecimal digits."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
