"""What every way to get a cluster can do. The command line knows nothing else of them."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from testbed.errors import LabError

NODE_VERBS = ("stop", "start", "freeze", "partition", "heal")
CONTROL_DAEMONS = ("kube-apiserver", "etcd")


class Provider(ABC):
    """One cluster by one means. Every method may be called again after it failed half-way."""

    name: str

    @abstractmethod
    def up(self, nodes: int) -> None:
        """Returns when the cluster has this many Ready worker nodes. A no-op if it already has."""

    @abstractmethod
    def down(self) -> None:
        """Leaves nothing of the cluster behind. A no-op if there is none."""

    @abstractmethod
    def status(self) -> list[str]:
        """Lines for a person: what runs and where."""

    @abstractmethod
    def kubeconfig(self) -> Path:
        """The file with which programs on this machine reach the cluster."""

    @abstractmethod
    def kubectl(self) -> Sequence[str]:
        """The beginning of a kubectl command, up to where its arguments go."""

    def helm(self) -> Path:
        """The program, to be run with KUBECONFIG set to `kubeconfig`."""
        found = shutil.which("helm")
        if found is None:
            raise LabError("helm is not on PATH", "install helm 3.17 or newer")
        return Path(found)

    @abstractmethod
    def load_image(self, archive: Path) -> None:
        """Makes the image in an OCI or Docker archive known to every node."""

    def node(self, verb: str, name: str, wipe: bool = False) -> None:
        raise LabError(
            f"nodes of a {self.name} cluster are not ours to {verb}",
            "use --provider kind or namespaces for tests that take nodes away",
        )

    def inside(self, node: str) -> Sequence[str]:
        """The beginning of a command that runs on a node, in all of its namespaces."""
        raise LabError(f"nodes of a {self.name} cluster are not ours to enter")

    def control(self, verb: str, daemon: str) -> None:
        """Freezes a daemon of the control plane (it answers nothing), or heals it again."""
        raise LabError(f"the control plane of a {self.name} cluster is not ours to {verb}")

    def logs(self, what: str | None, follow: bool) -> Sequence[str]:
        """A command that prints logs: of everything, or of one daemon."""
        raise LabError(
            f"the daemons of a {self.name} cluster are not ours to read",
            "hack/kube kubectl logs shows what pods say",
        )
