"""Child processes that never outlive their supervisor, and pid files that never lie.

A pid alone may have been given to somebody else since; with the start time of the process
(field 22 of /proc/PID/stat) it is unique until the next boot of the machine.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

PARENT_VARIABLE = "DISTKV_PARENT"
"""Set for children: the process that must live for them to live."""

LOG_BYTES_MAX = 16 * 1024 * 1024
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """In a child: be killed when the supervisor ends, however it ends. Else do nothing."""
    expected = os.environ.get(PARENT_VARIABLE)
    if expected is None:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(expected):
        sys.exit("the supervisor ended before this process had started")


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started; None if it is gone (or a zombie)."""
    fields = _stat(pid)
    return None if fields is None or fields[0] in ("Z", "X") else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether it was stopped by a signal."""
    fields = _stat(pid)
    return fields is not None and fields[0] == "T"


def _stat(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third on: the name before may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None


class Child:
    """One process of the cluster: `name` is "node-0" or "gateway"."""

    def __init__(self, name: str, directory: Path, command: Sequence[str]) -> None:
        self.name = name
        self.command = list(command)
        self.log = directory / f"{name}.log"
        self._pid_file = directory / f"{name}.pid"
        self._process: subprocess.Popen[bytes] | None = None
        self.asked_down = False
        """The user took it down; it stays so until the user starts it."""

    def start(self) -> None:
        """Start it in a session of its own, so that Ctrl-C reaches the supervisor alone."""
        assert not self.is_running
        self.asked_down = False
        with contextlib.suppress(OSError):
            if self.log.stat().st_size > LOG_BYTES_MAX:
                self.log.replace(self.log.with_suffix(".log.1"))
        environment = {
            name: value
            for name, value in os.environ.items()
            if not (name.startswith("DISTKV_") and "__" in name)
        }
        environment[PARENT_VARIABLE] = str(os.getpid())
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        record = {"pid": self._process.pid, "started": start_time(self._process.pid)}
        self._pid_file.write_text(json.dumps(record))

    @property
    def pid(self) -> int | None:
        """Its process id, while it runs."""
        return self._process.pid if self._process is not None and self.is_running else None

    @property
    def is_running(self) -> bool:
        """Whether the process is there (stopped by a signal counts)."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended: code, or minus the signal; None while it runs or before it did."""
        return None if self._process is None else self._process.poll()

    @property
    def state(self) -> str:
        """running, stopped (by a signal), down (as the user wanted) or exited (by itself)."""
        pid = self.pid
        if pid is not None:
            return "stopped" if is_stopped(pid) else "running"
        return "down" if self.asked_down or self._process is None else "exited"

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.is_running and self._process is not None:
            self._process.send_signal(number)

    def gone(self) -> None:
        """Forget the pid file of a process that has ended."""
        assert not self.is_running
        self._pid_file.unlink(missing_ok=True)

    def kill_leftover(self) -> None:
        """End the process an earlier supervisor left, if the pid file still names it."""
        try:
            record = json.loads(self._pid_file.read_text())
            pid, started = int(record["pid"]), record["started"]
        except (OSError, ValueError, KeyError, TypeError):
            return
        if started is not None and start_time(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 8192))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])
