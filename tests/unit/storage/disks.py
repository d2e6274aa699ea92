"""Small file systems, and what fills them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(path: Path, size: int) -> Iterator[Path]:
    """A file system of `size` bytes of its own; skips the test where that is not allowed."""
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "distkv-test", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def free_of(path: Path) -> int:
    """Bytes."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize


def fill_up(ballast: Path, spare: int) -> None:
    """Write a file until only `spare` bytes are free."""
    with ballast.open("ab", buffering=0) as file:
        while (more := free_of(ballast.parent) - spare) > 0:
            file.write(bytes(min(more, 1 << 20)))


def eventually(true: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for what other threads do."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.01)
