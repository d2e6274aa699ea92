"""Rewrites the golden manifests: python tests/unit/operator/builders/golden.py

Each file of `golden/` holds all children of one cluster. Read the difference before committing
it: it is what a new release changes in every cluster that runs.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[4]
GOLDEN = Path(__file__).resolve().parent / "golden"
if __name__ == "__main__":
    sys.path[:0] = [str(ROOT / "node"), str(ROOT / "operator")]

from distkv.manifest import Cluster, read  # noqa: E402
from distkv_operator import names  # noqa: E402
from distkv_operator.builders import Context, OperatorPlace, children  # noqa: E402

EXAMPLES = ("minimal", "production", "development")


class Dumper(yaml.SafeDumper):
    """Spells everything out, files line by line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _lines(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


Dumper.add_representer(str, _lines)


def situations() -> dict[str, tuple[Cluster, Context]]:
    """By name of the golden file."""
    found = {}
    for name in EXAMPLES:
        cluster = read(ROOT / "hack" / "examples" / f"{name}.yaml")
        found[name] = (cluster, _context(cluster))
    cluster, context = found["minimal"]
    found["minimal-degraded-growing"] = (
        cluster,
        context._replace(
            replicas=7, disruption_allowed=False, operator=None, service_monitors=False
        ),
    )
    return found


def _context(cluster: Cluster) -> Context:
    return Context(
        namespace="default",
        uid="00000000-0000-0000-0000-000000000001",
        image="distkv:dev",
        cluster_id="0123456789abcdef0123456789abcdef",
        replicas=cluster.spec.nodes,
        disruption_allowed=True,
        service_monitors=True,
        operator=OperatorPlace("distkv-system", names.OPERATOR_LABELS),
    )


def text(cluster: Cluster, context: Context) -> str:
    """All children as one file of YAML documents."""
    documents = children(cluster, context)
    return yaml.dump_all(documents, Dumper=Dumper, sort_keys=False, width=100)


def rewrite() -> None:
    """Make the files what the builders give now."""
    GOLDEN.mkdir(exist_ok=True)
    for name, (cluster, context) in situations().items():
        (GOLDEN / f"{name}.yaml").write_text(text(cluster, context))


if __name__ == "__main__":
    rewrite()
