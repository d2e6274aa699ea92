"""One running cluster as recorded on disk: its boxes, its processes, and how to end them all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from testbed.agents.disks import loop_numbers, remove_idle
from testbed.agents.nodes import NodeFile
from testbed.errors import LabError
from testbed.namespaces import cgroups
from testbed.namespaces.boxes import Box, close_box, close_leftovers
from testbed.namespaces.tools import Tools
from testbed.paths import PACKAGE
from testbed.run import wait_until

HUB = "hub"
FOLDERS = ("run", "log", "pki", "nodes", "images", "etcd", "dev", "stores")


@dataclass
class Record:
    """What must outlive the launcher. `complete` tells a finished `up` from an interrupted one."""

    nodes: int = 0
    tools: str = ""
    kubernetes: str = ""
    port: int = 0
    complete: bool = False
    boxes: dict[str, Box] = field(default_factory=dict)
    loops_before: list[int] = field(default_factory=list)


class Lab:
    def __init__(self, root: Path) -> None:
        self.root = root
        # Told apart by their folder, so that clusters of one name but two users do not meet.
        self.cgroup = f"distkv-testbed-{root.name}-{zlib.crc32(str(root).encode()):08x}"
        self.record = self._load()

    @property
    def _file(self) -> Path:
        return self.root / "cluster.json"

    def _load(self) -> Record:
        try:
            found = json.loads(self._file.read_text())
        except FileNotFoundError:
            return Record()
        boxes = {name: Box(**box) for name, box in found.pop("boxes").items()}
        return Record(boxes=boxes, **found)

    def save(self) -> None:
        partial = self._file.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self.record), indent=1))
        partial.replace(self._file)
        nodes = {name: box.outer_pid for name, box in self.record.boxes.items() if name != HUB}
        NodeFile(self.root / "run" / "nodes.json").write(nodes)

    @property
    def tools(self) -> Tools:
        """Those that the cluster was started with, whatever the sources say meanwhile."""
        folder = Path(self.record.tools)
        return Tools(folder, folder.name, self.record.kubernetes)

    def begin(self, nodes: int, tools: Tools) -> None:
        for each in FOLDERS:
            (self.root / each).mkdir(parents=True, exist_ok=True)
        self.record = Record(
            nodes=nodes,
            tools=str(tools.folder),
            kubernetes=tools.kubernetes,
            loops_before=sorted(loop_numbers()),
        )
        self.save()

    def add_box(self, name: str, box: Box) -> None:
        self.record.boxes[name] = box
        self.save()

    def box(self, name: str) -> Box:
        box = self.record.boxes.get(name)
        if box is None or not box.alive():
            raise LabError(f"{name} does not run", f"start it: hack/kube node start {name}")
        return box

    def running(self, name: str) -> bool:
        box = self.record.boxes.get(name)
        return box is not None and box.alive()

    def group(self, box: str, daemon: str) -> str:
        return f"{self.cgroup}/{box}/daemons/{daemon}"

    def log(self, box: str, daemon: str) -> Path:
        return self.root / "log" / f"{box}-{daemon}.log"

    def spawn(
        self,
        box: str,
        daemon: str,
        command: Sequence[str | Path],
        files: Sequence[int] = (),
        again: bool = False,
    ) -> None:
        """Starts a daemon as a child of the box's first process, in a control group of its own.

        With `again` it is started anew whenever it fails, as an init system would do.
        """
        script = cgroups.join_script(self.group(box, daemon))
        # The shell in front ends at once, so that the daemon is an orphan which the box adopts.
        keeper = """sh -c 'until "$@"; do sleep 0.2; done' sh """ if again else ""
        script += f'log=$1; shift; setsid {keeper}"$@" >>"$log" 2>&1 </dev/null &'
        words = [*self.box(box).enter(), "sh", "-ec", script, "sh", self.log(box, daemon), *command]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent), "PYTHONUNBUFFERED": "1"}
        subprocess.run(
            [str(word) for word in words],
            check=True,
            stdin=subprocess.DEVNULL,
            pass_fds=files,
            env=environment,
            cwd="/",
        )

    def spawn_agent(self, name: str, *arguments: str | Path) -> None:
        self.spawn(HUB, name, [sys.executable, "-m", f"testbed.agents.{name}", *arguments])

    def daemons(self) -> dict[str, int | None]:
        """box/daemon -> a process id on the host, or None where it has ended."""
        found: dict[str, int | None] = {}
        for path in sorted((self.root / "log").glob("*.log")):
            box, _, daemon = path.stem.partition("-")
            if self.running(box):
                pids = cgroups.processes(self.group(box, daemon))
                found[f"{box}/{daemon}"] = min(pids) if pids else None
        return found

    def stop_node(self, name: str) -> None:
        """Pulls the plug: no process of the node gets to say goodbye."""
        cgroups.thaw(f"{self.cgroup}/{name}")
        close_box(self.box(name))
        del self.record.boxes[name]
        self.save()
        # As after a reboot. Groups of pods that were left there delay the next kubelet by seconds.
        cgroups.remove(f"{self.cgroup}/{name}/kubepods")

    def end(self) -> None:
        """Ends the cluster from whatever state it is in, and removes what it left on the host."""
        cgroups.thaw(self.cgroup)
        close_leftovers(self.root / "run")
        cgroups.remove(self.cgroup)
        if self.record.loops_before:
            self._free_loops()
        shutil.rmtree(self.root, ignore_errors=True)
        wait_until(f"{self.root} to be removable", self._removed, 20)

    def _removed(self) -> bool:
        shutil.rmtree(self.root, ignore_errors=True)
        return not self.root.exists()

    def _free_loops(self) -> None:
        """Waits for the kernel to let go of our images, then takes away devices made for them."""
        ours = f"{self.root}/"

        def held() -> list[str]:
            files = Path("/sys/block").glob("loop*/loop/backing_file")
            texts = [path.read_text() for path in files if path.exists()]
            return [text for text in texts if text.startswith(ours)]

        wait_until("the kernel to free the loop devices", lambda: not held(), 20)
        remove_idle(loop_numbers() - set(self.record.loops_before))
