"""Control groups of a cluster, in every hierarchy of cgroup v1 (and the unified one beside it)."""

from __future__ import annotations

import os
from pathlib import Path

from testbed.errors import LabError
from testbed.run import wait_until

ROOT = Path("/sys/fs/cgroup")

# A daemon's own group is needed where something is read from it (its processes, what it used) or
# done to it (freezing); its pods' groups are made by the kubelet in every hierarchy.
DAEMON_HIERARCHIES = ("cpuacct", "memory", "freezer")


def hierarchies() -> list[Path]:
    found = [path for path in sorted(ROOT.iterdir()) if (path / "cgroup.procs").exists()]
    missing = [name for name in DAEMON_HIERARCHIES if ROOT / name not in found]
    if missing:
        raise LabError(
            f"{ROOT} has no cgroup v1 hierarchy {', '.join(missing)}",
            "the namespaces provider was written for cgroup v1: use --provider kind here",
        )
    return found


def create(group: str) -> None:
    """Makes a group everywhere. A cpuset admits no process before it has been given its share."""
    for hierarchy in hierarchies():
        (hierarchy / group).mkdir(parents=True, exist_ok=True)
        if (hierarchy / "cpuset.cpus").exists():
            path = hierarchy
            for part in Path(group).parts:
                path = path / part
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (path / file).write_text((hierarchy / file).read_text())


def join_script(group: str) -> str:
    """Shell lines that move the shell, and so all that it starts, into a daemon's group."""
    for name in DAEMON_HIERARCHIES:
        (ROOT / name / group).mkdir(parents=True, exist_ok=True)
    return "".join(f"echo 0 > {ROOT / name / group}/cgroup.procs\n" for name in DAEMON_HIERARCHIES)


def processes(group: str) -> list[int]:
    """Host process ids of a group, without those of groups below it."""
    try:
        text = (ROOT / "memory" / group / "cgroup.procs").read_text()
    except FileNotFoundError:
        return []
    return [int(line) for line in text.split()]


def freeze(group: str, frozen: bool) -> None:
    """Stops or wakes every process of a group and of all groups below it."""
    state = ROOT / "freezer" / group / "freezer.state"
    if not state.exists():
        return
    wanted = "FROZEN" if frozen else "THAWED"
    state.write_text(wanted)
    wait_until(f"{group} to be {wanted}", lambda: state.read_text().strip() == wanted, 10)


def thaw(group: str) -> None:
    """Wakes everything in a group, also what was frozen in a group of its own below it.

    A frozen process cannot even die, and somebody may have frozen a single container.
    """
    for folder, _, _ in os.walk(ROOT / "freezer" / group):  # downwards: a parent's state wins
        freeze(str(Path(folder).relative_to(ROOT / "freezer")), False)


def is_frozen(group: str) -> bool:
    state = ROOT / "freezer" / group / "freezer.state"
    return state.exists() and state.read_text().strip() != "THAWED"


def remove(group: str) -> None:
    """Removes a group with all below it, as soon as the last of its processes is gone."""
    left: list[str] = []

    def gone() -> bool:
        left.clear()
        for hierarchy in ROOT.iterdir():
            for folder, _, _ in os.walk(hierarchy / group, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    left.append(folder)
        return not left

    try:
        wait_until(f"the control groups of {group} to become empty", gone, 20)
    except LabError as late:
        raise LabError(late.problem, f"still there: {', '.join(left[:5])}") from late
