"""Running other programs: the command and what it said are part of the error when it fails."""

from __future__ import annotations

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from testbed.errors import LabError


def run(
    command: Sequence[str | Path],
    *,
    stdin: str | None = None,
    check: bool = True,
    timeout: float | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end with its output captured; `check` turns a failure into an error."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=env,
            cwd=cwd,
        )
    except FileNotFoundError as missing:
        raise LabError(
            f"{words[0]} is not installed", f"needed for: {shlex.join(words)}"
        ) from missing
    except subprocess.TimeoutExpired as late:
        raise LabError(f"no end after {timeout} s: {shlex.join(words)}") from late
    if check and done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip())[-3000:]
        raise LabError(f"exit {done.returncode}: {shlex.join(words)}\n{said}")
    return done


def wait_until(
    what: str, condition: Callable[[], bool], timeout: float, every: float = 0.05, hint: str = ""
) -> None:
    """Returns once `condition` holds; after `timeout` seconds the error names what did not."""
    limit = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > limit:
            raise LabError(f"not within {timeout:.0f} s: {what}", hint)
        time.sleep(every)
