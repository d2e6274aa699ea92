"""The operator in the cluster: there already, or installed for the time of a run."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import yaml
from chaos.faults_control import OPERATOR
from testbed.harness import Cluster
from testbed.paths import CHECKOUT

INSTALL = CHECKOUT / "hack" / "install.yaml"


@contextlib.contextmanager
def operator(cluster: Cluster, image: str) -> Iterator[None]:
    """That of hack/install.yaml with this image, unless one runs already."""
    if any("deletionTimestamp" not in pod["metadata"] for pod in _pods(cluster)):
        yield
        return
    text = re.sub(
        r"(\b(image|value): )distkv:dev$", rf"\g<1>{image}", INSTALL.read_text(), flags=re.M
    )
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
    try:
        cluster.wait("the operator", lambda: _ready(cluster), 120)
        yield
    finally:
        # The definition stays: with it Kubernetes would delete clusters that are not ours.
        ours = [d for d in yaml.safe_load_all(text) if d["kind"] != "CustomResourceDefinition"]
        cluster.kubectl(
            *("delete", "--ignore-not-found", "-f", "-"),
            stdin=yaml.safe_dump_all(ours),
            timeout=180,
        )


def _pods(cluster: Cluster) -> list[dict[str, Any]]:
    return cluster.items("pods", "-A", "-l", OPERATOR)


def _ready(cluster: Cluster) -> bool:
    pods = [pod for pod in _pods(cluster) if "deletionTimestamp" not in pod["metadata"]]
    return bool(pods) and all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
        for pod in pods
    )
