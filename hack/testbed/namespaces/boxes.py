"""Boxes: sets of namespaces, each with a first process that only waits and reaps.

The hub is a box on the host; every node is a box inside the hub. A box ends when its first process
ends, and with it go all its processes, mounts, links, routes and rules, so nothing of it can stay.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import LabError
from testbed.run import run, wait_until

FLAGS = {"net": "-n", "mount": "-m", "pid": "-p", "ipc": "-i", "uts": "-u"}


@dataclass(frozen=True)
class Box:
    """The first process of a box, as numbered on the host and in the box around it."""

    pid: int
    outer_pid: int
    started: int  # in clock ticks since boot: a process id alone may come to mean another process

    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def enter(self, *spaces: str) -> list[str]:
        """The beginning of a command that runs inside; all namespaces unless some are named."""
        return ["nsenter", "-t", str(self.pid), *(FLAGS[s] for s in spaces or FLAGS), "--"]

    def run(self, command: Sequence[str | Path], *spaces: str, stdin: str | None = None) -> str:
        return run([*self.enter(*spaces), *command], stdin=stdin).stdout


def open_box(name: str, script: str, folder: Path, pause: Path, outer: Box | None = None) -> Box:
    """Makes a box, runs a shell script in it, and leaves `pause` there as its first process."""
    init, ready = folder / f"{name}.sh", folder / f"{name}.ready"
    ready.unlink(missing_ok=True)
    init.write_text(f"set -e\n{script}\ntouch {ready}\nexec {pause}\n")
    command = outer.enter() if outer else []
    command += ["unshare", "--net", "--mount", "--pid", "--ipc", "--uts"]
    command += ["--fork", "--kill-child", "--mount-proc", "sh", str(init)]
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        starter = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def opened() -> bool:
        if starter.poll() is not None:
            raise LabError(f"box {name} ended at once: {log.read_text()[-2000:]}")
        return ready.exists()

    wait_until(f"box {name} to be set up", opened, 20, every=0.01)
    return _first_process(starter.pid, depth=3 if outer else 2)


def _first_process(starter: int, depth: int) -> Box:
    """Follows the children of the command that made a box down to number 1 of its pid namespace."""
    pid = starter
    while True:
        numbers = _numbers(pid)
        if len(numbers) - len(_numbers(os.getpid())) + 1 == depth and numbers[-1] == 1:
            return Box(pid, numbers[-2], start_time(pid))
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if not children:
            raise LabError(f"process {pid} has no child that is the first of a pid namespace")
        pid = int(children[0])


def _numbers(pid: int) -> list[int]:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    raise LabError("the kernel does not tell process ids per namespace (no NSpid in /proc)")


def start_time(pid: int) -> int:
    """When a process was started; 0 if it is not there any more or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def close_box(box: Box) -> None:
    """Kills the first process; the kernel then kills every other one of the box."""
    if not box.alive():
        return
    os.kill(box.pid, signal.SIGKILL)
    wait_until(f"process {box.pid} to end", lambda: not box.alive(), 20, every=0.01)


def close_leftovers(folder: Path) -> int:
    """Ends the boxes of a cluster by what they were started with, whatever became of its records.

    Only processes whose command line holds the exact path of an init script in `folder` are
    meant. The hub's is the outermost, and its end takes all the others along.
    """
    ended = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "unshare" in words[:1] and str(folder / "hub.sh") in words:
            pid = int(entry.name)
            started = start_time(pid)
            children = (entry / "task" / entry.name / "children").read_text().split()
            for first in [Box(int(child), 0, start_time(int(child))) for child in children]:
                close_box(first)
            starter = Box(pid, 0, started)  # left alone it ends with its child; without one, here
            close_box(starter)
            ended += 1
    return ended
