"""The operator in the cluster: there already, or installed from the checkout."""

from __future__ import annotations

import re

from chaos.faults_control import OPERATOR
from testbed.harness import Cluster
from testbed.paths import CHECKOUT

INSTALL = CHECKOUT / "hack" / "install.yaml"


def ensure_operator(cluster: Cluster, image: str) -> None:
    """Installs hack/install.yaml with this image, unless an operator runs already."""
    if cluster.items("pods", "-A", "-l", OPERATOR):
        return
    text = re.sub(r"(\bimage: )\S+", rf"\g<1>{image}", INSTALL.read_text())
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    cluster.wait("the operator", lambda: _ready(cluster), 120)


def _ready(cluster: Cluster) -> bool:
    pods = cluster.items("pods", "-A", "-l", OPERATOR)
    return bool(pods) and all(
        any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"]["conditions"])
        for pod in pods
    )
