"""What the API server refuses, and how it says so: rules that types and bounds cannot express.

By path of field names below the root. `self` is the value there, `oldSelf` the one before a
change (such a rule is not asked of a new object). Messages name the remedy.
"""

from __future__ import annotations

from typing import Any

from distkv.config.sections import LARGEST_NODE_COUNT
from distkv.manifest.model import NAME_LENGTH_MAX, RESERVED_SUFFIXES
from distkv.manifest.parts import RESERVED_PREFIXES

Rule = dict[str, Any]
MEMORY_LEAST = {"resources": "256Mi", "gateway": "64Mi"}

_MOVE = "make a new cluster and move the data with `distkv kv export` and `distkv kv import`"


def _fixed(field: str, why: str) -> Rule:
    """The field stays as it was made, unset too."""
    return {
        "rule": f"has(self.{field}) == has(oldSelf.{field}) "
        f"&& (!has(self.{field}) || self.{field} == oldSelf.{field})",
        "message": f"{field} cannot be changed, set or unset afterwards, because {why}: {_MOVE}",
        "fieldPath": f".{field}",
        "reason": "FieldValueForbidden",
    }


def _bytes(expression: str) -> str:
    return f"quantity(string({expression}))"


def _resources(least: str) -> list[Rule]:
    request, limit = "self.requests['{0}']", "self.limits['{0}']"
    found: list[Rule] = []
    for name in ("memory", "cpu"):
        asked, allowed = request.format(name), limit.format(name)
        found.append(
            {
                "rule": f"!has(self.requests) || !has(self.limits) || !('{name}' in self.requests) "
                f"|| !('{name}' in self.limits) "
                f"|| {_bytes(asked)}.compareTo({_bytes(allowed)}) <= 0",
                "message": f"requests.{name} must not be above limits.{name}: lower it or raise "
                "the limit",
            }
        )
    found.append(
        {
            "rule": "!has(self.limits) || !('memory' in self.limits) "
            f"|| {_bytes(limit.format('memory'))}.compareTo(quantity('{least}')) >= 0",
            "message": f"limits.memory must be at least {least}, or pods are killed under load: "
            "raise it or leave it out",
        }
    )
    return found


def _not_reserved(field: str) -> Rule:
    tests = " || ".join(f"key.startsWith('{prefix}')" for prefix in RESERVED_PREFIXES)
    return {
        "rule": f"!has(self.{field}) || self.{field}.all(key, !({tests}))",
        "message": f"{field} of {' and '.join(p.rstrip('/') for p in RESERVED_PREFIXES)} are the "
        "operator's own, it finds pods by them: use another prefix",
        "fieldPath": f".{field}",
    }


def rules() -> dict[tuple[str, ...], list[Rule]]:
    """All of them."""
    return {
        (): _of_the_name(),
        ("spec",): [
            {
                "rule": f"self.dataShards + self.parityShards <= {LARGEST_NODE_COUNT}",
                "message": f"dataShards + parityShards must be at most {LARGEST_NODE_COUNT}, the "
                "most nodes that the code is tested for: lower one of them",
                "fieldPath": ".parityShards",
            },
        ],
        ("spec", "dataShards"): [
            {
                "minimum": True,
                "rule": "self >= 1",
                "message": "dataShards must be at least 1; with 1 every node has a whole copy",
            }
        ],
        ("spec", "parityShards"): [
            {
                "minimum": True,
                "rule": "self >= 0",
                "message": "parityShards must be at least 0; with 0 no node may be lost",
            }
        ],
        ("spec", "storage"): [
            _fixed("className", "volumes keep the class they were made with"),
            _fixed("engine", "nodes do not convert what is on their disks"),
            {
                "rule": f"{_bytes('self.size')}.compareTo({_bytes('oldSelf.size')}) >= 0",
                "message": f"size may only grow, because volumes do not shrink; for less: {_MOVE}",
                "fieldPath": ".size",
            },
            {
                "rule": f"{_bytes('self.size')}.compareTo(quantity('128Mi')) >= 0",
                "message": "size must be at least 128Mi: below that a node turns read-only at once",
                "fieldPath": ".size",
            },
            {
                "rule": "!has(self.engine) || self.engine != 'memory'",
                "message": "engine memory keeps nothing when a pod restarts, so it is for laptop "
                "mode only: take files or rocksdb",
                "fieldPath": ".engine",
            },
        ],
        ("spec", "resources"): _resources(MEMORY_LEAST["resources"]),
        ("spec", "gateway", "resources"): _resources(MEMORY_LEAST["gateway"]),
        ("spec", "podTemplate"): [_not_reserved("labels"), _not_reserved("annotations")],
        ("spec", "podTemplate", "tolerations", "*"): [
            {
                "rule": "self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "message": "operator Exists takes no value: leave it out, or take Equal",
            },
            {
                "rule": "self.operator != 'Equal' || has(self.key)",
                "message": "operator Equal needs a key: name one, or take Exists",
            },
            {
                "rule": "!has(self.tolerationSeconds) || "
                "(has(self.effect) && self.effect == 'NoExecute')",
                "message": "tolerationSeconds goes with effect NoExecute only",
            },
        ],
    }


def _of_the_name() -> list[Rule]:
    suffixes = " && ".join(f"!self.metadata.name.endsWith('{s}')" for s in RESERVED_SUFFIXES)
    return [
        {
            "rule": f"size(self.metadata.name) <= {NAME_LENGTH_MAX}",
            "message": f"the name must have at most {NAME_LENGTH_MAX} characters, because names "
            "of pods and Services are made of it: choose a shorter one",
        },
        {
            "rule": "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
            "message": "the name must begin with a letter and hold only small letters, digits and "
            "hyphens, because a Service has it: choose another",
        },
        {
            "rule": suffixes,
            "message": f"the name must not end in {' or '.join(RESERVED_SUFFIXES)}, because "
            "another cluster's Service could have it: choose another",
        },
    ]
