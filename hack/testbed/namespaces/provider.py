"""`up`, `down` and the other verbs for a cluster of namespaces."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed.errors import LabError
from testbed.locks import exclusive
from testbed.namespaces import cgroups, host, limits, network, start
from testbed.namespaces.images import Stores, ensure_store
from testbed.namespaces.lab import HUB, Lab
from testbed.namespaces.node import Node
from testbed.namespaces.tools import ensure_tools
from testbed.paths import cache_root, cluster_root
from testbed.progress import Progress
from testbed.provider import Provider

IMPORTS_AT_ONCE = 2


class NamespacesProvider(Provider):
    name = "namespaces"

    def __init__(self, cluster: str, progress: Progress) -> None:
        self._root = cluster_root(cluster)
        self._lock = cache_root() / f"{cluster}.lock"  # not in a folder that `down` removes
        self._limits_lock = cache_root() / "limits.lock"  # of all clusters together
        self._progress = progress
        self._lab = Lab(self._root)

    def up(self, nodes: int) -> None:
        if not 1 <= nodes <= network.MAX_NODES:
            raise LabError(f"--nodes {nodes} is not between 1 and {network.MAX_NODES}")
        host.prepare(self._progress)
        tools = ensure_tools(self._progress)
        store = ensure_store(tools, self._progress)
        with exclusive(self._lock):
            self._lab = Lab(self._root)
            if self._lab.record.complete and self._lab.running(HUB):
                if self._lab.record.nodes != nodes:
                    raise LabError(
                        f"a cluster of {self._lab.record.nodes} nodes is up, not of {nodes}",
                        "take it down first: hack/kube down",
                    )
                self._progress.step("the cluster was up already")
                return
            if self._root.exists():
                self._progress.step("removing what an interrupted `up` left")
                self._lab.end()
            (self._root / "run").mkdir(parents=True)
            with exclusive(self._limits_lock):
                limits.raise_limit(self._root.parent)
            self._lab = Lab(self._root)
            start.start_cluster(self._lab, tools, store, nodes, self._progress)

    def down(self) -> None:
        with exclusive(self._lock):
            self._lab = Lab(self._root)
            self._lab.end()
            with exclusive(self._limits_lock):
                limits.restore_limit(self._root.parent)
        self._progress.step("nothing of the cluster is left")

    def status(self) -> list[str]:
        if not self._lab.running(HUB):
            return ["no cluster is up"]
        lines = [f"{self._lab.record.nodes} nodes; kubeconfig {self.kubeconfig()}"]
        for number in range(1, self._lab.record.nodes + 1):
            name = network.node_name(number)
            lines.append(f"{name}  {network.zone_of(number)}  {self._state(name)}")
        for daemon, pid in self._lab.daemons().items():
            lines.append(f"  {daemon}: {f'process {pid}' if pid else 'ENDED'}")
        return lines

    def _state(self, name: str) -> str:
        if not self._lab.running(name):
            return "stopped"
        if cgroups.is_frozen(f"{self._lab.cgroup}/{name}"):
            return "frozen"
        link = self._lab.box(HUB).run(["ip", "-o", "link", "show", name], "net")
        return "running" if f"master {network.BRIDGE}" in link else "partitioned"

    def kubeconfig(self) -> Path:
        return self._root / "kubeconfig"

    def kubectl(self) -> Sequence[str]:
        self._lab.box(HUB)
        return [str(self._lab.tools["kubectl"]), "--kubeconfig", str(self.kubeconfig())]

    def helm(self) -> Path:
        return self._lab.tools["helm"]

    def load_image(self, archive: Path) -> None:
        """Also kept for nodes that are started later with nothing on their disk."""
        self._lab.box(HUB)
        kept = self._root / "images" / archive.name
        if archive.resolve() != kept.resolve():
            shutil.copyfile(archive, kept)
        names = [n for n in self._lab.record.boxes if n != HUB and self._lab.running(n)]
        with ThreadPoolExecutor(IMPORTS_AT_ONCE) as workers:
            list(workers.map(lambda name: start.import_image(self._lab, name, kept), names))
        self._progress.step(f"{archive.name} is on {len(names)} nodes")

    def node(self, verb: str, name: str, wipe: bool = False) -> None:
        known = [network.node_name(n) for n in range(1, self._lab.record.nodes + 1)]
        if name not in known:
            raise LabError(f"there is no node {name!r}", f"the nodes are {', '.join(known) or '-'}")
        with exclusive(self._lock):
            self._lab = Lab(self._root)
            self._node(verb, name, wipe)
        self._progress.step(f"{name}: {self._state(name)}")

    def _node(self, verb: str, name: str, wipe: bool) -> None:
        group = f"{self._lab.cgroup}/{name}"
        match verb:
            case "stop":
                if self._lab.running(name):
                    self._lab.stop_node(name)
                if wipe:
                    shutil.rmtree(self._root / "nodes" / name)
                    Stores(self._root).remove(self._lab.box(HUB), name)
            case "start":
                if not self._lab.running(name):
                    number, tools = network.node_number(name), self._lab.tools
                    start.start_node(self._lab, Node(self._root, number, tools, self._lab.cgroup))
            case "freeze":
                self._lab.box(name)
                cgroups.freeze(group, True)
            case "partition":
                start.cut_link(self._lab, name)
            case "heal":
                cgroups.freeze(group, False)
                start.mend_link(self._lab, name)

    def inside(self, node: str) -> Sequence[str]:
        return self._lab.box(node).enter()

    def control(self, verb: str, daemon: str) -> None:
        cgroups.freeze(self._lab.group(HUB, daemon), verb == "freeze")
        self._progress.step(f"{daemon}: {'frozen' if verb == 'freeze' else 'running'}")

    def logs(self, what: str | None, follow: bool) -> Sequence[str]:
        wanted = (what or "").replace("/", "-")
        files = [
            path
            for path in sorted((self._root / "log").glob("*.log"))
            if not what or path.stem == wanted or wanted in path.stem.split("-", 1)
        ]
        if not files:
            there = ", ".join(sorted(p.stem.replace("-", "/", 1) for p in self._logs()))
            raise LabError(f"no log of {what or 'anything'}", f"there are: {there or 'none'}")
        return ["tail", "-n", "+1", *(["-F"] if follow else []), *map(str, files)]

    def _logs(self) -> list[Path]:
        return list((self._root / "log").glob("*.log"))
