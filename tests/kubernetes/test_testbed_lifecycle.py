"""`up` can be interrupted at any moment, and `down` leaves the machine as it was."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.cli import recorded_provider
from testbed.harness import KUBE, Cluster, hack_kube
from testbed.paths import cluster_root
from testbed.run import run, wait_until

NAME = "lifecycle"
# What the kubelet and kube-proxy would like to change for the whole machine.
SETTINGS = (
    "net/ipv4/ip_forward",
    "net/netfilter/nf_conntrack_max",
    "net/bridge/bridge-nf-call-iptables",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "fs/inotify/max_user_instances",
)

pytestmark = pytest.mark.long
"""The test bed itself: what stands on it is tested each time."""


def setting(name: str) -> str:
    path = Path("/proc/sys") / name
    return path.read_text() if path.exists() else "absent"


def host_state() -> dict[str, object]:
    """All that a cluster could leave behind on this machine, but for what other clusters own."""
    groups = Path("/sys/fs/cgroup").glob(f"*/distkv-testbed-{NAME}-*")
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if NAME in line]
    commands = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f"distkv-testbed/{NAME}" in text:
            commands.append(text)
    backing = Path("/sys/block").glob("loop*/loop/backing_file")
    return {
        "links": run(["ip", "-o", "link", "show"]).stdout,
        "routes": run(["ip", "route", "show", "table", "all"]).stdout,
        "rules": run(["nft", "list", "ruleset"]).stdout,
        "settings": {name: setting(name) for name in SETTINGS},
        "groups": [str(group) for group in groups],
        "mounts": mounts,
        "processes": commands,
        "loop devices": [p.read_text() for p in backing if f"/{NAME}/" in p.read_text()],
        "folders": [str(path) for path in cluster_root(NAME).parent.glob(f"{NAME}*")],
        "kubelet's folders": [Path(p).exists() for p in ("/var/lib/kubelet", "/var/lib/cni")],
    }


@pytest.fixture
def untouched(cluster: Cluster) -> Iterator[dict[str, object]]:
    """The machine beside the cluster of the other tests, which has installed what it needs."""
    if recorded_provider(NAME) is not None:
        hack_kube("--name", NAME, "down")
    before = host_state()
    assert before["processes"] == []
    yield before
    hack_kube("--name", NAME, "down")


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
@pytest.mark.parametrize("moment", ["run/hub.ready", "run/node1.sh", "pki/node2.kubeconfig"])
def test_a_crashed_up_can_be_repeated_and_down_leaves_nothing(
    untouched: dict[str, object], moment: str
) -> None:
    """The launcher is killed as soon as a certain file exists, in the middle of its work."""
    command = [str(KUBE), "--name", NAME, "up", "--nodes", "2", "--provider", "namespaces"]
    crashing = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    signs = cluster_root(NAME) / moment
    wait_until(str(signs), signs.exists, 60, every=0.001)
    os.killpg(crashing.pid, signal.SIGKILL)
    crashing.wait()
    assert host_state() != untouched, "the crash came too early to leave anything"

    hack_kube("--name", NAME, "up", "--nodes", "2", "--provider", "namespaces")
    nodes = hack_kube("--name", NAME, "kubectl", "get", "nodes", "-o", "name").split()
    assert nodes == ["node/node1", "node/node2"]
    hack_kube("--name", NAME, "down")
    assert host_state() == untouched


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_down_ends_what_somebody_froze_inside(untouched: dict[str, object]) -> None:
    """One container of a node, in a group of its own, as a broken-off chaos run leaves it."""
    hack_kube("--name", NAME, "up", "--nodes", "2", "--provider", "namespaces")
    (kubelet,) = Path("/sys/fs/cgroup/freezer").glob(
        f"distkv-testbed-{NAME}-*/node2/daemons/kubelet"
    )
    inner = kubelet / "inner"
    inner.mkdir()
    for pid in (kubelet / "cgroup.procs").read_text().split():
        (inner / "cgroup.procs").write_text(pid)
    (inner / "freezer.state").write_text("FROZEN")
    state = inner / "freezer.state"
    wait_until("it to freeze", lambda: state.read_text().strip() == "FROZEN", 10)
    hack_kube("--name", NAME, "down")
    assert host_state() == untouched
