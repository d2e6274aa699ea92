"""The provider for machines with Docker or Podman: kind, with the cluster of kind-cluster.yaml.

Only the commands differ from the namespaces provider; storage class, zones and node verbs keep
their names and meaning, so that a test need not know which of the two it runs on.
"""

from __future__ import annotations

import json
import os
import shutil
import string
from collections.abc import Sequence
from pathlib import Path

from testbed.agents.names import STORAGE_CLASS
from testbed.errors import LabError
from testbed.paths import PACKAGE, cluster_root
from testbed.progress import Progress
from testbed.provider import Provider
from testbed.run import run

TEMPLATE = PACKAGE / "kind-cluster.yaml"
DAEMONS = ("docker", "podman")
ZONES = ("zone-a", "zone-b", "zone-c")


def container_daemon() -> str | None:
    """The first program whose daemon answers: an installed client alone starts no container."""
    for program in DAEMONS:
        if shutil.which(program) is None:
            continue
        try:
            if run([program, "info"], check=False, timeout=20).returncode == 0:
                return program
        except LabError:
            continue
    return None


def _environment() -> dict[str, str]:
    """kind takes Docker where its client is installed, even if only Podman's daemon answers."""
    chosen = {"KIND_EXPERIMENTAL_PROVIDER": "podman"} if container_daemon() == "podman" else {}
    return {**chosen, **os.environ}


def _kind(*arguments: str) -> str:
    return run(["kind", *arguments], env=_environment()).stdout


def cluster_config(nodes: int) -> str:
    """The file for `kind create cluster`: the checked-in head, and one entry for each worker."""
    head, marker, worker = TEMPLATE.read_text().partition("# worker:\n")
    if not marker:
        raise LabError(f"{TEMPLATE} has no line '# worker:'", "restore the file")
    workers = [
        string.Template(worker).substitute(zone=ZONES[number % len(ZONES)])
        for number in range(nodes)
    ]
    return head + "".join(workers)


class KindProvider(Provider):
    name = "kind"

    def __init__(self, cluster: str, progress: Progress) -> None:
        self._cluster = cluster
        self._folder = cluster_root(cluster)
        self._progress = progress

    def up(self, nodes: int) -> None:
        self._check_programs()
        config = self._folder / "kind.yaml"
        if self._cluster in _kind("get", "clusters").split():
            if config.exists() and config.read_text() == cluster_config(nodes):
                self._progress.step("the cluster was up already")
                self._await_ready()
                return
            self._progress.step("removing a cluster that is not as asked for")
            self.down()
        self._folder.mkdir(parents=True, exist_ok=True)
        config.write_text(cluster_config(nodes))
        self._progress.step(f"kind creates {nodes} workers")
        _kind(*create_arguments(self._cluster, config, self.kubeconfig()))
        self._apply_storage_class()
        self._await_ready()
        self._progress.step(f"{nodes} nodes are Ready")

    def _check_programs(self) -> None:
        for program in ("kind", "kubectl"):
            if shutil.which(program) is None:
                raise LabError(
                    f"{program} is not on PATH",
                    f"install {program}; without it, and as root: --provider namespaces",
                )

    def _apply_storage_class(self) -> None:
        """kind's own provisioner under the name that tests use. Its volumes are folders: they have
        no size of their own, so tests of growing and filling need the namespaces provider."""
        manifest = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": {"name": STORAGE_CLASS},
            "provisioner": "rancher.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Delete",
        }
        run([*self.kubectl(), "apply", "--server-side", "-f", "-"], stdin=json.dumps(manifest))

    def _await_ready(self) -> None:
        run([*self.kubectl(), "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=180s"])

    def down(self) -> None:
        _kind("delete", "cluster", "--name", self._cluster)
        shutil.rmtree(self._folder, ignore_errors=True)

    def status(self) -> list[str]:
        nodes = run([*self.kubectl(), "get", "nodes", "-o", "wide"]).stdout.splitlines()
        return [f"kind cluster {self._cluster}; kubeconfig {self.kubeconfig()}", *nodes]

    def kubeconfig(self) -> Path:
        return self._folder / "kubeconfig"

    def kubectl(self) -> Sequence[str]:
        return ["kubectl", "--kubeconfig", str(self.kubeconfig())]

    def load_image(self, archive: Path) -> None:
        _kind("load", "image-archive", str(archive), "--name", self._cluster)
        self._progress.step(f"{archive.name} is on every node")

    def node(self, verb: str, name: str, wipe: bool = False) -> None:
        known = _kind("get", "nodes", "--name", self._cluster).split()
        if name not in known:
            raise LabError(f"there is no node {name!r}", f"the nodes are {', '.join(known) or '-'}")
        daemon = container_daemon()
        if daemon is None:
            raise LabError("neither Docker nor Podman answers any more", "start the daemon again")
        for command, required in node_commands(daemon, verb, name, wipe):
            run(command, check=required)

    def inside(self, node: str) -> Sequence[str]:
        return [container_daemon() or DAEMONS[0], "exec", "-i", node]

    def control(self, verb: str, daemon: str) -> None:
        run([*self.inside(f"{self._cluster}-control-plane"), *control_command(verb, daemon)])

    def logs(self, what: str | None, follow: bool) -> Sequence[str]:
        """A node's journal; `kind export logs` has no way to print."""
        daemon = container_daemon() or DAEMONS[0]
        node, _, unit = (what or f"{self._cluster}-control-plane").partition("/")
        units = ["-u", unit] if unit else []
        return [daemon, "exec", node, "journalctl", *units, *(["-f"] if follow else [])]


def create_arguments(cluster: str, config: Path, kubeconfig: Path) -> list[str]:
    options = {"--name": cluster, "--config": config, "--kubeconfig": kubeconfig, "--wait": "180s"}
    return ["create", "cluster", *(str(w) for pair in options.items() for w in pair)]


def node_commands(daemon: str, verb: str, name: str, wipe: bool) -> list[tuple[list[str], bool]]:
    """The commands for a node verb, and whether each must succeed.

    `heal` undoes two things of which only one may have been done, so its steps may fail.
    """
    inside = [daemon, "exec", name]
    match verb:
        case "stop":
            # The volumes must go while the node still runs: a stopped container runs no command.
            lost = [*inside, "sh", "-c", "rm -rf /var/local-path-provisioner/*"]
            first = [(lost, True)] if wipe else []
            return [*first, ([daemon, "kill", name], True)]
        case "start":
            return [([daemon, "start", name], True)]
        case "freeze":
            return [([daemon, "pause", name], True)]
        case "partition":
            # Not `network disconnect`: connecting again would give the node another address.
            return [([*inside, *rule("-I")], True) for rule in (_lose_incoming, _lose_outgoing)]
        case "heal":
            undo = [([*inside, *rule("-D")], False) for rule in (_lose_incoming, _lose_outgoing)]
            return [([daemon, "unpause", name], False), *undo]
        case other:
            raise LabError(f"there is no node verb {other!r}")


def control_command(verb: str, daemon: str) -> list[str]:
    return ["pkill", "-STOP" if verb == "freeze" else "-CONT", "-x", daemon]


def _lose_incoming(action: str) -> list[str]:
    return ["iptables", "-t", "raw", action, "PREROUTING", "-i", "eth0", "-j", "DROP"]


def _lose_outgoing(action: str) -> list[str]:
    return ["iptables", "-t", "mangle", action, "POSTROUTING", "-o", "eth0", "-j", "DROP"]
