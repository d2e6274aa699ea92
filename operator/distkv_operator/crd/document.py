"""The whole custom resource definition."""

from __future__ import annotations

from typing import Any

from distkv.manifest import ClusterSpec, ClusterStatus
from distkv_operator import names
from distkv_operator.crd.rules import rules
from distkv_operator.crd.schema import filled, object_schema

Document = dict[str, Any]


def _condition(kind: str) -> str:
    return f'.status.conditions[?(@.type=="{kind}")].status'


COLUMNS = (
    ("Ready", "string", _condition("Ready"), 0, "Whether the cluster is as it should be."),
    ("Nodes", "string", ".status.nodesSummary", 0, "Nodes ready and wanted."),
    ("Layout", "string", ".status.layoutSummary", 0, "Data and parity shards in force."),
    ("Healthy", "string", _condition("ShardsHealthy"), 0, "Whether every shard is in its place."),
    ("Missing", "integer", ".status.shards.missing", 0, "Shards that repair has still to bring."),
    ("Version", "string", ".status.version", 0, "Version that the nodes report."),
    ("Survives", "integer", ".status.failures.survivable", 1, "Nodes that may be lost right now."),
    ("Leader", "integer", ".status.leader", 1, "Seat of the leader."),
    ("Gateways", "integer", ".status.gateway.ready", 1, "Gateways that take requests."),
    ("Image", "string", ".status.image", 1, "Image of nodes and gateways."),
    ("Age", "date", ".metadata.creationTimestamp", 0, "Since when the resource is there."),
)


def definition() -> Document:
    """Plain data, ready to be written as YAML."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": names.CRD,
            "labels": {names.NAME_LABEL: names.APPLICATION},
        },
        "spec": {
            "group": names.GROUP,
            "names": {
                "kind": names.KIND,
                "listKind": f"{names.KIND}List",
                "plural": names.PLURAL,
                "singular": names.SINGULAR,
                "shortNames": [names.SHORT_NAME],
                "categories": ["all"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": names.VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": _root()},
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [_column(*column) for column in COLUMNS],
                }
            ],
        },
    }


def _column(name: str, kind: str, path: str, priority: int, description: str) -> Document:
    column: Document = {"name": name, "type": kind, "jsonPath": path, "description": description}
    if priority:
        column["priority"] = priority
    return column


def _without_defaults(schema: Any) -> Any:
    """A status says what was seen; a default would claim what was not."""
    if isinstance(schema, list):
        return [_without_defaults(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_defaults(value)
        for key, value in schema.items()
        if not (key == "default" and "description" in schema)
    }


def _root() -> Document:
    waiting = rules()
    spec = object_schema(ClusterSpec, waiting, ("spec",))
    status = _without_defaults(object_schema(ClusterStatus, waiting, ("status",)))
    of_spec, of_root = waiting.pop(("spec",)), waiting.pop(())
    assert not waiting, f"rules of fields that do not exist: {sorted(waiting)}"
    return {
        "description": "A DistKV cluster: a strongly consistent key-value store whose large values "
        "are erasure-coded over its nodes. The operator makes it as the specification says, and "
        "keeps it so.",
        "type": "object",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {
                "description": "What the cluster should be. Every field has a default: three data "
                "and two parity shards on five nodes, any two of which may be lost.",
                "default": filled(spec),
                **spec,
                "x-kubernetes-validations": of_spec,
            },
            "status": {
                "description": "What the operator has seen; not to be written by hand.",
                **status,
            },
        },
        "x-kubernetes-validations": of_root,
    }
