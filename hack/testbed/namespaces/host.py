"""What the namespaces provider needs from the machine, and how the missing part is installed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from testbed.errors import LabError
from testbed.namespaces import cgroups
from testbed.progress import Progress
from testbed.run import run

# Debian package -> a file that it brings.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "containernetworking-plugins": "/usr/lib/cni/ptp",
    "nftables": "nft",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "iproute2": "ip",
    "busybox-static": "/bin/busybox",
    "xfsprogs": "mkfs.xfs",
    "util-linux": "nsenter",
    "mount": "mount",
    "ca-certificates": "/etc/ssl/certs/ca-certificates.crt",
}
FILE_SYSTEMS = ("overlay", "xfs", "tmpfs")
ADMIN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing_packages() -> list[str]:
    return [package for package, file in PACKAGES.items() if not _is_there(file)]


def _is_there(file: str) -> bool:
    if file.startswith("/"):
        return Path(file).exists()
    return shutil.which(file, path=ADMIN_PATH) is not None


def prepare(progress: Progress) -> None:
    """Checks the kernel and installs what is missing from Debian; a no-op on a prepared machine."""
    if os.geteuid() != 0:
        raise LabError(
            "the namespaces provider needs root: it makes namespaces, mounts and control groups",
            "run it as root (sudo hack/kube up), or use --provider kind",
        )
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:{ADMIN_PATH}"
    check_kernel()
    install(missing_packages(), progress)


def check_kernel() -> None:
    """LabError: this kernel lacks something that no package brings."""
    known = Path("/proc/filesystems").read_text().split()
    lacking = [name for name in FILE_SYSTEMS if name not in known]
    if lacking:
        raise LabError(
            f"this kernel has no file system {', '.join(lacking)}",
            "load the module (modprobe NAME), or use --provider kind",
        )
    if not Path("/dev/loop-control").exists():
        raise LabError(
            "there is no /dev/loop-control, so volumes cannot be given a size",
            "load the module (modprobe loop), or use --provider kind",
        )
    cgroups.hierarchies()


def install(packages: list[str], progress: Progress) -> None:
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise LabError(
            f"not installed: {', '.join(packages)} (names as in Debian)",
            "install them with the package manager of this machine",
        )
    progress.step(f"installing from Debian: {' '.join(packages)}")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], env=quiet, timeout=600)
    options = ["-y", "-qq", "--no-install-recommends", "-o", "Dpkg::Use-Pty=0"]
    run(["apt-get", "install", *options, *packages], env=quiet, timeout=900)
