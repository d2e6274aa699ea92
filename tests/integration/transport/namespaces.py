"""Network namespaces joined by veth pairs, with rate limits; removed by name whatever happens."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def unavailable() -> str | None:
    """Why namespaces cannot be used here, if so."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "the commands ip and tc (iproute2) are not installed"
    name = f"distkv-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    return None if made.returncode == 0 else f"ip netns add: {made.stderr.strip()}"


def run(*command: str) -> None:
    """Raises CalledProcessError with the command's own words."""
    subprocess.run(command, check=True, capture_output=True, text=True)


def _enter(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        if _LIBC.setns(handle, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {path}")
    finally:
        os.close(handle)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets opened here live in that namespace, also afterwards."""
    own = os.open(f"/proc/self/task/{_task()}/ns/net", os.O_RDONLY)
    _enter(Path("/run/netns") / namespace)
    try:
        yield
    finally:
        if _LIBC.setns(own, CLONE_NEWNET):
            os._exit(70)  # everything after this would run in the wrong network
        os.close(own)


def _task() -> int:
    return int(os.readlink("/proc/thread-self").rsplit("/", 1)[1])


class Network:
    """Namespaces of one test; `link` joins two of them."""

    def __init__(self) -> None:
        self.prefix = f"distkv-{os.getpid()}"
        self._made: list[str] = []
        self._links = 0

    def add(self, name: str) -> str:
        """A namespace with its loopback up; its full name."""
        full = f"{self.prefix}-{name}"
        run("ip", "netns", "add", full)
        self._made.append(full)
        run("ip", "-n", full, "link", "set", "lo", "up")
        return full

    def link(self, one: str, other: str, megabits: int | None = None) -> tuple[str, str]:
        """The addresses of the two ends; each end sends at most at that rate."""
        self._links += 1
        subnet = f"10.213.{self._links}"
        ends = []
        run(
            "ip",
            "link",
            "add",
            f"dkt{self._links}a",
            "netns",
            one,
            "type",
            "veth",
            "peer",
            "name",
            f"dkt{self._links}b",
            "netns",
            other,
        )
        for place, (namespace, letter) in enumerate(((one, "a"), (other, "b")), start=1):
            device = f"dkt{self._links}{letter}"
            address = f"{subnet}.{place}"
            run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", device)
            run("ip", "-n", namespace, "link", "set", device, "up")
            if megabits is not None:
                burst = max(16_384, megabits * 250)
                run(
                    "tc",
                    "-n",
                    namespace,
                    "qdisc",
                    "add",
                    "dev",
                    device,
                    "root",
                    "tbf",
                    "rate",
                    f"{megabits}mbit",
                    "burst",
                    str(burst),
                    "limit",
                    "1000000",
                )
            ends.append(address)
        return ends[0], ends[1]

    def remove(self) -> None:
        """All of it; veth pairs go with their namespaces."""
        for name in self._made:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)
