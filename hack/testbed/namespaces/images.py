"""The images that every cluster holds from the start, and one prepared containerd store of them.

A node gets its store by hard links: contents are shared and never written again; only containerd's
databases are copied. So six nodes cost neither six imports nor the disk of six.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from testbed.image.layer import Layer
from testbed.image.oci import write_archive
from testbed.namespaces.tools import Tools, exclusive
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


def clone_store(store: Path, target: Path) -> None:
    """A store of a node's own. Across file systems hard links are impossible: then it is copied."""
    linked = run(["cp", "-al", store, target], check=False)
    if linked.returncode != 0:
        shutil.rmtree(target, ignore_errors=True)
        run(["cp", "-a", store, target])
        return
    for database in target.rglob("*.db"):
        if "snapshots" in database.relative_to(target).parts:
            continue
        own = database.with_name(f"{database.name}.own")
        shutil.copy2(database, own)
        own.replace(database)


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
