"""A local cluster driven as a person does: by the distkv command, in real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distkv.local.ports import HOST, PortPlan, free_base

PATIENCE_SECONDS = 60.0


def environment() -> dict[str, str]:
    """Of commands: without settings of whoever runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if "DISTKV" not in name}
    return inherited | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def until(what: str, holds: Callable[[], Any]) -> Any:
    """Wait for a condition; its value."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = holds()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {PATIENCE_SECONDS:.0f} s in vain for {what}")


class Cluster:
    """`distkv local` on one directory."""

    def __init__(self, path: Path, k: int, m: int) -> None:
        self.path = path
        self.k, self.m = k, m
        base = free_base(PortPlan(30000, k + m))
        assert base is not None
        self.plan = PortPlan(base, k + m)

    def distkv(self, *arguments: str, code: int = 0) -> str:
        """Run a command; its output (both streams) after a check of its exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "distkv", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            env=environment(),
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    def local(self, command: str, *arguments: str, code: int = 0) -> str:
        """`distkv local command ... --dir`."""
        return self.distkv("local", command, *arguments, "--dir", str(self.path), code=code)

    def kv(self, *arguments: str, code: int = 0) -> str:
        """`distkv kv ...` through the gateway."""
        server = f"http://{HOST}:{self.plan.gateway_http}"
        return self.distkv("kv", *arguments, "--server", server, code=code)

    @property
    def geometry(self) -> tuple[str, ...]:
        """Flags of a new cluster."""
        return (
            *("--data-shards", str(self.k), "--parity-shards", str(self.m)),
            *("--port-base", str(self.plan.base)),
        )

    def up(self, *arguments: str) -> str:
        """Detached."""
        return self.local("up", *(arguments or self.geometry), "--detach")

    def status(self) -> dict[str, Any]:
        """As programs read it."""
        found: dict[str, Any] = json.loads(self.local("status", "--json"))
        return found

    def node(self, ordinal: int) -> dict[str, Any]:
        """One node's part of the status."""
        found: dict[str, Any] = self.status()["nodes"][ordinal]
        return found

    def pids(self) -> list[int]:
        """Of nodes and gateway."""
        status = self.status()
        return [p["pid"] for p in [*status["nodes"], status["gateway"]] if p["pid"] is not None]
