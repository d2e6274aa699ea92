"""Five nodes for measuring: started, stopped, and looked at from outside (CPU, disk, wire)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distkv.local import control
from distkv.local.directory import Directory
from distkv.local.errors import LocalError
from distkv.local.ports import HOST, PortPlan, free_base

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
WAIT_SECONDS = 30.0
POLL_SECONDS = 0.01


def cpu_seconds(pids: list[int]) -> float:
    """CPU time of all threads of these processes so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS_PER_SECOND


def loopback_bytes() -> int:
    """Bytes sent over the loopback device so far, headers included."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, fields = line.partition(":")
        if name.strip() == "lo":
            return int(fields.split()[8])
    raise RuntimeError("there is no loopback device")


def disk_bytes(directory: Path) -> int:
    """Bytes of the files below: allocated, or up to their end, whichever is less."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = (Path(root) / name).stat()
                total += min(found.st_blocks * 512, found.st_size)
    return total


class Cluster:
    """A local cluster in a directory of its own; use as a context manager."""

    def __init__(self, path: Path, k: int = 3, m: int = 2) -> None:
        self.directory = Directory(path)
        self.k, self.m = k, m
        base = free_base(PortPlan(9000, k + m))
        if base is None:
            raise RuntimeError("no free ports")
        self.plan = PortPlan(base, k + m)

    def _local(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "distkv", "local", *arguments]
        command += ["--dir", str(self.directory.path)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise RuntimeError(done.stderr or done.stdout)

    def __enter__(self) -> Cluster:
        with contextlib.suppress(RuntimeError):
            self._local("clean")
        geometry = ("--data-shards", str(self.k), "--parity-shards", str(self.m))
        self._local("up", *geometry, "--port-base", str(self.plan.base), "--detach")
        return self

    def __exit__(self, *_: object) -> None:
        self._local("clean")

    def status(self) -> dict[str, Any]:
        """As `distkv local status --json`."""
        found: dict[str, Any] = control.command(self.directory, "status")
        return found

    def pids(self) -> list[int]:
        """Processes of the nodes that run."""
        return [node["pid"] for node in self.status()["nodes"] if node["pid"] is not None]

    def leader(self) -> int:
        """The ordinal of a leader whose process runs."""
        for status in self._until("a leader"):
            leader = status["leader"]
            if leader is not None and status["nodes"][leader]["process"] == "running":
                return int(leader)
        raise AssertionError

    def settled(self) -> None:
        """Wait until every running node serves and has applied the same."""
        for status in self._until("all nodes to serve"):
            up = [node for node in status["nodes"] if node["process"] == "running"]
            serving = all(node["serving"] for node in up)
            applied = [node["applied"] or 0 for node in up]
            if serving and status["leader"] is not None and max(applied) - min(applied) < 100:
                return

    def _until(self, what: str) -> Iterator[dict[str, Any]]:
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            yield self.status()
            time.sleep(POLL_SECONDS)
        raise RuntimeError(f"waited {WAIT_SECONDS:.0f} s for {what} in vain")

    def kill(self, ordinal: int) -> None:
        """kill -9."""
        control.command(self.directory, "kill", who=str(ordinal), signal=int(signal.SIGKILL))

    def start(self, ordinal: int) -> None:
        """Start again; no error if it runs."""
        with contextlib.suppress(LocalError):
            control.command(self.directory, "start", who=str(ordinal))

    def resp(self, ordinal: int) -> tuple[str, int]:
        """Where a node speaks RESP."""
        return HOST, self.plan.node(ordinal).resp
