"""The provider that makes nothing: the cluster that KUBECONFIG points at, if that is allowed.

Tests create and destroy things. So a context must have been named beforehand, in
DISTKV_TESTBED_CONTEXTS: what somebody's kubeconfig happens to point at is not consent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import LabError
from testbed.provider import Provider
from testbed.run import run

ALLOWED = "DISTKV_TESTBED_CONTEXTS"


def allowed_contexts() -> list[str]:
    return [name for name in os.environ.get(ALLOWED, "").split(",") if name]


class CurrentProvider(Provider):
    name = "current"

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster

    def up(self, nodes: int) -> None:
        items = json.loads(self._call("get", "nodes", "-o", "json"))["items"]
        ready = [item for item in items if schedulable(item)]
        if len(ready) < nodes:
            raise LabError(
                f"the cluster has {len(ready)} Ready nodes that pods may be put on, not {nodes}",
                f"give it more, or ask for fewer: hack/kube up --nodes {len(ready)}",
            )

    def down(self) -> None:
        """The cluster is not ours to end."""

    def status(self) -> list[str]:
        return [
            f"context {self._context()}",
            *self._call("get", "nodes", "-o", "wide").splitlines(),
        ]

    def kubeconfig(self) -> Path:
        files = os.environ.get("KUBECONFIG", "").split(os.pathsep)
        return Path(files[0]) if files[0] else Path.home() / ".kube" / "config"

    def kubectl(self) -> Sequence[str]:
        # The context is named, so that a switch of contexts meanwhile changes nothing for us.
        return ["kubectl", "--context", self._context()]

    def load_image(self, archive: Path) -> None:
        raise LabError(
            f"images cannot be loaded into a cluster of provider {self.name}",
            f"push {archive} to a registry that its nodes pull from",
        )

    def _call(self, *arguments: str) -> str:
        return run([*self.kubectl(), *arguments], timeout=60).stdout

    def _context(self) -> str:
        name = run(["kubectl", "config", "current-context"]).stdout.strip()
        if name not in allowed_contexts():
            there = ", ".join(allowed_contexts()) or "it is empty"
            raise LabError(
                f"context {name!r} is not on the list of {ALLOWED} ({there})",
                f"if tests may create and destroy things there: export {ALLOWED}={name}",
            )
        return name


def schedulable(node: dict[str, object]) -> bool:
    """Ready, and no taint that keeps ordinary pods away (as control planes have)."""
    status, spec = node["status"], node["spec"]
    assert isinstance(status, dict)
    assert isinstance(spec, dict)
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in status["conditions"])
    barred = any(t["effect"] in ("NoSchedule", "NoExecute") for t in spec.get("taints") or [])
    return ready and not barred and not spec.get("unschedulable")
