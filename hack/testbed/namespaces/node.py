"""One node: a box inside the hub, with containerd, kubelet and kube-proxy in it."""

from __future__ import annotations

import json
from pathlib import Path

from testbed.agents.policy import Verdicts
from testbed.agents.provisioner import disk_folder, target
from testbed.agents.ruleset import render
from testbed.namespaces import network, nodeconfig
from testbed.namespaces.boxes import Box, open_box
from testbed.namespaces.images import Stores
from testbed.namespaces.tools import Tools

CNI_PLUGINS = Path("/usr/lib/cni")
FOLDERS = ("kubelet", "log", "disk", "dev", "cni/config", "cni/plugins", "settings")


class Node:
    """Where a node keeps things, and the commands that make it one."""

    def __init__(self, root: Path, number: int, tools: Tools, cgroup: str) -> None:
        self.number, self.name = number, network.node_name(number)
        self.folder = root / "nodes" / self.name
        self._root, self._tools = root, tools
        self.cgroup = f"{cgroup}/{self.name}"

    def prepare(self) -> None:
        """Writes all that a node finds on its disks; what is there from before stays."""
        for each in FOLDERS:
            (self.folder / each).mkdir(parents=True, exist_ok=True)
        plugins, config = self.folder / "cni/plugins", self.folder / "cni/config"
        for plugin in [*CNI_PLUGINS.iterdir(), self._tools["admit"]]:
            if not (plugins / plugin.name).exists():
                (plugins / plugin.name).symlink_to(plugin)
        socket = self._root / "run" / "admit.sock"
        self._write("cni/config/10-testbed.conflist", nodeconfig.cni(self.number, socket))
        (self.folder / "containerd.toml").write_text(nodeconfig.containerd(plugins, config))
        pki = self._root / "pki"
        self._write("kubelet.json", nodeconfig.kubelet(self.name, pki, self.cgroup))
        self._write("proxy.json", nodeconfig.kube_proxy(self.name, pki / "kube-proxy.kubeconfig"))
        for setting, value in nodeconfig.KERNEL_SETTINGS.items():
            path = self.folder / "settings" / setting.replace("/", ".")
            path.write_text(f"{value}\n")

    def _write(self, file: str, content: object) -> None:
        (self.folder / file).write_text(json.dumps(content, indent=1))

    def open(self, hub: Box, nodes: int) -> Box:
        """Makes the namespaces, links them to the other nodes and closes them to unknown pods."""
        box = open_box(
            self.name, self._script(), self._root / "run", self._tools["pause"], outer=hub
        )
        link = [
            f"link add {self.name} type veth peer name eth0 netns {box.pid}",
            f"link set {self.name} master {network.BRIDGE} up",
        ]
        hub.run(["ip", "-batch", "-"], "net", stdin="\n".join(link))
        inside = [
            f"addr add {network.node_address(self.number)}/24 dev eth0",
            "link set eth0 up",
            f"route add default via {network.HUB_ADDRESS}",
        ]
        for other in range(1, nodes + 1):
            if other != self.number:
                via = network.node_address(other)
                inside.append(f"route add {network.pod_range(other)} via {via}")
        box.run(["ip", "-batch", "-"], "net", stdin="\n".join(inside))
        rules = render(Verdicts(), network.pod_range(self.number))
        box.run(["nft", "-f", "-"], "net", stdin=rules)
        self._mount_volumes(box)
        return box

    def _mount_volumes(self, box: Box) -> None:
        """As at the boot of a machine: the volumes on its disk are there before the kubelet."""
        disk = disk_folder(self._root / "nodes", self.name)
        for volume in disk.volumes():
            disk.mount(volume, box.pid, target(volume))

    def _script(self) -> str:
        """Fresh /run and /var/lib, its own folders in them, and settings that need no change."""
        settings = "".join(
            f"mount --bind {self.folder}/settings/{setting.replace('/', '.')} /proc/sys/{setting}\n"
            for setting in nodeconfig.KERNEL_SETTINGS
        )
        return f"""mount --make-rshared /
{settings}mount -t tmpfs tmpfs /run
mkdir -p /run/netns /run/lock
mount -t tmpfs tmpfs /var/lib
mkdir -p /var/lib/kubelet /var/lib/containerd /var/lib/cni {nodeconfig.VOLUMES}
mount --bind {self.folder}/kubelet /var/lib/kubelet
mount --bind {Stores(self._root).of(self.name)} /var/lib/containerd
mount --bind {self.folder}/log /var/log
hostname {self.name}
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward"""

    def daemons(self) -> dict[str, list[str]]:
        """Name -> command, in the order of starting."""
        kubebox = str(self._tools["kubebox"])
        labels = {
            "topology.kubernetes.io/zone": network.zone_of(self.number),
            "topology.kubernetes.io/region": "testbed",
        }
        kubelet = [
            kubebox,
            "kubelet",
            f"--config={self.folder}/kubelet.json",
            f"--kubeconfig={self._root}/pki/{self.name}.kubeconfig",
            f"--hostname-override={self.name}",
            f"--node-ip={network.node_address(self.number)}",
            "--node-labels=" + ",".join(f"{key}={value}" for key, value in labels.items()),
        ]
        return {
            "containerd": ["containerd", "-c", f"{self.folder}/containerd.toml"],
            "kubelet": kubelet,
            "kube-proxy": [kubebox, "kube-proxy", f"--config={self.folder}/proxy.json"],
        }
