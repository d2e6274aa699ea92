"""The images that every cluster holds from the start, and one prepared containerd store of them.

The stores of a cluster's nodes lie on a file system of their own: there a node's store is a clone
that shares its contents with the others until something is written, and `down` is one file less,
not the removal of every file of every image on every node.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from testbed.agents.disks import DiskFolder
from testbed.image.layer import Layer
from testbed.image.oci import write_archive
from testbed.locks import exclusive
from testbed.namespaces.boxes import Box
from testbed.namespaces.tools import Tools
from testbed.paths import cache_root
from testbed.progress import Progress
from testbed.run import run, wait_until

PAUSE = "testbed.local/pause:1"
COREDNS = "testbed.local/coredns:1"
TOOLBOX = "testbed.local/toolbox:1"  # busybox and probe, for tests
BUSYBOX = Path("/bin/busybox")
NOBODY = "65534:65534"

_STORE_CONFIG = """version = 2
root = "{root}/store"
state = "{root}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.internal.v1.opt"]
[grpc]
  address = "{root}/socket"
"""


def ensure_store(tools: Tools, progress: Progress) -> Path:
    """A containerd root with the images in it, made once for each build of the tools."""
    store = cache_root() / "images" / tools.key
    with exclusive(cache_root() / "images.lock"):
        if not store.exists():
            store.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=store.parent) as scratch:
                archives = _write_images(tools, Path(scratch))
                _import(archives, Path(scratch))
                os.rename(Path(scratch) / "store", store)
            progress.step("images prepared")
    return store


class Stores:
    """The containerd stores of one cluster, seen only from inside its hub and nodes."""

    NAME, SIZE = "stores", 256 * 2**30  # a sparse file: it takes what is written

    def __init__(self, root: Path) -> None:
        self._disk = DiskFolder(root, root / "dev")
        self._folder = root / self.NAME

    def open(self, hub: Box, prepared: Path) -> None:
        self._disk.create(self.NAME, self.SIZE)
        self._disk.mount(self.NAME, hub.pid, str(self._folder))
        hub.run(["cp", "-a", prepared, self._folder / "prepared"], "mount")

    def of(self, node: str) -> Path:
        return self._folder / node

    def ensure(self, hub: Box, node: str) -> bool:
        """True if the node had no store and was given a new one."""
        if hub.run(["ls", self._folder], "mount").split().count(node):
            return False
        new = self._folder / f"{node}.new"
        hub.run(["rm", "-rf", new], "mount")
        hub.run(["cp", "-a", "--reflink=always", self._folder / "prepared", new], "mount")
        hub.run(["mv", new, self.of(node)], "mount")
        return True

    def remove(self, hub: Box, node: str) -> None:
        hub.run(["rm", "-rf", self.of(node)], "mount")


def _write_images(tools: Tools, folder: Path) -> list[Path]:
    pause, dns, toolbox = Layer(), Layer(), Layer()
    pause.file("pause", tools["pause"].read_bytes(), 0o755)
    dns.file("coredns", tools["coredns"].read_bytes(), 0o755)
    toolbox.file("bin/busybox", BUSYBOX.read_bytes(), 0o755)
    for applet in run([BUSYBOX, "--list"]).stdout.split():
        if applet != "busybox":
            toolbox.link(f"bin/{applet}", "busybox")
    toolbox.file("bin/probe", tools["probe"].read_bytes(), 0o755)
    toolbox.file("etc/passwd", b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")
    toolbox.folder("tmp", 0o1777)
    images: dict[str, tuple[Layer, dict[str, Any]]] = {
        PAUSE: (pause, {"User": NOBODY, "Entrypoint": ["/pause"]}),
        COREDNS: (dns, {"User": NOBODY, "Entrypoint": ["/coredns"]}),
        TOOLBOX: (toolbox, {"Env": ["PATH=/bin"]}),
    }
    archives = []
    for name, (layer, config) in images.items():
        archives.append(folder / f"{name.rpartition('/')[2].partition(':')[0]}.tar")
        write_archive(archives[-1], name, [layer.to_bytes()], config)
    return archives


def _import(archives: list[Path], folder: Path) -> None:
    config = folder / "containerd.toml"
    config.write_text(_STORE_CONFIG.format(root=folder))
    client = ["ctr", "-a", str(folder / "socket"), "-n", "k8s.io"]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            ["unshare", "--mount", "--net", "containerd", "-c", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until(
                "containerd to answer",
                lambda: run([*client, "version"], check=False).returncode == 0,
                30,
                hint=f"its configuration was {_STORE_CONFIG.format(root=folder)}",
            )
            for archive in archives:
                run([*client, "image", "import", archive])
        finally:
            daemon.terminate()
            daemon.wait(20)
